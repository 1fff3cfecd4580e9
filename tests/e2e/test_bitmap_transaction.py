# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bitmap actions of transactions: all at one moment, or none."""
import threading

import pytest

from harness import raw_image
from nbd_serving import MIB, Served
from test_bitmap_commands import add, bitmaps, count, refusal


@pytest.fixture
def served(daemon, tmp_path):
    other = raw_image(tmp_path / 'other.img', MIB)
    return Served(daemon, tmp_path, extra=['--blockdev', f'driver=file,node-name=other,filename={other}'])


def action(what, node='disk', **data):
    return {'type': what if what == 'abort' else f'block-dirty-bitmap-{what}',
            'data': {} if what == 'abort' else {'node': node, **data}}


def transaction(served, *actions, **properties):
    served.qmp.command('transaction', actions=list(actions), **properties)


def failing(served, *actions, **properties):
    return refusal(served.qmp, 'transaction', actions=list(actions), **properties)


def test_effects_are_seen_by_later_actions(served):
    add(served.qmp, 'a')
    with served.open() as client:
        client.write(0, b'x')
    transaction(served, action('add', name='copy', granularity=4096), action('disable', name='copy'),
                action('merge', target='copy', bitmaps=['a']), action('clear', name='a'),
                action('add', node='other', name='there', disabled=True),
                action('merge', node='other', target='there', bitmaps=[{'node': 'disk', 'name': 'copy'}]))
    assert count(served.qmp, 'a') == 0
    assert count(served.qmp, 'copy') == 65536 and not bitmaps(served.qmp)['copy']['recording']
    assert count(served.qmp, 'there', 'other') == 65536
    transaction(served, action('add', name='b'), action('remove', name='b'), action('remove', name='copy'))
    assert list(bitmaps(served.qmp)) == ['a']
    transaction(served)


@pytest.mark.parametrize('step', range(7))
def test_a_failure_at_any_step_leaves_no_trace(served, step):
    """M7"""
    add(served.qmp, 'on', granularity=4096)
    add(served.qmp, 'off', granularity=8192, disabled=True)
    add(served.qmp, 'gone', granularity=512)
    with served.open() as client:
        client.write(0, b'x' * 5000)
    before = bitmaps(served.qmp)
    actions = [action('add', name='new'), action('clear', name='on'), action('enable', name='off'),
               action('disable', name='on'), action('merge', target='off', bitmaps=['gone', 'on']),
               action('remove', name='gone'), action('merge', target='new', bitmaps=['off'])]
    actions.insert(step + 1, action('abort'))
    assert failing(served, *actions) == 'Transaction aborted using Abort action'
    assert bitmaps(served.qmp) == before
    # They go on as before.
    with served.open() as client:
        client.write(MIB - 1, b'x')
    assert count(served.qmp, 'on') == 8192 + 4096 and count(served.qmp, 'off') == 0


def test_refusals(served):
    add(served.qmp, 'a')
    assert failing(served, action('clear', name='no')) == "Dirty bitmap 'no' not found"
    assert failing(served, action('enable', node='no', name='a')) == "Node 'no' not found"
    assert failing(served, action('remove', name='a'), action('add', name='a')) == 'Bitmap already exists: a'
    assert failing(served, action('remove', name='a'), action('clear', name='a')) == \
        "Bitmap 'a' is currently in use by another operation and cannot be used"
    assert failing(served, action('clear', name='a'), properties={'completion-mode': 'grouped'}) == \
        "Action 'block-dirty-bitmap-clear' does not support Transaction property completion-mode = grouped"
    assert failing(served, action('abort'), properties={'completion-mode': 'grouped'}) == \
        'Transaction aborted using Abort action'
    assert bitmaps(served.qmp)['a']['busy'] is False


def test_no_write_falls_between(served):
    """Writes go on while one bitmap hands over to the next: each is in one of them, and none in two."""
    import nbd
    total = 512
    handle = served.libnbd()
    add(served.qmp, 'b0', granularity=2048)
    written = []

    def write_all():
        for block in range(total):
            handle.pwrite(b'x', block * 2048)
            written.append(block)

    writer = threading.Thread(target=write_all)
    writer.start()
    generation = 0
    while writer.is_alive() or generation < 5:
        transaction(served, action('disable', name=f'b{generation}'),
                    action('add', name=f'b{generation + 1}', granularity=2048))
        generation += 1
        if generation == 200:
            break
    writer.join()
    handle.shutdown()
    assert isinstance(handle, nbd.NBD) and len(written) == total
    assert sum(bitmap['count'] for bitmap in bitmaps(served.qmp).values()) == total * 2048


def backup(job, **options):
    return {'type': 'blockdev-backup', 'data': {'job-id': job, 'device': 'disk', 'target': 'other', **options}}


def wait_for_job(qmp, job):
    while True:
        data = qmp.event('JOB_STATUS_CHANGE')['data']
        if data == {'id': job, 'status': 'null'}:
            return


def test_incremental_backup(served, tmp_path):
    """A full backup and a bitmap begin at one moment; what is written later is what the next backup copies."""
    with served.open() as client:
        client.write(0, b'a' * 65536)
    transaction(served, action('add', name='b'), backup('full', sync='full'))
    wait_for_job(served.qmp, 'full')
    with served.open() as client:
        client.write(131072, b'b' * 65536)
    transaction(served, action('add', name='later'), backup('more', sync='bitmap', bitmap='b',
                                                            **{'bitmap-mode': 'on-success'}))
    wait_for_job(served.qmp, 'more')
    assert (tmp_path / 'other.img').read_bytes() == served.content()
    assert count(served.qmp, 'b') == 0 and count(served.qmp, 'later') == 0
    assert not bitmaps(served.qmp)['b']['busy']


def test_backup_that_is_taken_back(served, tmp_path):
    add(served.qmp, 'b')
    with served.open() as client:
        client.write(0, b'a' * 65536)
        assert failing(served, backup('j', sync='incremental', bitmap='b'), action('clear', name='no')) == \
            "Dirty bitmap 'no' not found"
        client.write(65536, b'a')
    assert served.qmp.command('query-jobs') == []
    assert count(served.qmp, 'b') == 131072 and not bitmaps(served.qmp)['b']['busy']
    assert not any((tmp_path / 'other.img').read_bytes())
