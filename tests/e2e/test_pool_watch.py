# SPDX-License-Identifier: LGPL-2.1-or-later
"""Directories that are watched: volumes of others come and go by themselves, and a refresh looks at what has changed only."""
import os
import pathlib
import signal
import time

import pytest

import pool_daemon as pools
from harness import program, run, wait_for
from pool_daemon import pool_xml, volume_xml

MIB = 1 << 20
# The kernel's number of watches is one for each user namespace, so a daemon can be left without one.
NO_WATCHES = ('mount --bind "$1/etc" /etc/libvirt && mount --bind "$1/run" /run && shift && exec unshare --user --map-root-user sh -c '
              '\'echo 0 > /proc/sys/user/max_inotify_watches && exec "$@"\' sh "$@"')


@pytest.fixture
def pool(pool_daemon):
    return pool_daemon.start().connect().storagePoolCreateXML(pool_xml('demo', pool_daemon.images))


def names(pool):
    return sorted(pool.listVolumes())


def settle(folder):
    """Until what is in the folder has been left alone for so long that a later change is certain to show."""
    newest = max(path.lstat().st_ctime for path in folder.iterdir())
    wait_for(lambda: time.time() > newest + 0.3, 'the clock')


def bytes_read(daemon):
    fields = dict(line.split(': ') for line in pathlib.Path(f'/proc/{daemon.process.pid}/io').read_text().splitlines())
    return int(fields['rchar'])


def test_volumes_of_others_come_and_go(pool, pool_daemon):
    images = pool_daemon.images
    (images / 'a').write_bytes(bytes(MIB))
    wait_for(lambda: names(pool) == ['a'], 'the file to be a volume')
    wait_for(lambda: pool.storageVolLookupByName('a').info()[1] == MIB, 'its size')
    run(program('ashlar-img'), 'create', '-f', 'qcow2', images / 'b', 4 * MIB)
    wait_for(lambda: 'b' in names(pool) and "<format type='qcow2'/>" in pool.storageVolLookupByName('b').XMLDesc(), 'an image')
    assert pool.storageVolLookupByName('b').info()[1] == 4 * MIB
    (images / 'a').rename(images / 'c')
    wait_for(lambda: names(pool) == ['b', 'c'], 'the new name')
    os.replace(images / 'b', images / 'c')
    wait_for(lambda: names(pool) == ['c'] and pool.storageVolLookupByName('c').info()[1] == 4 * MIB, 'one in the place of another')
    (images / 'c').unlink()
    wait_for(lambda: names(pool) == [], 'the file to be gone')
    (images / 'not\nshown').write_bytes(b'')
    (images / 'link').symlink_to('/nonexistent')
    (images / 'last').write_bytes(b'')
    wait_for(lambda: names(pool) == ['last'], 'the last one')


def test_volumes_of_clients_stay_as_they_are(pool, pool_daemon):
    """What the daemon does itself is no news to it."""
    pool.createXML(volume_xml('a', MIB))
    pool.createXML(volume_xml('b', MIB, 'qcow2'))
    pool.storageVolLookupByName('a').delete()
    (pool_daemon.images / 'marker').write_bytes(b'')
    wait_for(lambda: 'marker' in names(pool), 'the events')
    assert names(pool) == ['b', 'marker']
    (pool_daemon.images / 'b').unlink()
    wait_for(lambda: names(pool) == ['marker'], 'what a client has made to be gone')


def test_refresh_looks_at_what_has_changed(pool, pool_daemon):
    images = pool_daemon.images
    first = images / 'v0'
    run(program('ashlar-img'), 'create', '-f', 'qcow2', first, MIB)
    for i in range(1, 300):
        (images / f'v{i}').write_bytes(first.read_bytes())
    settle(images)
    pool.refresh()
    everything = bytes_read(pool_daemon)
    pool.refresh()  # the watch began with the pool, and the files have been looked at since they were left alone
    before = bytes_read(pool_daemon)
    run(program('ashlar-img'), 'resize', '-f', 'qcow2', images / 'v7', 8 * MIB)
    (images / 'v8').unlink()
    (images / 'new').write_bytes(bytes(3))
    os.truncate(images / 'v9', 512)
    pool.refresh()
    cost = bytes_read(pool_daemon) - before
    assert everything > 300 * 4096 > 10 * cost, (everything, cost)
    assert pool.numOfVolumes() == 300
    assert [pool.storageVolLookupByName(name).info()[1] for name in ('v7', 'new', 'v6')] == [8 * MIB, 3, MIB]


def test_refresh_sees_what_no_event_tells(pool, pool_daemon, tmp_path):
    """Writing without closing, by another name of the file, and changes of a backing image elsewhere."""
    images = pool_daemon.images
    base = tmp_path / 'base'
    base.write_bytes(bytes(MIB))
    run(program('ashlar-img'), 'create', '-f', 'qcow2', '-F', 'raw', '-b', base, images / 'top')
    (images / 'open').write_bytes(b'')
    (images / 'linked').write_bytes(b'')
    os.link(images / 'linked', tmp_path / 'other')
    settle(images)
    pool.refresh()
    pool.refresh()
    with open(images / 'open', 'r+b', buffering=0) as file:
        file.write(bytes(2 * MIB))
        run(program('ashlar-img'), 'create', '-f', 'qcow2', tmp_path / 'image', 5 * MIB)
        (tmp_path / 'other').write_bytes((tmp_path / 'image').read_bytes())
        base.chmod(0o640)
        pool.refresh()
        assert pool.storageVolLookupByName('open').info()[1] == 2 * MIB
    assert "<format type='qcow2'/>" in pool.storageVolLookupByName('linked').XMLDesc()
    assert pool.storageVolLookupByName('linked').info()[1] == 5 * MIB
    assert '<mode>0640</mode>' in pool.storageVolLookupByName('top').XMLDesc().split('<backingStore>')[1]


