# SPDX-License-Identifier: LGPL-2.1-or-later
"""All the ways to encrypt a LUKS volume, and daemons that make, write and read one after the other."""
import hashlib
import itertools
import json

import nbd
from luks_tools import PASSPHRASE

MIB = 1 << 20
PLACE = 4 * MIB  # what each volume has of a file that holds them all
DATA = 16384
HASHES = 'sha1', 'sha256', 'sha512', 'ripemd160'
CIPHERS = {f'{name}-{bits}': (name, bits // 8) for name in ('aes', 'serpent', 'twofish') for bits in (128, 192, 256)}
CIPHERS['cast5-128'] = 'cast5', 16
SHORT_BLOCKS = 'cast5-128',


class Volume:
    """A way to encrypt, and what a volume of it holds."""

    def __init__(self, number, alg, mode, ivgen, ivgen_hash, digest):
        self.number = number
        self.alg, self.mode, self.ivgen, self.ivgen_hash, self.hash = alg, mode, ivgen, ivgen_hash, digest
        self.cipher, key_bytes = CIPHERS[alg]
        self.key_bytes = 2 * key_bytes if mode == 'xts' else key_bytes

    @property
    def disk_mode(self):
        """As the header says it."""
        return self.mode + (f'-{self.ivgen}' if self.ivgen else '') + (f':{self.ivgen_hash}' if self.ivgen_hash else '')

    @property
    def offset(self):
        return self.number * PLACE

    @property
    def create_options(self):
        options = {'cipher-alg': self.alg, 'cipher-mode': self.mode, 'ivgen-alg': self.ivgen, 'ivgen-hash-alg': self.ivgen_hash,
                   'hash-alg': self.hash, 'iter-time': 1}
        return {name: value for name, value in options.items() if value}

    @property
    def ends_the_peer(self):
        """Key material that ends inside a sector, which is more than it expects."""
        return self.key_bytes * 4000 % 512 != 0

    def data(self, turn=0):
        """What is written to it: nothing that any other volume has."""
        return hashlib.shake_128(f'{self.number} {turn}'.encode()).digest(DATA)

    def line(self):
        """For luks_opener."""
        return f'{self.offset} {PLACE} {DATA} {self.cipher} {self.disk_mode} {self.key_bytes} {self.hash}\n'

    def __repr__(self):
        return f'{self.alg}-{self.disk_mode} {self.hash}'


def schemes(ecb_vectors=True):
    """
    Each cipher, mode and vector; essiv with a hash that is as long as a key of the cipher. ecb has no use for vectors: the peer
    wants one named all the same, and cryptsetup wants none.
    """
    for alg, mode in itertools.product(CIPHERS, ('cbc', 'xts', 'ecb', 'ctr')):
        if alg in SHORT_BLOCKS and mode == 'xts':
            continue
        if mode == 'ecb' and not ecb_vectors:
            yield alg, mode, None, None
            continue
        yield from ((alg, mode, ivgen, None) for ivgen in ('plain', 'plain64'))
        yield alg, mode, 'essiv', 'md5' if alg in SHORT_BLOCKS else 'sha256'


def all_volumes():
    """Each scheme with each hash."""
    return [Volume(number, *scheme, digest) for number, (scheme, digest) in enumerate(itertools.product(schemes(), HASHES))]


def each_scheme_once():
    """As cryptsetup has them, with the hashes in turn."""
    return [Volume(number, *scheme, HASHES[number % len(HASHES)]) for number, scheme in enumerate(schemes(ecb_vectors=False))]


def each_mode_once(volumes):
    """Of those, one for each cipher and mode, with the vectors in turn."""
    kinds = {}
    for one in volumes:
        kinds.setdefault((one.alg, one.mode), []).append(one)
    return [some[turn % len(some)] for turn, some in enumerate(kinds.values())]


def start_options(socket):
    """For a daemon of either make."""
    return ['--object', f'secret,id=sec0,data={PASSPHRASE}', '--nbd-server', f'addr.type=unix,addr.path={socket},max-connections=0']


def place(volume, path):
    """The node of a volume's part of the file."""
    return {'driver': 'raw', 'offset': volume.offset, 'size': PLACE, 'file': {'driver': 'file', 'filename': str(path)}}


def commands(qmp, requests):
    """Sends them all, then takes the replies: none may be an error."""
    for request in requests:
        qmp.send_raw(json.dumps(request))
    for request in requests:
        reply = qmp.reply()
        assert 'return' in reply, f'{request}: {reply}'


class Opened:
    """Volumes that a daemon has open and exports, for with: read() and write() go to a volume's first DATA bytes."""

    def __init__(self, qmp, socket, path, volumes):
        self.qmp, self.socket, self.volumes = qmp, socket, volumes
        commands(qmp, [{'execute': 'blockdev-add', 'arguments': {
            'driver': 'luks', 'node-name': f'v{one.number}', 'key-secret': 'sec0', 'file': place(one, path)}} for one in volumes])
        commands(qmp, [{'execute': 'block-export-add', 'arguments': {
            'type': 'nbd', 'id': f'e{one.number}', 'node-name': f'v{one.number}', 'writable': True}} for one in volumes])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        commands(self.qmp, [{'execute': 'block-export-del', 'arguments': {'id': f'e{one.number}'}} for one in self.volumes])
        for _one in self.volumes:
            self.qmp.event('BLOCK_EXPORT_DELETED')
        commands(self.qmp, [{'execute': 'blockdev-del', 'arguments': {'node-name': f'v{one.number}'}} for one in self.volumes])

    def _connected(self, volume):
        handle = nbd.NBD()
        handle.set_export_name(f'v{volume.number}')
        handle.connect_unix(str(self.socket))
        return handle

    def write(self, turn=0):
        for one in self.volumes:
            handle = self._connected(one)
            handle.pwrite(one.data(turn), 0)
            handle.flush()
            handle.shutdown()

    def expect(self, turn=0):
        wrong = []
        for one in self.volumes:
            handle = self._connected(one)
            if handle.pread(DATA, 0) != one.data(turn):
                wrong.append(one)
            handle.shutdown()
        assert wrong == []


JOBS_AT_ONCE = 32


def make(qmp, folder, path, volumes):
    """Makes the volumes, each in a file of its own, and puts them into the one file."""
    for start in range(0, len(volumes), JOBS_AT_ONCE):
        some = volumes[start:start + JOBS_AT_ONCE]
        for one in some:
            (folder / f'f{one.number}').touch()
        commands(qmp, [{'execute': 'blockdev-add', 'arguments': {
            'driver': 'file', 'node-name': f'f{one.number}', 'filename': str(folder / f'f{one.number}')}} for one in some])
        commands(qmp, [{'execute': 'blockdev-create', 'arguments': {'job-id': f'j{one.number}', 'options': {
            'driver': 'luks', 'file': f'f{one.number}', 'size': DATA, 'key-secret': 'sec0', **one.create_options}}} for one in some])
        for _one in some:
            while qmp.event('JOB_STATUS_CHANGE')['data']['status'] != 'concluded':
                pass
        errors = [job['error'] for job in qmp.command('query-jobs') if 'error' in job]
        assert errors == []
        commands(qmp, [{'execute': 'job-dismiss', 'arguments': {'id': f'j{one.number}'}} for one in some])
        commands(qmp, [{'execute': 'blockdev-del', 'arguments': {'node-name': f'f{one.number}'}} for one in some])
    with open(path, 'wb') as disk:
        for one in volumes:
            part = folder / f'f{one.number}'
            data = part.read_bytes()
            assert len(data) <= PLACE
            # The header and the first slot; those of the others are empty.
            disk.seek(one.offset)
            disk.write(data[:MIB // 2])
            part.unlink()
        disk.truncate(len(volumes) * PLACE)
