# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copies made while a guest writes all the time, held against all that it wrote and when: a backup has, at each place,
what was there at one moment between its command and the answer; a mirror has the last of all."""
import random
import threading

import pytest
from harness import PATIENCE_S, need, run, wait_for
from job_tools import MIB, connect, content, serve, stage

SIZE = 8 * MIB
BLOCK = 4096
CLUSTER = 65536


class Guest:
    """A client that writes, zeroes and trims; `history` has each (place, data) before it is asked for and once it is done."""

    def __init__(self, uri, before):
        self.before = before
        self.begun, self.ended = [], 0
        self.done = threading.Event()
        self.failures = []
        self.thread = threading.Thread(target=self.run, args=(uri,))
        self.thread.start()

    def run(self, uri):
        try:
            source = random.Random(5)
            client = connect(uri)
            while not self.done.is_set():
                at = source.randrange(SIZE // BLOCK) * BLOCK
                data = source.choice([bytes(BLOCK), source.randbytes(BLOCK), source.randbytes(BLOCK)])
                self.begun.append((at, data))
                if any(data):
                    client.pwrite(data, at)
                else:
                    client.zero(BLOCK, at)
                self.ended += 1
            client.flush()
            client.shutdown()
        except Exception as failure:  # pylint: disable=broad-except
            self.failures.append(failure)

    def more(self, count):
        until = self.ended + count
        wait_for(lambda: self.ended >= until or self.failures, f'{count} more writes')
        assert not self.failures

    def stop(self):
        self.done.set()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()
        assert not self.failures

    def at_end(self):
        image = bytearray(self.before)
        for at, data in self.begun:
            image[at:at + BLOCK] = data
        return bytes(image)


class Moment:
    """Somewhen between two points of a guest's life."""

    def __init__(self, guest):
        self.guest, self.first, self.last = guest, guest.ended, None

    def over(self):
        self.last = len(self.guest.begun)

    def check(self, copy):
        """Whether the copy is that of one moment: it has the writes up to some number, and none of those behind."""
        image = bytearray(self.guest.before)
        for at, data in self.guest.begun[:self.first]:
            image[at:at + BLOCK] = data
        for at, data in [(0, bytes(image[:BLOCK])), *self.guest.begun[self.first:self.last]]:
            image[at:at + BLOCK] = data
            if bytes(image) == copy:
                return
        wrong = [at for at in range(0, SIZE, BLOCK) if image[at:at + BLOCK] != copy[at:at + BLOCK]]
        assert not wrong, f'{len(wrong)} blocks of none of {self.last - self.first + 1} moments, from {wrong[0]:#x}'


def qcow2(path, *arguments):
    run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', *arguments[:-1], path, *[word for word in arguments[-1:] if word])


def flat(image):
    run(need('qemu-img'), 'convert', '-U', '-f', 'qcow2', '-O', 'raw', image, image.with_suffix('.flat'))
    return content(image.with_suffix('.flat'))


@pytest.fixture
def disk(daemon, tmp_path):
    """Node 'disk' on an overlay over a base, with a guest; and 'copy', an image of that size without a backing image."""
    one = daemon()
    one.folder = tmp_path
    qcow2(tmp_path / 'base', SIZE)
    run(need('qemu-io'), '-f', 'qcow2', '-c', 'write -P 1 0 4M', '-c', 'write -P 2 6M 1M', tmp_path / 'base')
    qcow2(tmp_path / 'disk', '-b', tmp_path / 'base', '-F', 'qcow2', None)
    run(need('qemu-io'), '-f', 'qcow2', '-c', 'write -P 3 1M 1M', '-c', 'write -z 2M 128k', tmp_path / 'disk')
    qcow2(tmp_path / 'copy', SIZE)
    before = flat(tmp_path / 'disk')
    for name in ('disk', 'copy'):
        one.qmp.command('blockdev-add', driver='qcow2', node_name=name, discard='unmap',
                        file={'driver': 'file', 'filename': str(tmp_path / name), 'discard': 'unmap'})
    one.qmp.command('object-add', qom_type='iothread', id='t')
    one.uri = serve(one.qmp, tmp_path / 'nbd', 'disk', iothread='t')
    one.guest = Guest(one.uri, before)
    yield one
    one.guest.stop()


def back_up(disk, **options):
    """Starts one at a moment; it ends under writes."""
    disk.guest.more(20)
    moment = Moment(disk.guest)
    disk.qmp.command('blockdev-backup', job_id='j', device='disk', target='copy', **options)
    moment.over()
    disk.guest.more(20)
    stage(disk.qmp, 'j', 'null')
    assert 'error' not in disk.qmp.event('BLOCK_JOB_COMPLETED')['data']
    return moment


