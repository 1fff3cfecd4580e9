# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of jobs share: images with content, a writer over NBD, and the stages of a job as events tell them."""
import contextlib
import os
import random
import threading

from harness import PATIENCE_S, raw_image, wait_for

MIB = 1 << 20


def random_image(path, size, *ranges, seed=1):
    """A sparse raw image with random bytes in the ranges (offset, bytes); its content."""
    source = random.Random(seed)
    raw_image(path, size)
    with open(path, 'r+b') as image:
        for offset, length in ranges:
            image.seek(offset)
            image.write(source.randbytes(length))
    return content(path)


def content(path):
    with open(path, 'rb') as image:
        return image.read()


def allocated(path):
    return os.stat(path).st_blocks * 512


def add_file(qmp, name, path, **options):
    qmp.command('blockdev-add', driver='file', node_name=name, filename=str(path), **options)


def serve(qmp, path, node, export='exp', **options):
    """Exports a node for writing, on an NBD server that is started for it; its URI."""
    qmp.command('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(path)}})
    qmp.command('block-export-add', type='nbd', id=export, node_name=node, name='x', writable=True, **options)
    return f'nbd+unix:///x?socket={path}'


def connect(uri):
    import nbd
    handle = nbd.NBD()
    handle.connect_uri(uri)
    return handle


class Written(dict):
    """What a client has written last, by offset; and how many writes that took."""
    operations = 0


@contextlib.contextmanager
def writing(uri, size, block=4096, seed=7, zeroes=True, start=0):
    """Writes and zeroes at random places from `start` to `size`, until the end of the block; what was written is a dictionary."""
    done = threading.Event()
    written = Written()
    failures = []

    def run():
        try:
            source = random.Random(seed)
            handle = connect(uri)
            while not done.is_set():
                at = source.randrange(start // block, size // block) * block
                kind = source.randrange(4) if zeroes else 0
                data = bytes(block) if kind == 3 else source.randbytes(block)
                if kind == 3:
                    handle.zero(block, at)
                else:
                    handle.pwrite(data, at)
                written[at] = data
                written.operations += 1
            handle.flush()
            handle.shutdown()
        except Exception as failure:  # pylint: disable=broad-except
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield written
    finally:
        done.set()
        thread.join(PATIENCE_S)
    assert not failures, failures


def more_writes(written, count=20):
    """Waits until the client has made so many more writes."""
    before = written.operations
    wait_for(lambda: written.operations >= before + count, f'{count} more writes')


def stage(qmp, job, status):
    """Waits until the job has reached the stage."""
    while True:
        event = qmp.event('JOB_STATUS_CHANGE')
        if event['data'] == {'id': job, 'status': status}:
            return


def story(qmp, job, last='null'):
    """All that the events tell of the job up to its stage `last`: stages by name, BLOCK_JOB events without that."""
    told = []
    while True:
        while not qmp.events:
            qmp.events.append(qmp.receive())
        event = qmp.events.pop(0)
        data = event['data']
        if data.get('id', data.get('device')) != job:
            continue
        if event['event'] == 'JOB_STATUS_CHANGE':
            told.append(data['status'])
            if data['status'] == last:
                return told
        elif event['event'].startswith('BLOCK_JOB_'):
            told.append(event['event'][len('BLOCK_JOB_'):])


SUCCESS = ['created', 'running', 'waiting', 'pending', 'COMPLETED', 'concluded', 'null']
