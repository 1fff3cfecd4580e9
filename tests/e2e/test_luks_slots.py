# SPDX-License-Identifier: LGPL-2.1-or-later
"""The life of key slots: by ashlar-img and by QMP, in volumes, beside detached headers and in qcow2 images. cryptsetup looks at each."""
import json
import re
import struct

import pytest
from harness import run
from luks_tools import OTHER, OUR_IMG, OUR_IO, PASSPHRASE, SECRETS, active_slots, amend, cryptsetup, opens
from test_luks_daemon import job

CRYPTO_EXTENSION = 0x0537be77


class Kept:
    """A volume of some kind; `prefix` is what the names of its options begin with."""

    def __init__(self, folder, kind):
        self.folder, self.kind = folder, kind
        self.prefix = 'encrypt.' if kind == 'qcow2' else ''
        self.path, self.header = folder / 'volume', folder / 'header'
        words = f'{self.prefix}key-secret=sec0,{self.prefix}iter-time=1'
        if kind == 'qcow2':
            run(OUR_IMG, 'create', '-q', '-f', 'qcow2', *SECRETS, '-o', f'encrypt.format=luks,{words}', self.path, '1M')
        elif kind == 'detached':
            self.path.write_bytes(bytes(1 << 20))
            run(OUR_IMG, 'create', '-q', '-f', 'luks', *SECRETS, '-o', f'{words},detached-header=on', self.header, '1M')
        else:
            run(OUR_IMG, 'create', '-q', '-f', 'luks', *SECRETS, '-o', words, self.path, '1M')

    def node(self, secret):
        if self.kind == 'qcow2':
            return {'driver': 'qcow2', 'encrypt': {'format': 'luks', 'key-secret': secret}}
        header = {'header': {'driver': 'file', 'filename': str(self.header)}} if self.kind == 'detached' else {}
        return {'driver': 'luks', 'key-secret': secret, **header}

    def image(self, secret):
        """For ashlar-img."""
        return 'json:' + json.dumps({**self.node(secret), 'file': {'driver': 'file', 'filename': str(self.path)}})

    @property
    def seen(self):
        """What cryptsetup is shown."""
        if self.kind == 'detached':
            return self.header
        if self.kind == 'luks':
            return self.path
        data = self.path.read_bytes()
        at = data.index(struct.pack('>II', CRYPTO_EXTENSION, 16))
        offset, size = struct.unpack('>QQ', data[at + 8:at + 24])
        shown = self.folder / 'shown'
        shown.write_bytes(data[offset:offset + size] + bytes(1 << 20))
        return shown


class ByImg:
    def __init__(self, kept):
        self.kept = kept

    def amend(self, secret, force=False, **options):
        """None, or why it fails."""
        words = [f'{self.kept.prefix}{name.replace("_", "-")}={value}' for name, value in options.items()]
        done = run(OUR_IMG, 'amend', *(['--force'] if force else []), *SECRETS, '-o', ','.join(words), self.kept.image(secret), check=False)
        return None if done.returncode == 0 else done.stderr.strip().removeprefix('qemu-img: ')


class ByQmp:
    def __init__(self, kept, daemon):
        self.kept = kept
        self.qmp = daemon(*SECRETS).qmp

    def amend(self, secret, force=False, **options):
        file = {'driver': 'file', 'filename': str(self.kept.path)}
        self.qmp.command('blockdev-add', **{'node-name': 'disk', 'file': file, **self.kept.node(secret)})
        own = {name.replace('_', '-'): value for name, value in options.items()}
        if self.kept.kind == 'qcow2':
            own = {'encrypt': {'format': 'luks', **own}}
        driver = {'driver': 'qcow2' if self.kept.kind == 'qcow2' else 'luks'}
        error = job(self.qmp, 'x-blockdev-amend', node_name='disk', force=force, options={**driver, **own})
        self.qmp.command('blockdev-del', node_name='disk')
        return error


