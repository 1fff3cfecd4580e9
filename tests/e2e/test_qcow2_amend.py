# SPDX-License-Identifier: LGPL-2.1-or-later
"""ashlar-img amend on qcow2 images: what is changed is changed, the content of disk and snapshots never is, and another
program finds the image in order."""
import json

import pytest
from harness import need, program, run

SIZE = 4 << 20


def theirs(command, *arguments, **kwargs):
    return run(need('qemu-img'), command, *arguments, **kwargs)


def io(path, *commands, tool='qemu-io'):
    done = run(need('qemu-io') if tool == 'qemu-io' else program(tool), '-f', 'qcow2',
               *(word for command in commands for word in ('-c', command)), path)
    assert 'rror' not in done.stdout + done.stderr, done.stdout + done.stderr


def amend(path, options, *more):
    return run(program('ashlar-img'), 'amend', '-f', 'qcow2', *more, '-o', options, path)


def refused(path, options, *more):
    done = run(program('ashlar-img'), 'amend', '-f', 'qcow2', *more, '-o', options, path, check=False)
    assert done.returncode == 1
    return done.stderr.removeprefix('ashlar-img: ').strip()


def facts(path):
    info = json.loads(theirs('info', '--output=json', '-f', 'qcow2', path).stdout)
    return info | info['format-specific']['data']


def check(path):
    assert theirs('check', '-q', '-f', 'qcow2', path, check=False).returncode == 0
    assert run(program('ashlar-img'), 'check', '-q', '-f', 'qcow2', path, check=False).returncode == 0


def content(path, *options):
    raw = path.with_suffix('.content')
    theirs('convert', '-f', 'qcow2', '-O', 'raw', *options, path, raw)
    return raw.read_bytes()


@pytest.fixture
def image(tmp_path):
    path = tmp_path / 'image.qcow2'

    def make(*options, size=SIZE):
        theirs('create', '-q', '-f', 'qcow2', *options, path, size)
        return path

    return make


def busy(path):
    """Data, zeroes with and without clusters of their own, a snapshot that shares some of it, and changes after it."""
    io(path, 'write -P 1 0 1M', 'write -P 2 2M 300k', 'write -z 256k 256k', 'write -z 3M 128k')
    theirs('snapshot', '-c', 'old', path)
    io(path, 'write -z 0 200k', 'write -P 3 512k 100k', 'write -z 2M 64k', 'write -P 4 3M 10k')


@pytest.mark.parametrize('backing', [None, 'raw'])
@pytest.mark.parametrize('cluster_size', [512, 65536])
def test_versions(image, tmp_path, backing, cluster_size):
    options = ['-o', f'cluster_size={cluster_size}']
    if backing:
        below = tmp_path / 'below'
        below.write_bytes(b'\x99' * (SIZE - 1000))
        options += ['-b', below, '-F', 'raw']
    path = image(*options)
    busy(path)
    before, before_old = content(path), content(path, '-l', 'old')
    for compat in ('0.10', '1.1', 'v2', 'v3'):
        amend(path, f'compat={compat}')
        assert facts(path)['compat'] == {'v2': '0.10', 'v3': '1.1'}.get(compat, compat)
        check(path)
        assert content(path) == before
        assert content(path, '-l', 'old') == before_old
    # It still is an image to work with.
    io(path, 'write -P 9 1M 1M', tool='ashlar-io')
    theirs('snapshot', '-a', 'old', path)
    check(path)
    assert content(path) == before_old


def test_widths_of_counts(image):
    path = image('-o', 'cluster_size=4k')
    io(path, 'write -P 1 0 2M', 'write -z 3M 64k')
    before = content(path)
    for bits in (1, 64, 2, 32, 4, 8, 16):
        amend(path, f'refcount_bits={bits}')
        assert facts(path)['refcount-bits'] == bits
        check(path)
        assert content(path) == before
    io(path, 'write -P 7 1M 3M', tool='ashlar-io')
    check(path)


def test_counts_that_do_not_fit(image):
    path = image()
    busy(path)
    before = path.read_bytes()
    assert refused(path, 'refcount_bits=1').startswith(
        'Cannot decrease refcount entry width to 1 bits: Cluster at offset 0x')
    assert path.read_bytes() == before
    amend(path, 'refcount_bits=2')
    check(path)


def test_several_at_once(image):
    path = image('-o', 'compat=0.10')
    io(path, 'write -P 1 0 1M')
    amend(path, 'compat=1.1,lazy_refcounts=on,refcount_bits=8,size=8M')
    now = facts(path)
    assert (now['compat'], now['lazy-refcounts'], now['refcount-bits'], now['virtual-size']) == ('1.1', True, 8, 8 << 20)
    check(path)
    amend(path, 'compat=0.10,refcount_bits=16,size=1M')
    now = facts(path)
    assert (now['compat'], now['refcount-bits'], now['virtual-size']) == ('0.10', 16, 1 << 20)
    check(path)
    assert content(path) == b'\x01' * (1 << 20)


def test_progress(image):
    path = image()
    shown = amend(path, 'refcount_bits=64', '-p').stdout
    assert shown.startswith('    (0.00/100%)')
    assert shown.rstrip().endswith('(100.00/100%)')


