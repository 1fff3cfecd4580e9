# SPDX-License-Identifier: LGPL-2.1-or-later
"""LUKS in the daemon: nodes, jobs, and what a core dump would show."""
import os
import re

import pytest
from harness import QmpError, need, run, sanitized, wait_for
from luks_tools import OTHER, OUR_IO, PASSPHRASE, active_slots, cryptsetup, image_opts, io, opens, our_create


@pytest.fixture
def serving(daemon, tmp_path):
    """A daemon with both passphrases, read from files, and the node 'file' of a volume."""
    path = tmp_path / 'luks'
    our_create(path)
    (tmp_path / 'pass0').write_text(PASSPHRASE)
    (tmp_path / 'pass1').write_text(OTHER)
    one = daemon('--object', f'secret,id=sec0,file={tmp_path}/pass0', '--object', f'secret,id=sec1,file={tmp_path}/pass1',
                 '--blockdev', f'driver=file,node-name=file,filename={path}')
    one.path = path
    return one


def job(qmp, command, **arguments):
    """Runs a job to its end: None, or why it failed."""
    qmp.command(command, job_id='j', **arguments)
    state = wait_for(lambda: next((one for one in qmp.command('query-jobs') if one['status'] == 'concluded'), None), 'the job')
    qmp.command('job-dismiss', id='j')
    return state.get('error')


def test_nodes(serving):
    qmp = serving.qmp
    for options, message in (({}, "Parameter 'key-secret' is required for cipher"),
                             ({'key_secret': 'none'}, "No secret with id 'none'"),
                             ({'key_secret': 'sec1'}, 'Invalid password, cannot unlock any keyslot')):
        with pytest.raises(QmpError) as caught:
            qmp.command('blockdev-add', driver='luks', node_name='disk', file='file', **options)
        assert caught.value.desc == message
    qmp.command('blockdev-add', driver='luks', node_name='disk', file='file', key_secret='sec0')
    node = next(one for one in qmp.command('query-named-block-nodes') if one['node-name'] == 'disk')
    assert node['encrypted'] is True
    assert node['image']['virtual-size'] == 1 << 20
    assert node['image']['format-specific']['data']['slots'][0]['active'] is True
    qmp.command('blockdev-del', node_name='disk')


