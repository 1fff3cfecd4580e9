# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copies of ashlar-img that are large enough for two threads, and for room that is had beforehand: what arrives, and what it takes up."""
import os
import random

import pytest

from img_pair import Pair

MIB = 1 << 20
LENGTH = 40 * MIB


@pytest.fixture
def pair(tmp_path):
    return Pair(tmp_path)


def disk(seed=1):
    """Runs of noise, of zeroes that are written down, and of holes (None), to LENGTH."""
    dice = random.Random(seed)
    pool = dice.randbytes(2 * MIB)
    runs, at = [], 0
    while at < LENGTH:
        length = min(dice.choice((4 << 10, 12 << 10, 64 << 10, 200 << 10, MIB, 3 * MIB, 7 * MIB)), LENGTH - at)
        runs.append((at, length, dice.choice(('noise', 'noise', 'noise', 'zeroes', 'hole'))))
        at += length
    return [(at, (pool * (1 + length // len(pool)))[:length] if kind == 'noise' else None if kind == 'hole' else bytes(length))
            for at, length, kind in runs]


def write_disk(pair, name='source', seed=1):
    for folder in pair.folders():
        with open(folder / name, 'wb') as file:
            file.truncate(LENGTH)
            for at, data in disk(seed):
                if data is not None:
                    file.seek(at)
                    file.write(data)


def taken(folder, name):
    """Bytes of the disk that the file takes up."""
    return os.stat(folder / name).st_blocks * 512


def check(pair, words, source='source', kind='raw', target='target'):
    """Both convert; ours is what the source is, by the peer's word, and takes up no more than the peer's."""
    pair.same('convert', '-f', kind, *words, source, target, status=0)
    same = pair.run_in(pair.ours, ['qemu-img', 'compare', '-f', kind, source, target])
    assert same.status == 0, same.stdout + same.stderr
    assert taken(pair.ours, target) <= taken(pair.theirs, target) + (256 << 10)
    assert os.stat(pair.ours / target).st_size <= os.stat(pair.theirs / target).st_size + (256 << 10)


@pytest.mark.parametrize('words', [
    ('-O', 'raw'), ('-O', 'raw', '-W'), ('-O', 'raw', '-m', '1'), ('-O', 'raw', '-m', '16'), ('-O', 'raw', '-S', '64k'),
    ('-O', 'raw', '-S', '0'), ('-O', 'raw', '-o', 'preallocation=falloc'), ('-O', 'raw', '-o', 'preallocation=full'),
    ('-O', 'qcow2'), ('-O', 'qcow2', '-W'), ('-O', 'qcow2', '-m', '1'), ('-O', 'qcow2', '-m', '16'), ('-O', 'qcow2', '-S', '0'),
    ('-O', 'qcow2', '-o', 'cluster_size=4k'), ('-O', 'qcow2', '-o', 'cluster_size=2M'), ('-O', 'qcow2', '-o', 'compat=v2'),
    ('-O', 'qcow2', '-o', 'preallocation=metadata'), ('-O', 'qcow2', '-o', 'preallocation=falloc'),
    ('-O', 'qcow2', '-o', 'extended_l2=on,cluster_size=128k'), ('-O', 'qcow2', '-o', 'lazy_refcounts=on'),
    ('-O', 'qcow2', '-c'), ('-t', 'none', '-O', 'raw'), ('-t', 'none', '-O', 'qcow2'), ('-t', 'writeback', '-O', 'qcow2'),
    ('-T', 'none', '-O', 'qcow2'),
], ids=' '.join)
def test_copies(pair, words):
    write_disk(pair)
    check(pair, words)
    if 'qcow2' in words:
        assert pair.run_in(pair.ours, ['qemu-img', 'check', '-q', '-f', 'qcow2', 'target']).status == 0


@pytest.mark.parametrize('kind', ['raw', 'qcow2'])
def test_from_qcow2(pair, kind):
    write_disk(pair)
    pair.prepare('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', 'source', 'middle')
    check(pair, ('-O', kind), source='middle', kind='qcow2')


def test_data_file(pair):
    """The room lies in the data file, at the guest's offsets."""
    write_disk(pair)
    check(pair, ('-O', 'qcow2', '-o', 'data_file=data'))
    assert taken(pair.ours, 'data') <= taken(pair.theirs, 'data') + (256 << 10)


def test_onto_what_is_there(pair):
    """What a target holds already is written over, or left alone where it is said to be zero."""
    write_disk(pair)
    write_disk(pair, 'target', seed=2)
    check(pair, ('-O', 'raw', '-n'))
    pair.write('empty', size=LENGTH)
    check(pair, ('-O', 'raw', '-n', '--target-is-zero'), target='empty')


def test_with_backing(pair):
    """Only what differs from the backing image is copied."""
    write_disk(pair)
    write_disk(pair, 'base', seed=2)
    for folder in pair.folders():
        with open(folder / 'base', 'rb') as base, open(folder / 'source', 'r+b') as source:
            source.write(base.read(LENGTH // 2))
    check(pair, ('-O', 'qcow2', '-B', 'base', '-F', 'raw'))


def test_of_several_sources(pair):
    write_disk(pair)
    write_disk(pair, 'second', seed=2)
    pair.same('convert', '-f', 'raw', '-O', 'qcow2', 'source', 'second', 'target', status=0)
    pair.same('convert', '-f', 'qcow2', '-O', 'raw', 'target', 'back', status=0)
    wanted = (pair.ours / 'source').read_bytes() + (pair.ours / 'second').read_bytes()
    assert (pair.ours / 'back').read_bytes() == wanted


def test_compare(pair):
    """Two threads read; the first difference is still the one that is told."""
    write_disk(pair)
    pair.prepare('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', 'source', 'other')
    words = ('compare', '-f', 'raw', '-F', 'qcow2', 'source', 'other')
    pair.same(*words, status=0)
    for at in 39 * MIB + 5000, 17 * MIB + 600:
        pair.write('source', b'\xa5\x5a', at=at)
        pair.same(*words, status=1)


@pytest.mark.parametrize('kind', ['raw', 'qcow2'])
def test_dd(pair, kind):
    write_disk(pair)
    pair.same('dd', '-f', 'raw', '-O', kind, 'bs=1M', 'skip=1', 'if=source', 'of=target', status=0)
    pair.same('convert', '-f', kind, '-O', 'raw', 'target', 'back', status=0)
    assert (pair.ours / 'back').read_bytes() == (pair.ours / 'source').read_bytes()[MIB:]
    assert taken(pair.ours, 'target') <= taken(pair.theirs, 'target') + (256 << 10)
