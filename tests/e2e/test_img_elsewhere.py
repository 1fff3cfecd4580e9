# SPDX-License-Identifier: LGPL-2.1-or-later
"""ashlar-img on images that are encrypted, that a server has, or that cannot be read."""
import hashlib

import pytest
from harness import need, run
from img_pair import Pair, normalised
from luks_tools import OUR_IMG, OUR_IO, PASSPHRASE, patient
from nbd_peers import nbdkit, qemu_nbd

SECRET = ('--object', f'secret,id=sec0,data={PASSPHRASE}')
LUKS = 'key-secret=sec0,iter-time=100'
QCOW2 = 'encrypt.format=luks,encrypt.key-secret=sec0,encrypt.iter-time=100'


@pytest.fixture
def pair(tmp_path):
    return Pair(tmp_path)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / 'source'
    run(OUR_IMG, 'create', '-q', '-f', 'qcow2', path, '4M')
    run(OUR_IO, '-f', 'qcow2', '-c', 'write -P 1 0 1M', '-c', 'write -P 2 2M 64k', path)
    return path


@pytest.mark.parametrize('form, options, opened', [
    ('luks', LUKS, 'driver=luks,key-secret=sec0'), ('qcow2', QCOW2, 'driver=qcow2,encrypt.key-secret=sec0')])
def test_convert_encrypts(tmp_path, source, form, options, opened):
    """The new image is opened with the key that it was made with; the same again in place, and back."""
    target = tmp_path / 'target'
    done = patient(lambda: run(OUR_IMG, 'convert', *SECRET, '-O', form, '-o', options, source, target, check=False))
    assert done.returncode == 0, done.stderr
    image = f'{opened},file.filename={target}'
    same = ('compare', *SECRET, '--image-opts', f'driver=qcow2,file.filename={source}', image)
    for img in OUR_IMG, need('qemu-img'):
        assert run(img, *same).returncode == 0
    assert b'\1' * 512 not in target.read_bytes()
    run(OUR_IO, '-f', 'qcow2', '-c', 'write -P 3 3M 64k', source)
    run(OUR_IMG, 'convert', *SECRET, '-n', '--target-image-opts', source, image)
    run(need('qemu-img'), *same)
    run(OUR_IMG, 'convert', *SECRET, '--image-opts', image, tmp_path / 'back')
    run(OUR_IMG, 'compare', '-F', 'raw', source, tmp_path / 'back')


def test_convert_does_not_compress_what_it_encrypts(tmp_path, source):
    target = tmp_path / 'target'
    patient(lambda: run(OUR_IMG, 'create', '-q', *SECRET, '-f', 'qcow2', '-o', QCOW2, target, '4M', check=False))
    done = run(OUR_IMG, 'convert', '-c', *SECRET, '-n', '--target-image-opts', source,
               f'driver=qcow2,encrypt.key-secret=sec0,file.filename={target}', check=False)
    assert done.returncode == 1
    assert 'Compression and encryption not supported at the same time' in done.stderr


@pytest.mark.parametrize('words', ['file.path={0},file.export=x', 'file.server.type=unix,file.server.path={0},file.export=x'])
def test_servers_by_options(pair, tmp_path, words):
    """A server's address in both ways; the qcow2 image on it can be looked at, read and changed."""
    pair.prepare('qemu-img', 'create', '-q', '-f', 'qcow2', 'a.q', '1M')
    pair.prepare('qemu-io', '-f', 'qcow2', '-c', 'write -P 5 64k 64k', 'a.q')
    socket = tmp_path / 's'
    with qemu_nbd(socket, '-f', 'raw', '-x', 'x', '-t', pair.ours / 'a.q'):
        image = f'driver=qcow2,file.driver=nbd,{words.format(socket)}'
        for command in ('info',), ('map', '--output=json'), ('check',), ('measure', '-O', 'qcow2'), ('snapshot', '-l'):
            ours, theirs = (Pair.run_in(tmp_path, [img, *command, '--image-opts', image])
                            for img in (OUR_IMG, need('qemu-img')))
            assert (ours.status, normalised(ours.stdout)) == (theirs.status, theirs.stdout), ours.stderr
        run(OUR_IO, '--image-opts', '-c', 'read -P 5 64k 64k', '-c', 'write -P 6 96k 16k', image)
    run(need('qemu-io'), '-f', 'qcow2', '-c', 'read -P 6 96k 16k', '-c', 'read -P 5 64k 32k', pair.ours / 'a.q')


BAD_SECTORS = '''case "$1" in
get_size) echo 128k;;
pread) if [ $4 -lt 68096 ] && [ $(($4 + $3)) -gt 65536 ]; then echo EIO bad >&2; exit 1; fi
       dd if=/dev/zero bs=$3 count=1 iflag=fullblock 2>/dev/null | tr '\\0' '\\1';;
*) exit 2;;
esac
'''


def test_salvage(tmp_path):
    """C4: what cannot be read fails the copy; or becomes zeroes, to the sector, with a warning each; the rest is there."""
    script = tmp_path / 'script'
    script.write_text(BAD_SECTORS)
    script.chmod(0o755)
    socket = tmp_path / 's'
    want = b'\1' * 65536 + bytes(2560) + b'\1' * (131072 - 68096)
    with nbdkit(socket, 'sh', script):
        url = f'nbd+unix:///?socket={socket}'
        assert run(OUR_IMG, 'convert', '-f', 'raw', url, tmp_path / 'x', check=False).returncode == 1
        for options in (), ('-W', '-m', '4'), ('-q',):
            done = run(OUR_IMG, 'convert', '--salvage', *options, '-f', 'raw', url, tmp_path / 'x')
            assert (tmp_path / 'x').read_bytes() == want, hashlib.sha256((tmp_path / 'x').read_bytes()).hexdigest()
            warnings = [line for line in done.stderr.splitlines() if 'warning: error while reading offset' in line]
            assert len(warnings) == (0 if '-q' in options else 5)
