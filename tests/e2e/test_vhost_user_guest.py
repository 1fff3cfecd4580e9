# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real guest in a real machine uses the vhost-user-blk export."""
import hashlib
import os

import pytest

from guest import Guest
from harness import Qmp, listens, wait_for
from test_vhost_user import MIB, Served


def sha(data):
    return hashlib.sha256(data).hexdigest()


def prepare(tmp_path, options='', **kwargs):
    data = os.urandom(4 * MIB) + bytes(28 * MIB)
    (tmp_path / 'disk.img').write_bytes(data)
    return Served(tmp_path, options, **kwargs), data


@pytest.mark.parametrize('device', ['', ',packed=on,num-queues=2', ',config-wce=off'])
def test_guest(tmp_path, device):
    """Reading, writing, trimming, zeroing, resizing."""
    served, data = prepare(tmp_path, ',num-queues=2,iothread=t0', first=['--object', 'iothread,id=t0'])
    with served, Guest(tmp_path, served.socket, device) as guest:
        assert guest.do('cat /sys/block/vda/size /sys/block/vda/serial').split() == [str(32 * MIB // 512), 'vub0']
        assert guest.do('cat /sys/block/vda/queue/write_cache') == 'write back'
        assert guest.do('sha256sum < /dev/vda').split()[0] == sha(data)
        assert guest.do('dd if=/dev/vda of=/dev/vda bs=256k count=16 seek=64 oflag=direct 2>/dev/null && sync') == ''
        assert served.image.read_bytes()[16 * MIB:20 * MIB] == data[:4 * MIB]
        if 'config-wce=off' not in device:
            for kind in 'write through', 'write back':
                guest.do(f"echo '{kind}' > /sys/block/vda/cache_type")
                assert guest.do('cat /sys/block/vda/queue/write_cache') == kind
                guest.do('dd if=/dev/vda of=/dev/vda bs=4k count=16 oflag=direct 2>/dev/null')
        guest.do('blkdiscard -o 1048576 -l 1048576 /dev/vda')
        guest.do('echo 3 > /proc/sys/vm/drop_caches')
        assert served.image.read_bytes()[MIB:2 * MIB] == bytes(MIB)
        assert served.image.stat().st_blocks * 512 == 31 * MIB
        served.qmp.command('block_resize', node_name='disk', size=48 * MIB)
        guest.do(f'while [ $(cat /sys/block/vda/size) != {48 * MIB // 512} ]; do sleep 0.1; done')
        guest.power_off()


def test_daemon_killed_and_started_again(tmp_path):
    """Requests in flight when the daemon dies are done by the next one: the guest notices a pause, no error."""
    served, _ = prepare(tmp_path, ',num-queues=2')
    with Guest(tmp_path, served.socket) as guest:
        guest.do('dd if=/dev/urandom of=/tmp/data bs=1M count=16 2>/dev/null')
        wanted = guest.do('sha256sum < /tmp/data').split()[0]
        guest.start('dd if=/tmp/data of=/dev/vda bs=4k oflag=direct 2>/dev/null; sync; sha256sum < /tmp/data')
        for _ in range(3):
            before = served.image.read_bytes()
            while served.image.read_bytes() == before and 'status=' not in guest.output:
                continue
            served.daemon.kill()
            served.socket.unlink(missing_ok=True)
            served.start()
        assert guest.finish().split()[0] == wanted
        guest.do('echo 3 > /proc/sys/vm/drop_caches')
        assert guest.do('dd if=/dev/vda bs=1M count=16 2>/dev/null | sha256sum').split()[0] == wanted
        assert sha(served.image.read_bytes()[:16 * MIB]) == wanted
        guest.power_off()
    served.daemon.stop()


def test_rebooted_and_replaced(tmp_path):
    """A guest that boots again, and a machine that is killed with requests in flight: the next finds the disk as it was left."""
    served, data = prepare(tmp_path, ',num-queues=2')
    with served:
        with Guest(tmp_path, served.socket) as guest:
            guest.do('dd if=/dev/vda of=/dev/vda bs=256k count=8 seek=64 oflag=direct 2>/dev/null')
            guest.start('reboot -f')
            guest.expect('guest is up\n')
            assert guest.do('dd if=/dev/vda bs=256k count=8 skip=64 2>/dev/null | sha256sum').split()[0] == sha(data[:2 * MIB])
            guest.start('dd if=/dev/zero of=/dev/vda bs=4k seek=6144 count=2048 oflag=direct')
        with Guest(tmp_path, served.socket, ',packed=on') as guest:
            assert guest.do('dd if=/dev/vda bs=256k count=8 skip=64 2>/dev/null | sha256sum').split()[0] == sha(data[:2 * MIB])
            guest.power_off()


def test_migration(tmp_path):
    """
    A machine moves to another one, and from a daemon's disks to another's, with a split ring and a packed one. What it has read of its
    disks comes along: the other daemon's disks are empty, so that it can be from nowhere else. It rests meanwhile: the memory
    of a machine that runs now and then arrives damaged, whatever serves its disks; what we mark, test_vhost_user_moving tells.
    """
    data = [os.urandom(6 * MIB), os.urandom(6 * MIB)]
    images = 'disk.img', 'second.img'

    def serve(side, contents):
        folder = tmp_path / side
        folder.mkdir()
        for name, content in zip(images, contents):
            (folder / name).write_bytes(content)
        second = ['--blockdev', f'driver=file,node-name=two,filename={folder}/second.img', '--export',
                  f'type=vhost-user-blk,id=vub1,node-name=two,writable=on,addr.type=unix,addr.path={folder}/second.sock']
        return Served(folder, first=second)

    def machine(served, *more, **kwargs):
        folder = served.tmp_path
        more = ['-chardev', f'socket,id=second,path={folder}/second.sock', '-device',
                'vhost-user-blk-pci,chardev=second,packed=on,num-queues=1', '-qmp', f'unix:{folder}/machine.qmp,server=on,wait=off', *more]
        return Guest(folder, served.socket, ',num-queues=1', more=more, **kwargs)

    incoming = tmp_path / 'incoming.sock'
    with serve('here', data) as here, serve('there', [bytes(6 * MIB)] * 2) as there, machine(here) as source:
        os.symlink(tmp_path / 'here' / 'initramfs.cpio', tmp_path / 'there' / 'initramfs.cpio')
        with machine(there, '-incoming', f'unix:{incoming}', waits=True) as target:
            wait_for(lambda: listens(incoming), 'the other machine to listen')
            monitor, other = (Qmp.connect(tmp_path / side / 'machine.qmp') for side in ('here', 'there'))
            # Who has a disk open keeps what has been read of it.
            source.do('exec 4</dev/vda 5</dev/vdb; cat /dev/vda /dev/vdb > /dev/null')
            monitor.command('stop')
            monitor.command('migrate', uri=f'unix:{incoming}')
            wait_for(lambda: monitor.command('query-migrate')['status'] in ('completed', 'failed'), 'the migration to end')
            assert monitor.command('query-migrate')['status'] == 'completed'
            wait_for(lambda: other.command('query-status')['status'] == 'paused', 'the other machine to be whole')
            other.command('cont')
            for disk, wanted, image in zip(('vda', 'vdb'), data, images):
                assert target.do(f'sha256sum < /dev/{disk}').split()[0] == sha(wanted)
                assert target.do(f'dd if=/dev/{disk} bs=1M iflag=direct 2>/dev/null | sha256sum').split()[0] == sha(bytes(6 * MIB))
                target.do(f'dd if=/bin/busybox of=/dev/{disk} bs=64k count=1 oflag=direct 2>/dev/null')
                assert any((tmp_path / 'there' / image).read_bytes()[:65536])
            monitor.sock.close()
            other.sock.close()
            target.power_off()
