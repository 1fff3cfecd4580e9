# SPDX-License-Identifier: LGPL-2.1-or-later
"""The images that the benchmarks run on. Made by the peer's tool where they are not raw, so that all start from the same."""
import os
import pathlib
import random
import subprocess

MIB = 1 << 20
DISK_BYTES = 1 << 30       # what is full of data
EMPTY_BYTES = 64 << 30     # so large that random writes hardly ever meet
SPARSE_BYTES = 1 << 40     # its tables are far larger than any cache
CONVERTED_BYTES = 2 << 30  # half of it data


def sync(path):
    """Else the disk would still be busy with it while the first are measured."""
    with open(path, 'rb') as image:
        os.fsync(image.fileno())


def qemu_img(*words):
    subprocess.run(['qemu-img', *[str(word) for word in words]], check=True, stdout=subprocess.DEVNULL)


def full_raw(path):
    with open(path, 'wb') as image:
        block = os.urandom(MIB)
        for _ in range(DISK_BYTES // MIB):
            image.write(block)


def full_qcow2(path):
    raw = path.with_suffix('.source')
    full_raw(raw)
    qemu_img('convert', '-f', 'raw', '-O', 'qcow2', raw, path)
    raw.unlink()


def empty_qcow2(path):
    qemu_img('create', '-f', 'qcow2', path, EMPTY_BYTES)


def sparse_qcow2(path):
    """Each cluster has its entry in a table, and none has data on the disk."""
    qemu_img('create', '-f', 'qcow2', '-o', 'preallocation=metadata', path, SPARSE_BYTES)


MAKERS = {'full.raw': full_raw, 'full.qcow2': full_qcow2, 'empty.qcow2': empty_qcow2, 'sparse.qcow2': sparse_qcow2}


class Images:
    """Copies of the images in a folder; each kind is made once."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)

    def fresh(self, kind, to):
        """A copy of its own for who will write to it."""
        original = self.directory / kind
        if not original.exists():
            MAKERS[kind](original)
            sync(original)
        copy = self.directory / f'{to}-{kind}'
        subprocess.run(['cp', '--sparse=always', original, copy], check=True)
        sync(copy)
        return copy


def half_full_raw(path, seed=1):
    """Data and holes in runs of 64 KiB to 4 MiB, half and half; the data is words, so that it compresses as files do."""
    dice = random.Random(seed)
    words = [bytes(dice.choices(b'abcdefghijklmnopqrstuvwxyz0123456789', k=dice.randint(2, 10))) + b' ' for _ in range(4000)]
    pool = b''.join(dice.choices(words, k=3_000_000))[:16 * MIB]
    with open(path, 'wb') as image:
        image.truncate(CONVERTED_BYTES)
        at = 0
        data = True
        while at < CONVERTED_BYTES:
            run = min(dice.randint(1, 64) << 16, CONVERTED_BYTES - at)
            if data:
                image.seek(at)
                begin = dice.randrange(len(pool) - run)
                image.write(pool[begin:begin + run])
            at += run
            data = not data
    sync(path)