def test_amend_while_clients_write(serving, tmp_path):
    """Key slots change beside writers; the data is theirs alone."""
    qmp = serving.qmp
    qmp.command('blockdev-add', driver='luks', node_name='disk', file='file', key_secret='sec0')
    qmp.command('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(tmp_path / 'nbd')}})
    qmp.command('block-export-add', type='nbd', id='exp', node_name='disk', name='disk', writable=True)
    uri = f'nbd+unix:///disk?socket={tmp_path}/nbd'
    run(need('qemu-io'), '-f', 'raw', '-c', 'write -P 5 0 512k', uri)

    def amend(**options):
        return job(qmp, 'x-blockdev-amend', node_name='disk', options={'driver': 'luks', **options})

    assert amend(state='active', **{'new-secret': 'sec1', 'iter-time': 1}) is None
    assert amend(state='active', **{'new-secret': 'sec1', 'secret': 'none'}) == "No secret with id 'none'"
    assert opens(serving.path, OTHER)
    assert amend(state='inactive', **{'old-secret': 'sec0'}) is None
    assert active_slots(serving.path) == [1]
    assert amend(state='active', **{'new-secret': 'sec0'}) == 'Invalid password, cannot unlock any keyslot'
    assert amend(state='active', **{'new-secret': 'sec0', 'secret': 'sec1', 'iter-time': 1}) is None
    assert amend(state='inactive', keyslot=1) is None
    assert 'refusing operation' in amend(state='inactive', keyslot=0)
    run(need('qemu-io'), '-f', 'raw', '-c', 'read -P 5 0 512k', '-c', 'write -P 6 512k 512k', uri)
    qmp.command('block-export-del', id='exp')
    wait_for(lambda: not qmp.command('query-block-exports'), 'the export to go')
    qmp.command('blockdev-del', node_name='disk')
    qmp.command('blockdev-del', node_name='file')
    io(OUR_IO, image_opts(serving.path), 'read -P 5 0 512k', 'read -P 6 512k 512k')


def test_create(serving, tmp_path):
    qmp = serving.qmp
    for name in 'new', 'header':
        (tmp_path / name).write_bytes(b'old' * 1000)
        qmp.command('blockdev-add', driver='file', node_name=name, filename=str(tmp_path / name))

    def create(**options):
        return job(qmp, 'blockdev-create', options={'driver': 'luks', 'iter-time': 1, 'size': 1 << 20, **options})

    assert create(file='new') == "Parameter 'key-secret' is required for cipher"
    assert create(file='new', **{'key-secret': 'none'}) == "No secret with id 'none'"
    assert create(**{'key-secret': 'sec0'}) == "Either the parameter 'header' or 'file' must be specified"
    assert create(file='new', **{'key-secret': 'sec0', 'size': (1 << 63) - 512}).startswith('The requested file size is too large')
    assert (tmp_path / 'new').read_bytes() == b'old' * 1000
    assert create(file='new', **{'key-secret': 'sec1', 'preallocation': 'full'}) is None
    assert opens(tmp_path / 'new', OTHER)
    assert os.stat(tmp_path / 'new').st_blocks * 512 >= 1 << 20
    assert create(file='new', header='header', **{'key-secret': 'sec0'}) is None
    assert opens(tmp_path / 'new', PASSPHRASE, '--header', tmp_path / 'header')
    assert (tmp_path / 'new').stat().st_size == 1 << 20
    qmp.command('blockdev-add', driver='luks', node_name='disk', file='new', header='header', key_secret='sec0')
    node = next(one for one in qmp.command('query-named-block-nodes') if one['node-name'] == 'disk')
    assert node['image']['format-specific']['data']['detached-header'] is True


SHADOW = 1 << 34  # larger ones are what sanitizers note about memory


def mappings_with(pid, needle):
    """Writable mappings of the process that contain the bytes, each with its flags."""
    found = {}
    smaps = open(f'/proc/{pid}/smaps', encoding='utf-8').read()
    with open(f'/proc/{pid}/mem', 'rb', buffering=0) as memory:
        for head, body in re.findall(r'^([0-9a-f]+-[0-9a-f]+ [^\n]*)\n((?:[A-Z][^\n]*\n)*)', smaps, flags=re.M):
            if not head.split()[1].startswith('rw'):
                continue
            first, last = (int(word, 16) for word in head.split()[0].split('-'))
            if last - first > SHADOW:
                continue
            try:
                memory.seek(first)
                if needle in memory.read(last - first):
                    found[head] = re.search(r'^VmFlags:(.*)', body, flags=re.M)[1].split()
            except OSError:
                pass
    return found


def dumpable_with(pid, needle):
    """Those that a core dump would hold."""
    return [head for head, flags in mappings_with(pid, needle).items() if 'dd' not in flags]


def test_no_key_in_a_core_dump(serving, tmp_path):
    """Neither passphrases nor the volume's key are in memory that is dumped, after unlocking and work."""
    key = tmp_path / 'key'
    cryptsetup('luksDump', '--dump-volume-key', '--volume-key-file', key, serving.path)
    qmp = serving.qmp
    qmp.command('blockdev-add', driver='luks', node_name='disk', file='file', key_secret='sec0')
    qmp.command('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(tmp_path / 'nbd')}})
    qmp.command('block-export-add', type='nbd', id='exp', node_name='disk', name='disk', writable=True)
    run(need('qemu-io'), '-f', 'raw', '-c', 'write -P 5 0 1M', '-c', 'read -P 5 0 1M', f'nbd+unix:///disk?socket={tmp_path}/nbd')
    assert job(qmp, 'x-blockdev-amend', node_name='disk',
               options={'driver': 'luks', 'state': 'active', 'new-secret': 'sec1', 'iter-time': 1}) is None
    smaps = open(f'/proc/{serving.pid}/smaps', encoding='utf-8').read()
    assert re.search(r'^VmFlags:.* dd', smaps, flags=re.M), 'this system does not tell what is dumped'
    volume_key = key.read_bytes()
    assert len(volume_key) == 64
    for secret in PASSPHRASE.encode(), OTHER.encode(), volume_key[:32], volume_key[32:]:
        assert dumpable_with(serving.pid, secret) == []
    # The test finds what is there to be found.
    assert dumpable_with(serving.pid, str(serving.path).encode())
    # Where the keys are is locked; sanitizers lock nothing.
    flags_wanted = {'dd'} if sanitized() else {'dd', 'lo'}
    places = {**mappings_with(serving.pid, PASSPHRASE.encode()), **mappings_with(serving.pid, volume_key[:32])}
    assert places and all(flags_wanted <= set(flags) for flags in places.values()), places


@pytest.mark.parametrize('kind', ['luks', 'qcow2'])
def test_nothing_stays_in_memory(serving, tmp_path, kind):
    """When the volume is closed and the secrets are deleted, neither are anywhere in the process, nor in what it said."""
    key, options = tmp_path / 'key', {'driver': 'luks', 'file': 'file', 'key-secret': 'sec0'}
    qmp, shown = serving.qmp, serving.path
    if kind == 'qcow2':
        (tmp_path / 'qcow2').touch()
        qmp.command('blockdev-add', driver='file', node_name='image', filename=str(tmp_path / 'qcow2'))
        assert job(qmp, 'blockdev-create', options={'driver': 'qcow2', 'file': 'image', 'size': 1 << 20, 'encrypt': {
            'format': 'luks', 'key-secret': 'sec0', 'iter-time': 1}}) is None
        data = (tmp_path / 'qcow2').read_bytes()
        shown = tmp_path / 'shown'
        shown.write_bytes(data[data.index(b'LUKS\xba\xbe\0\1'):] + bytes(1 << 20))
        options = {'driver': 'qcow2', 'file': 'image', 'encrypt': {'format': 'luks', 'key-secret': 'sec0'}}
    cryptsetup('luksDump', '--dump-volume-key', '--volume-key-file', key, shown)
    volume_key = key.read_bytes()
    change = {'state': 'active', 'new-secret': 'sec1', 'iter-time': 1}
    with pytest.raises(QmpError):
        qmp.command('blockdev-add', **{**options, 'node-name': 'bad', **({'key-secret': 'sec1'} if kind == 'luks' else {
            'encrypt': {'format': 'luks', 'key-secret': 'sec1'}})})
    qmp.command('blockdev-add', **options, node_name='disk')
    qmp.command('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(tmp_path / 'nbd')}})
    qmp.command('block-export-add', type='nbd', id='exp', node_name='disk', name='disk', writable=True)
    run(need('qemu-io'), '-f', 'raw', '-c', 'write -P 5 0 1M', '-c', 'read -P 5 0 1M', f'nbd+unix:///disk?socket={tmp_path}/nbd')
    assert job(qmp, 'x-blockdev-amend', node_name='disk', options={
        'driver': kind, **(change if kind == 'luks' else {'encrypt': {'format': 'luks', **change}})}) is None
    assert mappings_with(serving.pid, volume_key[:32])
    qmp.command('nbd-server-stop')
    wait_for(lambda: not qmp.command('query-block-exports'), 'the export to go')
    qmp.command('blockdev-del', node_name='disk')
    for secret in 'sec0', 'sec1':
        qmp.command('object-del', id=secret)
    for secret in PASSPHRASE.encode(), OTHER.encode(), volume_key[:32], volume_key[32:]:
        assert mappings_with(serving.pid, secret) == {}
    assert PASSPHRASE not in serving.stderr and OTHER not in serving.stderr
