# SPDX-License-Identifier: LGPL-2.1-or-later
"""Key slots and hostile headers: what is refused, and how it is said, beside qemu-img."""
import shutil

import pytest
from harness import need, run
from luks_tools import (OTHER, OUR_IMG, OUR_IO, PASSPHRASE, SECRETS, active_slots, amend, image_opts, io, opens, our_create,
                        their_create)

# What is refused in a volume with one passphrase, sec0, in slot 0.
REFUSED = [
    ['state=active'],
    ['state=active', 'new-secret=sec1', 'keyslot=0'],
    ['state=active', 'new-secret=sec1', 'keyslot=8'],
    ['state=active', 'new-secret=sec1', 'old-secret=sec0'],
    ['state=active', 'new-secret=none'],
    ['state=inactive'],
    ['state=inactive', 'keyslot=5'],
    ['state=inactive', 'keyslot=9'],
    ['state=inactive', 'old-secret=sec1'],
    ['state=inactive', 'old-secret=none'],
    ['state=inactive', 'new-secret=sec1'],
    ['state=inactive', 'old-secret=sec1', 'keyslot=0'],
    ['state=inactive', 'keyslot=0', 'iter-time=5'],
    ['state=inactive', 'keyslot=0'],
    ['state=inactive', 'old-secret=sec0'],
    ['state=bogus'],
    ['new-secret=sec1'],
    ['cipher-alg=aes-128'],
    ['bogus=1'],
]


@pytest.fixture(scope='module')
def volume(tmp_path_factory):
    path = tmp_path_factory.mktemp('luks') / 'luks'
    their_create(path, size='64k')
    return path


@pytest.mark.parametrize('options', REFUSED, ids=','.join)
def test_refused_as_by_them(volume, options):
    before = volume.read_bytes()
    assert amend(OUR_IMG, image_opts(volume), *options) == amend(need('qemu-img'), image_opts(volume), *options)
    assert volume.read_bytes() == before


def test_add_replace_and_erase(tmp_path):
    path = tmp_path / 'luks'
    image = image_opts(path)
    our_create(path)
    io(OUR_IO, image, 'write -P 5 0 1M')
    for slot in range(1, 8):
        assert amend(OUR_IMG, image, 'state=active', 'new-secret=sec1', 'iter-time=1') == (0, '')
        assert active_slots(path) == list(range(slot + 1))
    assert amend(OUR_IMG, image, 'state=active', 'new-secret=sec1', 'iter-time=1') == \
        (1, "qemu-img: Can't add a keyslot - all keyslots are in use\n")
    assert opens(path, OTHER)
    # The other passphrase is in seven slots: all are emptied.
    assert amend(OUR_IMG, image, 'state=inactive', 'old-secret=sec1') == (0, '')
    assert active_slots(path) == [0]
    assert not opens(path, OTHER)
    assert amend(OUR_IMG, image, 'state=active', 'new-secret=sec1', 'keyslot=6', 'iter-time=1') == (0, '')
    assert amend(OUR_IMG, image, 'state=inactive', 'keyslot=0') == (0, '')
    assert active_slots(path) == [6]
    io(need('qemu-io'), image_opts(path, 'sec1'), 'read -P 5 0 1M')
    done = io(OUR_IO, image, 'length', check=False)
    assert 'Invalid password, cannot unlock any keyslot' in done.stderr


def test_forced(tmp_path):
    # F19
    path = tmp_path / 'luks'
    our_create(path)
    assert amend(OUR_IMG, image_opts(path), 'state=active', 'new-secret=sec1', 'keyslot=0', 'iter-time=1', force=True) == (0, '')
    assert opens(path, OTHER) and not opens(path, PASSPHRASE)
    assert amend(OUR_IMG, image_opts(path, 'sec1'), 'state=inactive', 'keyslot=0', force=True) == (0, '')
    assert active_slots(path) == []


def test_erased_material_is_gone(tmp_path):
    """A copy of the slot's description does not bring the key back."""
    path = tmp_path / 'luks'
    our_create(path)
    assert amend(OUR_IMG, image_opts(path), 'state=active', 'new-secret=sec1', 'iter-time=1') == (0, '')
    before = path.read_bytes()[:592]
    assert amend(OUR_IMG, image_opts(path), 'state=inactive', 'keyslot=1') == (0, '')
    with open(path, 'r+b') as file:
        file.write(before)
    assert opens(path, PASSPHRASE)
    assert not opens(path, OTHER)


def test_what_lies_in_a_volume_that_they_amend(tmp_path):
    path = tmp_path / 'luks'
    our_create(path)
    status, message = amend(need('qemu-img'), image_opts(path), 'state=active', 'new-secret=sec1', 'iter-time=100')
    assert status == 0, message
    assert amend(OUR_IMG, image_opts(path, 'sec1'), 'state=inactive', 'old-secret=sec0') == (0, '')
    io(need('qemu-io'), image_opts(path, 'sec1'), 'length')