REFUSALS = [
    ('', 'compat=2.0', 'Unknown compatibility level 2.0'),
    ('', 'refcount_bits=3', 'Refcount width must be a power of two and may not exceed 64 bits'),
    ('', 'refcount_bits=128', 'Refcount width must be a power of two and may not exceed 64 bits'),
    ('refcount_bits=8', 'compat=0.10', 'compat=0.10 requires refcount_bits=16'),
    ('compat=0.10', 'refcount_bits=8', 'Refcount widths other than 16 bits require compatibility level 1.1 or above '
     '(use compat=1.1 or greater)'),
    ('compat=0.10', 'lazy_refcounts=on', 'Lazy refcounts only supported with compatibility level 1.1 and above (use '
     'compat=1.1 or greater)'),
    ('', 'lazy_refcounts=on,compat=0.10', 'Lazy refcounts only supported with compatibility level 1.1 and above (use '
     'compat=1.1 or greater)'),
    ('extended_l2=on', 'compat=0.10', 'Cannot downgrade an image with incompatible features 0x10 set'),
    ('compression_type=zstd', 'compat=0.10', 'Cannot downgrade an image with incompatible features 0x8 set'),
    ('', 'data_file=x', 'data-file can only be set for images that use an external data file'),
    ('', 'data_file_raw=on', 'data-file-raw cannot be set on existing images'),
    ('', 'encrypt.keyslot=1', "Can't amend encryption options - encryption not present"),
    ('', 'size=1000', 'The new size must be a multiple of 512'),
    ('', 'cluster_size=4k', "Invalid parameter 'cluster_size'\nThis option is only supported for image creation"),
    ('', 'backing_file=x,backing_fmt=raw', "Cannot amend the backing file\nYou can use 'rebase' instead."),
]


@pytest.mark.parametrize('made_with,options,message', REFUSALS, ids=[f'{case[0]} {case[1]}' for case in REFUSALS])
def test_refusals(image, made_with, options, message):
    path = image(*(['-o', made_with] if made_with else []))
    before = path.read_bytes()
    assert refused(path, options) == message
    assert path.read_bytes() == before


def test_bitmaps_need_version_3(image):
    path = image()
    theirs('bitmap', '--add', path, 'b0')
    assert refused(path, 'compat=0.10') == 'Cannot downgrade an image with persistent bitmaps'
    amend(path, 'refcount_bits=64')
    check(path)
    assert facts(path)['bitmaps'][0]['name'] == 'b0'


def test_data_file(image, tmp_path):
    first, second = tmp_path / 'first', tmp_path / 'second'
    path = image('-o', f'data_file={first},data_file_raw=on')
    io(path, 'write -P 5 1M 64k')
    assert refused(path, 'compat=0.10') == 'Cannot downgrade an image with a data file'
    amend(path, 'data_file_raw=off')
    assert facts(path)['data-file-raw'] is False
    second.write_bytes(first.read_bytes())
    amend(path, f'data_file={second}')
    assert facts(path)['data-file'] == str(second)
    first.unlink()
    io(path, 'read -P 5 1M 64k')
    check(path)


def test_backing_by_force(image, tmp_path):
    below = tmp_path / 'below'
    below.write_bytes(b'\x21' * SIZE)
    path = image()
    amend(path, f'backing_file={below},backing_fmt=raw', '--force')
    now = facts(path)
    assert (now['backing-filename'], now['backing-filename-format']) == (str(below), 'raw')
    assert content(path) == b'\x21' * SIZE


def test_key_slots(tmp_path):
    secrets = [word for name in 'ab' for word in ('--object', f'secret,id={name},data={name}')]
    path = tmp_path / 'image.qcow2'
    # With so little time, Debian's program sometimes cannot tell how fast the machine is.
    run(program('ashlar-img'), 'create', '-q', '-f', 'qcow2', *secrets, '-o',
        'encrypt.format=luks,encrypt.key-secret=a,encrypt.iter-time=10', path, SIZE)
    opened = 'driver=qcow2,file.filename={},encrypt.key-secret={}'
    run(program('ashlar-img'), 'amend', *secrets, '--image-opts', opened.format(path, 'a'), '-o',
        'encrypt.state=active,encrypt.new-secret=b,encrypt.iter-time=10')
    for name in 'ab':
        run(need('qemu-io'), *secrets, '--image-opts', opened.format(path, name), '-c', 'write -P 3 0 64k')
    run(program('ashlar-img'), 'amend', *secrets, '--image-opts', opened.format(path, 'b'), '-o',
        'encrypt.state=inactive,encrypt.old-secret=a')
    done = run(need('qemu-io'), *secrets, '--image-opts', opened.format(path, 'a'), '-c', 'read 0 512', check=False)
    assert done.returncode != 0
    run(need('qemu-io'), *secrets, '--image-opts', opened.format(path, 'b'), '-c', 'read -P 3 0 64k')
    theirs('check', '-q', *secrets, '--image-opts', opened.format(path, 'b'))


def test_read_only(image, daemon):
    path = image()
    one = daemon('--blockdev', f'driver=qcow2,node-name=n,read-only=on,file.driver=file,file.filename={path}')
    one.qmp.command('x-blockdev-amend', job_id='j', node_name='n', options={
        'driver': 'qcow2', 'encrypt': {'format': 'luks', 'state': 'inactive', 'old-secret': 'x'}})
    one.qmp.event('JOB_STATUS_CHANGE')
    while (job := one.qmp.command('query-jobs')[0])['status'] != 'concluded':
        one.qmp.event('JOB_STATUS_CHANGE')
    assert job['error'] == "Image is read-only: node 'n'"