@pytest.mark.parametrize('tool', ['img', 'qmp'])
@pytest.mark.parametrize('kind', ['luks', 'detached', 'qcow2'])
def test_life_of_the_slots(tmp_path, daemon, kind, tool):
    kept = Kept(tmp_path, kind)
    by = ByImg(kept) if tool == 'img' else ByQmp(kept, daemon)

    def add(secret, new, **options):
        return by.amend(secret, state='active', new_secret=new, iter_time=1, **options)

    def erase(secret, **options):
        return by.amend(secret, state='inactive', **options)

    # All eight,
    assert add('sec0', 'sec1', keyslot=5) is None
    assert active_slots(kept.seen) == [0, 5]
    for _ in range(6):
        assert add('sec0', 'sec1') is None
    assert active_slots(kept.seen) == list(range(8))
    assert add('sec0', 'sec1') == "Can't add a keyslot - all keyslots are in use"
    # overwriting one of them with none to spare,
    assert 'Refusing to overwrite active keyslot 3' in add('sec0', 'sec0', keyslot=3)
    assert add('sec0', 'sec0', keyslot=3, force=True) is None
    assert active_slots(kept.seen) == list(range(8))
    assert opens(kept.seen, PASSPHRASE, '--key-slot', 3) and not opens(kept.seen, OTHER, '--key-slot', 3)
    # erasing by number and by passphrase,
    assert erase('sec0', keyslot=3) is None
    assert erase('sec0', keyslot=3).strip() == 'Given keyslot 3 is already erased (inactive)'
    assert active_slots(kept.seen) == [0, 1, 2, 4, 5, 6, 7]
    assert erase('sec0', old_secret='sec1') is None
    assert active_slots(kept.seen) == [0]
    assert opens(kept.seen, PASSPHRASE) and not opens(kept.seen, OTHER)
    # the last one never, unless forced,
    assert 'erase all the data' in erase('sec0', keyslot=0)
    assert 'erase all the data' in erase('sec0', old_secret='sec0')
    assert active_slots(kept.seen) == [0] and opens(kept.seen, PASSPHRASE)
    # and the only one overwritten in its place.
    assert add('sec0', 'sec1', keyslot=0, force=True) is None
    assert active_slots(kept.seen) == [0]
    assert opens(kept.seen, OTHER) and not opens(kept.seen, PASSPHRASE)
    assert erase('sec1', keyslot=0, force=True) is None
    assert active_slots(kept.seen) == []


@pytest.mark.parametrize('kind', ['luks', 'detached', 'qcow2'])
def test_changing_the_passphrase_keeps_the_data(tmp_path, kind):
    kept = Kept(tmp_path, kind)
    run(OUR_IO, *SECRETS, '-c', 'write -P 5 0 1M', kept.image('sec0'))
    by = ByImg(kept)
    assert by.amend('sec0', state='active', new_secret='sec1', iter_time=1) is None
    assert by.amend('sec1', state='inactive', old_secret='sec0') is None
    assert 'Pattern' not in run(OUR_IO, *SECRETS, '-c', 'read -P 5 0 1M', kept.image('sec1')).stdout
    assert active_slots(kept.seen) == [1]


def iterations(path):
    return [int(count) for count in re.findall(r'Iterations:\s+(\d+)', cryptsetup('luksDump', path).stdout)]


def test_iter_time(tmp_path):
    """Least when the time is short, many times as many when it is not; cryptsetup counts."""
    path, image = tmp_path / 'luks', f'driver=luks,key-secret=sec0,file.filename={tmp_path}/luks'
    run(OUR_IMG, 'create', '-q', '-f', 'luks', *SECRETS, '-o', 'key-secret=sec0,iter-time=0', path, '64k')
    assert iterations(path) == [1000]
    assert amend(OUR_IMG, image, 'state=active', 'new-secret=sec1', 'iter-time=200') == (0, '')
    assert iterations(path)[0] == 1000 and iterations(path)[1] > 5000
    assert opens(path, OTHER)
    for time, message in (-1, 'expects a number'), (1 << 60, 'PBKDF iterations'):
        status, said = amend(OUR_IMG, image, 'state=active', 'new-secret=sec1', f'iter-time={time}')
        assert status == 1 and message in said
    assert active_slots(path) == [0, 1]