def end(disk):
    disk.guest.stop()
    disk.qmp.command('block-export-del', id='exp', mode='hard')
    disk.qmp.event('BLOCK_EXPORT_DELETED')
    disk.stop()


@pytest.mark.parametrize('options', [{}, {'compress': True}, {'x_perf': {'max-workers': 1, 'max-chunk': CLUSTER}},
                                     {'x_perf': {'use-copy-range': True}}],
                         ids=['plain', 'compressed', 'one-by-one', 'copy-range'])
def test_full_backup(disk, options):
    moment = back_up(disk, sync='full', **options)
    end(disk)
    moment.check(flat(disk.folder / 'copy'))
    assert flat(disk.folder / 'disk') == disk.guest.at_end()


def test_backup_of_the_top(disk):
    """On the base it shows the moment."""
    moment = back_up(disk, sync='top')
    end(disk)
    run(need('qemu-img'), 'rebase', '-u', '-f', 'qcow2', '-b', disk.folder / 'base', '-F', 'qcow2', disk.folder / 'copy')
    moment.check(flat(disk.folder / 'copy'))


@pytest.mark.parametrize('mode', [None, 'on-success', 'always'])
def test_increments(disk, mode):
    """A full backup, and two of what a bitmap says has changed since: each is whole, and of its moment."""
    disk.qmp.command('block-dirty-bitmap-add', node='disk', name='b')
    back_up(disk, sync='full', bitmap='b', bitmap_mode='on-success').check(flat(disk.folder / 'copy'))
    for _ in range(2):
        if mode:
            moment = back_up(disk, sync='bitmap', bitmap='b', bitmap_mode=mode)
        else:
            moment = back_up(disk, sync='incremental', bitmap='b')
        moment.check(flat(disk.folder / 'copy'))
    end(disk)


def test_a_backup_that_fails_with_a_bitmap(disk):
    """'always': what it did not copy stays marked, so that the next one makes the copy whole."""
    disk.qmp.command('block-dirty-bitmap-add', node='disk', name='b')
    back_up(disk, sync='full', bitmap='b', bitmap_mode='on-success')
    disk.guest.more(50)
    disk.qmp.command('blockdev-backup', job_id='j', device='disk', target='copy', sync='bitmap', bitmap='b',
                     bitmap_mode='always', speed=CLUSTER)
    disk.guest.more(20)
    disk.qmp.command('job-cancel', id='j')
    stage(disk.qmp, 'j', 'null')
    back_up(disk, sync='bitmap', bitmap='b', bitmap_mode='always').check(flat(disk.folder / 'copy'))
    end(disk)


@pytest.mark.parametrize('options', [{'sync': 'full'}, {'sync': 'full', 'copy_mode': 'write-blocking'},
                                     {'sync': 'full', 'granularity': 512, 'buf_size': CLUSTER},
                                     {'sync': 'full', 'target_is_zero': True}],
                         ids=['background', 'write-blocking', 'small', 'target-is-zero'])
@pytest.mark.parametrize('switch', [False, True], ids=['', 'switched'])
def test_mirror(disk, options, switch):
    disk.qmp.command('blockdev-mirror', job_id='j', device='disk', target='copy', **options)
    if switch:
        disk.guest.more(10)
        disk.qmp.command('block-job-change', id='j', type='mirror', copy_mode='write-blocking')
    stage(disk.qmp, 'j', 'ready')
    disk.guest.more(20)
    disk.qmp.command('job-complete', id='j')
    stage(disk.qmp, 'j', 'null')
    disk.guest.more(20)
    end(disk)
    assert flat(disk.folder / 'copy') == disk.guest.at_end()


@pytest.mark.parametrize('sync', ['top', 'none'])
def test_mirror_of_a_part(disk, sync):
    """Let go when it is ready: on what is not copied it shows one moment of the guest's life."""
    disk.guest.more(10)
    below = 'base'
    if sync == 'none':
        # Nobody writes between the copy of what is not copied and the begin of the mirror.
        disk.guest.stop()
        below = 'below'
        run(need('qemu-img'), 'convert', '-U', '-f', 'qcow2', '-O', 'qcow2', disk.folder / 'disk', disk.folder / below)
    disk.qmp.command('blockdev-mirror', job_id='j', device='disk', target='copy', sync=sync)
    if sync == 'none':
        disk.guest = Guest(disk.uri, disk.guest.at_end())
    stage(disk.qmp, 'j', 'ready')
    disk.guest.more(20)
    moment = Moment(disk.guest)
    disk.qmp.command('block-job-cancel', device='j')
    stage(disk.qmp, 'j', 'null')
    moment.over()
    end(disk)
    run(need('qemu-img'), 'rebase', '-u', '-f', 'qcow2', '-b', disk.folder / below, '-F', 'qcow2', disk.folder / 'copy')
    moment.check(flat(disk.folder / 'copy'))