def test_more_events_than_the_kernel_keeps(pool, pool_daemon):
    """They are lost, so everything is looked at. So it is where there are more than the daemon keeps."""
    count = min(200 + int(pathlib.Path('/proc/sys/fs/inotify/max_queued_events').read_text()) // 2, 10000)
    pool_daemon.process.send_signal(signal.SIGSTOP)
    try:
        for i in range(count):
            (pool_daemon.images / f'v{i}').touch()
    finally:
        pool_daemon.process.send_signal(signal.SIGCONT)
    wait_for(lambda: pool.numOfVolumes() == count, 'all volumes')
    (pool_daemon.images / 'v1').unlink()
    wait_for(lambda: pool.numOfVolumes() == count - 1, 'the watch to go on')
    pool.refresh()
    assert pool.numOfVolumes() == count - 1


def test_directory_that_is_moved_or_replaced(pool, pool_daemon, tmp_path):
    images = pool_daemon.images
    (images / 'old').write_bytes(b'')
    wait_for(lambda: names(pool) == ['old'], 'the file')
    images.rename(tmp_path / 'away')
    images.mkdir()
    (images / 'new').write_bytes(b'')
    pool.refresh()
    assert names(pool) == ['new']
    (tmp_path / 'away' / 'more').write_bytes(b'')
    (images / 'newer').write_bytes(b'')
    wait_for(lambda: names(pool) == ['new', 'newer'], 'the new directory to be watched')


@pytest.mark.skipif(os.geteuid() != 0, reason='mounts')
def test_directory_that_is_mounted_over(pool, pool_daemon):
    images = pool_daemon.images
    inside = ['nsenter', '--mount', f'--target={pool_daemon.process.pid}']
    (images / 'below').write_bytes(b'')
    wait_for(lambda: names(pool) == ['below'], 'the file')
    run(*inside, 'mount', '-t', 'tmpfs', 'none', images)
    pool.refresh()
    assert names(pool) == []
    run(*inside, 'touch', images / 'above')
    wait_for(lambda: names(pool) == ['above'], 'what is mounted there to be watched')
    wait_for(lambda: run(*inside, 'umount', images, check=False).returncode == 0, 'nobody to look at it')
    wait_for(lambda: names(pool) == ['below'], 'what is below it to be seen again')
    (images / 'later').write_bytes(b'')
    wait_for(lambda: names(pool) == ['below', 'later'], 'that to be watched')


def test_links_to_files_elsewhere(pool, pool_daemon, tmp_path):
    """No event tells of a change of theirs, but a refresh sees it."""
    (tmp_path / 'far').write_bytes(bytes(MIB))
    (pool_daemon.images / 'link').symlink_to(tmp_path / 'far')
    (pool_daemon.images / 'circle').symlink_to('circle')
    wait_for(lambda: names(pool) == ['link'], 'the link')
    settle(pool_daemon.images)
    settle(tmp_path)
    pool.refresh()
    os.truncate(tmp_path / 'far', 3 * MIB)
    pool.refresh()
    assert pool.storageVolLookupByName('link').info()[1] == 3 * MIB
    (tmp_path / 'far').unlink()
    pool.refresh()
    assert names(pool) == []


def test_stopped_pools_are_left_alone(pool_daemon):
    connection = pool_daemon.start().connect()
    pool = connection.storagePoolDefineXML(pool_xml('demo', pool_daemon.images))
    for _ in range(3):
        pool.create()
        (pool_daemon.images / 'a').write_bytes(b'')
        wait_for(lambda: names(pool) == ['a'], 'the file')
        pool.destroy()
        (pool_daemon.images / 'a').unlink()
    links = pathlib.Path(f'/proc/{pool_daemon.process.pid}/fdinfo')
    assert not any('inotify wd' in path.read_text() for path in links.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason='limits what root may watch')
def test_no_watch_is_left(pool_daemon, monkeypatch):
    """It is said once, and refreshing goes on."""
    monkeypatch.setattr(pools, 'OWN_FOLDERS', NO_WATCHES)
    (pool_daemon.folder / 'other').mkdir()
    connection = pool_daemon.start().connect()
    pool = connection.storagePoolCreateXML(pool_xml('demo', pool_daemon.images))
    connection.storagePoolCreateXML(pool_xml('other', pool_daemon.folder / 'other'))
    (pool_daemon.images / 'a').write_bytes(b'')
    pool.refresh()
    assert names(pool) == ['a']
    assert pool_daemon.log.read_text().count('cannot be watched (No space left on device)') == 1