# Bytes of the header, and what is said of them; the peer's text is how ours begins.
HOSTILE = {
    'magic': (0, b'X'),
    'version': (6, b'\0\2'),
    'cipher': (8, b'bogus\0'),
    'cipher-endless': (8, b'a' * 32),
    'mode': (40, b'bogus-plain64\0'),
    'mode-alone': (40, b'bogus\0'),
    'mode-endless': (40, b'a' * 32),
    'vector': (40, b'cbc-bogus\0'),
    'essiv-without-hash': (40, b'cbc-essiv\0'),
    'essiv-hash': (40, b'cbc-essiv:bogus\0'),
    'essiv-sha1': (40, b'cbc-essiv:sha1\0'),
    'hash': (72, b'bogus\0'),
    'hash-endless': (72, b'a' * 32),
    'payload-0': (104, bytes(4)),
    'payload-small': (104, b'\0\0\0\x10'),
    'key-0': (108, bytes(4)),
    'key-8': (108, b'\0\0\0\x08'),
    'digest-iterations-0': (164, bytes(4)),
    'slot-state': (208, b'\1\2\3\4'),
    'slot-iterations-0': (212, bytes(4)),
    'slot-offset-0': (248, bytes(4)),
    'slot-offset-large': (248, b'\x7f\0\0\0'),
    'slot-overlap': (248, b'\0\0\1\x08'),
    'stripes-0': (252, bytes(4)),
    'stripes-many': (252, b'\0\1\0\0'),
    'slot-1-stripes': (300, bytes(4)),
    'slot-1-offset': (296, bytes(4)),
}


def said(program, path):
    done = io(program, image_opts(path), 'read 0 512', check=False)
    assert done.returncode == 1
    return (done.stdout + done.stderr).strip()


@pytest.fixture(scope='module')
def essiv_volume(tmp_path_factory):
    path = tmp_path_factory.mktemp('luks') / 'essiv'
    our_create(path, size='64k', cipher_mode='cbc', ivgen_alg='essiv')
    return path


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_header(tmp_path, essiv_volume, name):
    path = tmp_path / 'luks'
    shutil.copy(essiv_volume, path)
    at, data = HOSTILE[name]
    with open(path, 'r+b') as file:
        file.seek(at)
        file.write(data)
    before = path.read_bytes()
    assert said(OUR_IO, path).startswith(said(need('qemu-io'), path))
    assert path.read_bytes() == before


# Where the peer computes for hours, reads what is not there, or says something of no use.
OURS_ALONE = {
    'iterations': (212, b'\xff\xff\xff\xff', 'Keyslot 0 iteration count 4294967295 is larger than 1073741824'),
    'digest-iterations': (164, b'\xff\xff\xff\xff', 'LUKS key iteration count 4294967295 is larger than 1073741824'),
    'key-large': (108, b'\xff\0\0\0', "Algorithm 'aes' with key size 4278190080 bytes not supported"),
    'payload-large': (104, b'\x7f\0\0\0', 'LUKS payload begins at 1090921693184, beyond the end of the file at'),
}


@pytest.mark.parametrize('name', OURS_ALONE)
def test_hostile_header_further(tmp_path, essiv_volume, name):
    # F18
    path = tmp_path / 'luks'
    shutil.copy(essiv_volume, path)
    at, data, message = OURS_ALONE[name]
    with open(path, 'r+b') as file:
        file.seek(at)
        file.write(data)
    assert message in said(OUR_IO, path)


@pytest.mark.parametrize('size', [0, 8, 500, 592, 4096, 10000])
def test_cut_off(tmp_path, essiv_volume, size):
    path = tmp_path / 'luks'
    path.write_bytes(essiv_volume.read_bytes()[:size])
    assert "can't open" in said(OUR_IO, path)


def test_what_is_missing(tmp_path):
    path = tmp_path / 'luks'
    our_create(path, size='64k')
    for image in (image_opts(path, secret=None), image_opts(path, secret='none'), image_opts(path, secret='sec1')):
        ours, theirs = (io(program, image, 'length', check=False) for program in (OUR_IO, need('qemu-io')))
        assert (ours.returncode, ours.stderr) == (theirs.returncode, theirs.stderr)


@pytest.mark.parametrize('options', ['iter-time=1', 'key-secret=none', 'key-secret=sec0,cipher-alg=cast5-128',
                                     'key-secret=sec0,cipher-alg=3des,cipher-mode=xts', 'key-secret=sec0,cipher-alg=bogus',
                                     'key-secret=sec0,ivgen-alg=essiv,ivgen-hash-alg=sha1', 'key-secret=sec0,bogus=1'])
def test_create_refused(tmp_path, options):
    said_by = [run(img, 'create', '-q', '-f', 'luks', *SECRETS, '-o', options, tmp_path / 'luks', '1M', check=False).stderr.strip()
               for img in (OUR_IMG, need('qemu-img'))]
    if '3des' in options:  # which the peer has not at all
        assert 'Unsupported cipher mode xts' in said_by[0]
    else:
        assert said_by[0].startswith(said_by[1])
    assert not (tmp_path / 'luks').exists()
