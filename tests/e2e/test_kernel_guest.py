# SPDX-License-Identifier: LGPL-2.1-or-later
"""What needs a kernel of one's own: VDUSE, the kernel's NBD client, and vsock, in a virtual machine that all tests here share."""
import json
import pathlib
import shutil
import tempfile

import pytest

from guest import Machine, make_initramfs
from harness import need, program

MODULES = 'vduse', 'virtio_vdpa', 'vhost_vdpa', 'virtio_blk', 'nbd', 'vsock_loopback'
OURS = 'ashlar-storaged', 'ashlar-nbd', 'ashlar-img', 'ashlar-io'
MIB = 1 << 20
SIZE = 4 * MIB

pytestmark = pytest.mark.xdist_group('kernel guest')


class KernelGuest(Machine):
    """Storage daemons run in it; `pid` is where the only one of a test leaves its number."""

    pid = '/tmp/daemon.pid'

    def serve(self, options, qmp=False):
        if not qmp:
            self.do(f'ashlar-storaged {options} --pidfile {self.pid} --daemonize')
            return
        self.do('rm -f /tmp/qmp; mkfifo /tmp/qmp')
        self.do(f'ashlar-storaged {options} --chardev stdio,id=m --monitor m --pidfile {self.pid} </tmp/qmp >/tmp/replies 2>&1 &')
        self.do('exec 3>/tmp/qmp')
        self.qmp('qmp_capabilities')

    def qmp(self, command, **arguments):
        """The error's text, or None."""
        message = {'execute': command, 'arguments': {name.replace('_', '-'): value for name, value in arguments.items()}, 'id': 1}
        self.do('n=$(grep -c \'"id": 1\' /tmp/replies); true')
        self.do(f"echo '{json.dumps(message)}' >&3")
        self.do('while [ "$(grep -c \'"id": 1\' /tmp/replies)" = $n ]; do usleep 10000; done')
        reply = json.loads([line for line in self.do('cat /tmp/replies').splitlines() if '"id": 1' in line][-1])
        return reply.get('error', {}).get('desc')

    def kill(self, signal='TERM'):
        """Ends the daemon, and waits for that."""
        self.do(f'p=$(cat {self.pid}); kill -{signal} $p; exec 3>&-; while [ -e /proc/$p/exe ]; do usleep 10000; done')
        self.do(f'rm -f {self.pid}')

    def fails(self, command):
        self.start(f'{command} 2>&1')
        found = self.expect(r'(?s)(.*?)status=(\d+)\n')
        assert found[2] != '0', found[1]
        return found[1]

    def same(self, path, other, options=''):
        """Whether the two have the same contents on their disks."""
        self.do('sync; echo 3 > /proc/sys/vm/drop_caches')
        return self.do(f'cmp {options} {path} {other} >/dev/null && echo same || true') == 'same'

    def size(self, disk):
        return 512 * int(self.do(f'cat /sys/block/{disk}/size'))

    def wait_size(self, disk, size):
        self.do(f'while [ $(cat /sys/block/{disk}/size) != {size // 512} ]; do usleep 10000; done')

    def allocated(self, path):
        return 512 * int(self.do(f'stat -c %b {path}'))


@pytest.fixture(scope='module')
def guest():
    folder = pathlib.Path(tempfile.mkdtemp(prefix='ashlar-'))
    make_initramfs(folder, MODULES, [pathlib.Path(program(name)) for name in OURS] + [pathlib.Path(need('nbd-client')),
                                                                                      pathlib.Path(need('vdpa'))],
                   'dmesg -n 1; mkdir -p /var/lock; ip link set lo up')
    with KernelGuest(folder, memory='512M') as machine:
        machine.do(f'dd if=/dev/urandom of=/tmp/data bs=1M count={SIZE // MIB} 2>/dev/null')
        yield machine
    shutil.rmtree(folder)


@pytest.fixture
def disk(guest):
    """An image in the guest with known data; daemons of the last test have gone."""
    guest.do('cp /tmp/data /tmp/disk')
    yield '/tmp/disk'
    guest.do('vdpa dev del d0 2>/dev/null; killall -q -9 ashlar-storaged; rm -f /tmp/daemon.pid /tmp/disk; exec 3>&-; true')


def vduse(disk, options='', writable='on'):
    return (f'--blockdev file,node-name=disk,filename={disk},discard=unmap --object iothread,id=t0 --object iothread,id=t1 '
            f'--export type=vduse-blk,id=e,name=d0,node-name=disk,writable={writable}{options}')


def attach(guest):
    guest.do('vdpa dev add name d0 mgmtdev vduse')
    guest.do('while ! [ -b /dev/vda ]; do usleep 10000; done')


@pytest.mark.parametrize('options', ['', ',num-queues=2,queue-size=16,iothread.0=t0,iothread.1=t1', ',logical-block-size=4096'])
def test_vduse(guest, disk, options):
    """Reading, writing, trimming, resizing; and nothing is left."""
    guest.serve(vduse(disk, ',serial=abc' + options), qmp=True)
    attach(guest)
    assert guest.size('vda') == SIZE
    assert guest.do('cat /sys/block/vda/serial') == 'abc'
    assert guest.do('ls /sys/block/vda/mq | wc -l') == ('2' if 'num-queues' in options else '1')
    assert guest.do('cat /sys/block/vda/queue/logical_block_size') == ('4096' if 'logical' in options else '512')
    assert guest.do('cat /sys/block/vda/queue/write_cache') == 'write back'
    assert guest.same('/dev/vda', '/tmp/data')
    guest.do('cp /tmp/data /tmp/data2')
    for target in '/tmp/data2 conv=notrunc', '/dev/vda oflag=direct':
        guest.do(f'dd if=/tmp/data of={target} bs=256k count=8 seek=8 2>/dev/null')
    assert guest.same('/dev/vda', '/tmp/data2')
    assert guest.same(disk, '/tmp/data2')
    guest.do(f'blkdiscard -o {MIB} -l {MIB} /dev/vda')
    assert guest.allocated(disk) == SIZE - MIB
    assert not guest.qmp('block_resize', node_name='disk', size=2 * SIZE)
    guest.wait_size('vda', 2 * SIZE)
    assert guest.qmp('block-export-del', id='e') == "export 'e' still in use"
    guest.do('vdpa dev del d0')
    assert not guest.qmp('block-export-del', id='e')
    guest.do('while [ -e /dev/vduse/d0 ]; do usleep 10000; done')
    assert guest.do('ls /dev/shm') == ''
    guest.kill()


def test_vduse_killed_under_load(guest, disk):
    """Requests in flight when the daemon dies are done by the next one: who uses the disk notices a pause, no error."""
    guest.serve(vduse(disk, ',num-queues=2,iothread=t0'))
    attach(guest)
    guest.do('rm -f /tmp/done; (dd if=/tmp/data of=/dev/vda bs=4k seek=512 count=512 oflag=direct 2>/dev/null; echo $? > /tmp/done) &')
    for _ in range(5):
        before = guest.do('cat /sys/block/vda/stat | tr -s " " | cut -d " " -f 6')
        guest.do(f'while ! [ -e /tmp/done ] && [ "$(cat /sys/block/vda/stat | tr -s " " | cut -d " " -f 6)" = {before} ]; do true; done')
        guest.kill('KILL')
        guest.serve(vduse(disk, ',num-queues=2,iothread=t0'))
    guest.do('while ! [ -s /tmp/done ]; do usleep 10000; done')
    assert guest.do('cat /tmp/done') == '0'
    guest.do('dd if=/tmp/data of=/tmp/data2 bs=1M count=2 2>/dev/null; dd if=/tmp/data of=/tmp/data2 bs=1M count=2 seek=2 2>/dev/null')
    assert guest.same('/dev/vda', '/tmp/data2')
    assert guest.same(disk, '/tmp/data2')


def test_vduse_left_and_found(guest, disk):
    """A device that a driver uses outlives its daemon; another size of it, another server or a lost log are refused."""
    guest.serve(vduse(disk, ',num-queues=2'))
    assert 'is served by another process' in guest.fails(f'ashlar-storaged {vduse("/tmp/data", writable="off")}')
    attach(guest)
    guest.kill()
    assert guest.do('ls /dev/vduse /dev/shm').split() == ['/dev/shm:', 'ashlar-vduse-d0', '/dev/vduse:', 'control', 'd0']
    assert 'with 2 queues of 256 places, so it cannot have 1 of 256' in guest.fails(f'ashlar-storaged {vduse(disk)}')
    assert 'were not offered' in guest.fails(f'ashlar-storaged {vduse(disk, ",num-queues=2", "off")}')
    guest.do('mv /dev/shm/ashlar-vduse-d0 /tmp/log')
    assert 'is missing' in guest.fails(f'ashlar-storaged {vduse(disk, ",num-queues=2")}')
    guest.do('cp /tmp/log /dev/shm/ashlar-vduse-d0')
    guest.serve(vduse(disk, ',num-queues=2'))
    assert guest.same('/dev/vda', '/tmp/data')
    guest.do('vdpa dev del d0')
    guest.kill('KILL')
    # what nobody uses any more is made anew, as it is wanted now
    guest.serve(vduse(disk, ',queue-size=8'))
    attach(guest)
    assert guest.same('/dev/vda', '/tmp/data')


def test_vduse_throttled_and_reset(guest, disk):
    """A driver that goes while requests are held back; deleting with force, in use, leaves what waits for another daemon."""
    guest.serve(f'--blockdev file,node-name=file,filename={disk} --object throttle-group,id=g,limits.iops-total=20 '
                '--blockdev throttle,node-name=disk,file=file,throttle-group=g '
                '--export type=vduse-blk,id=e,name=d0,node-name=disk,writable=on', qmp=True)
    attach(guest)
    guest.do('dd if=/dev/vda of=/dev/null bs=64k iflag=direct count=64 2>/dev/null &')
    guest.do('p=$!; vdpa dev del d0; while [ -e /proc/$p/exe ]; do usleep 10000; done')
    guest.do('vdpa dev add name d0 mgmtdev vduse')
    assert not guest.qmp('block-export-del', id='e', mode='hard')
    guest.do('while ! grep -q BLOCK_EXPORT_DELETED /tmp/replies; do usleep 10000; done')
    assert guest.do('ls /dev/vduse').split() == ['control', 'd0']
    guest.kill()
    guest.serve(vduse(disk))
    assert guest.same('/dev/vda', '/tmp/data')


def test_vduse_without_the_kernels_part(guest, disk):
    """Which modules are to be loaded."""
    guest.do('mount -t tmpfs none /dev/vduse')
    complaint = guest.fails(f'ashlar-storaged {vduse(disk)}')
    guest.do('umount /dev/vduse')
    assert "load the kernel modules 'vduse' and" in complaint


def test_vhost_vdpa(guest, disk):
    """The same disk for a program: our driver on the device that the kernel makes of our export."""
    guest.serve(vduse(disk, ',num-queues=2'), qmp=True)
    guest.do('echo 0 > /sys/bus/vdpa/drivers_autoprobe; vdpa dev add name d0 mgmtdev vduse; echo 1 > /sys/bus/vdpa/drivers_autoprobe')
    guest.do('echo d0 > /sys/bus/vdpa/drivers/vhost_vdpa/bind')
    guest.do('while ! ls /dev/vhost-vdpa-* >/dev/null 2>&1; do usleep 10000; done')
    path = guest.do('ls /dev/vhost-vdpa-*')
    image = "'json:" + json.dumps({'driver': 'raw', 'file': {'driver': 'virtio-blk-vhost-vdpa', 'path': path}}) + "'"
    assert guest.do(f'ashlar-img compare -U {image} /tmp/data') == 'Images are identical.'
    commands = ('write -P 7 0 1M', 'write -z -u 1M 1M', 'discard 2M 64k', 'write -P 8 3145728 512', 'flush', 'read -P 7 0 1M',
                'read -P 0 1M 1M')
    done = guest.do('ashlar-io ' + ' '.join(f"-c '{command}'" for command in commands) + f' {image}')
    assert 'Pattern' not in done and 'failed' not in done
    done = guest.do(f"ashlar-io -r -U -f raw -c 'read -P 7 0 1M' -c 'read -P 0 1M 1M' -c 'read -P 8 3145728 512' {disk}")
    assert 'Pattern' not in done and done.count('read ') == 3
    # a daemon that uses it: nobody else can; it hears of a new size
    guest.do(f'ashlar-storaged --blockdev virtio-blk-vhost-vdpa,node-name=n,path={path} --nbd-server addr.type=unix,addr.path=/tmp/n '
             '--export type=nbd,id=e,name=x,node-name=n --pidfile /tmp/second.pid --daemonize')
    assert 'Device or resource busy' in guest.fails(f'ashlar-img info {image}')
    assert not guest.qmp('block_resize', node_name='disk', size=2 * SIZE)
    guest.do("while ! ashlar-img info 'nbd+unix:///x?socket=/tmp/n' | grep -q '8 MiB'; do usleep 10000; done")
    guest.do('p=$(cat /tmp/second.pid); kill $p; while [ -e /proc/$p/exe ]; do usleep 10000; done')
    guest.do('vdpa dev del d0')
    assert 'vDPA devices are there when' in guest.fails(f'ashlar-img info {image}')
    guest.kill()


def nbd_server(disk, address, options=''):
    return (f'--blockdev file,node-name=disk,filename={disk},discard=unmap --nbd-server {address},max-connections=8 '
            f'--export type=nbd,id=e,name=d,node-name=disk,writable=on{options}')


def test_nbd_client(guest, disk):
    """The kernel's client with four connections."""
    guest.serve(nbd_server(disk, 'addr.type=unix,addr.path=/tmp/nbd', ' --object iothread,id=t1'))
    guest.do('nbd-client -unix /tmp/nbd /dev/nbd0 -N d -C 4 2>&1')
    assert guest.size('nbd0') == SIZE
    assert guest.do('cat /sys/block/nbd0/queue/write_cache') == 'write back'
    assert guest.same('/dev/nbd0', '/tmp/data')
    guest.do('dd if=/tmp/data of=/dev/nbd0 bs=64k count=16 seek=32 oflag=direct 2>/dev/null')
    guest.do(f'blkdiscard -o {MIB} -l {MIB} /dev/nbd0')
    assert guest.allocated(disk) == SIZE - MIB
    assert guest.same('/dev/nbd0', disk)
    assert not guest.same('/dev/nbd0', '/tmp/data')
    guest.do('nbd-client -d /dev/nbd0')
    assert guest.size('nbd0') == 0
    # once more, for a server that dies: errors, in time for what was on its way, too; and the device can be used again
    guest.do('nbd-client -unix /tmp/nbd /dev/nbd0 -N d -t 5 2>&1')
    guest.kill('KILL')
    guest.fails('dd if=/dev/nbd0 of=/dev/null bs=4k count=1 iflag=direct')
    guest.do('nbd-client -d /dev/nbd0')


def test_ashlar_nbd_device(guest, disk):
    """ashlar-nbd shows a qcow2 image as a device, and goes when that is disconnected."""
    guest.do('ashlar-img create -q -f qcow2 /tmp/q 8M')
    guest.do('ashlar-nbd -c /dev/nbd1 -f qcow2 -e 4 --discard=unmap /tmp/q')
    # the kernel gives the device its size when the program has already said that it is there
    guest.wait_size('nbd1', 2 * SIZE)
    guest.do('dd if=/tmp/data of=/dev/nbd1 bs=1M oflag=direct 2>/dev/null')
    assert guest.same('/dev/nbd1', '/tmp/data', f'-n {SIZE}')
    guest.do(f'blkdiscard -o {SIZE // 2} -l {SIZE // 2} /dev/nbd1')
    guest.do('ashlar-nbd -d /dev/nbd1')
    guest.do('while pgrep ashlar-nbd >/dev/null; do usleep 10000; done')
    assert guest.size('nbd1') == 0
    guest.do('ashlar-img check -q /tmp/q')
    assert guest.allocated('/tmp/q') < SIZE // 2 + MIB
    assert guest.do("ashlar-io -r -f qcow2 -c 'read -P 0 2M 2M' /tmp/q | grep -c '^read'") == '1'
    half = SIZE // 2 // MIB
    guest.do(f'dd if=/dev/zero of={disk} bs=1M seek={half} count={half} conv=notrunc 2>/dev/null; truncate -s {2 * SIZE} {disk}')
    guest.do(f'ashlar-img compare -q {disk} /tmp/q')


def test_vsock(guest, disk):
    """Our server and our client over vsock, by URI and by options; a daemon that hands on what it gets that way."""
    guest.serve(nbd_server(disk, 'addr.type=vsock,addr.cid=1,addr.port=10809'))
    uri = 'nbd+vsock://1:10809/d'
    assert guest.do(f'ashlar-img compare -f raw -F raw -U {uri} /tmp/data') == 'Images are identical.'
    guest.do(f"ashlar-io -f raw -c 'write -P 7 0 64k' -c flush {uri} && ashlar-io -r -U -f raw -c 'read -P 7 0 64k' {disk}")
    guest.do('ashlar-storaged --blockdev driver=nbd,node-name=c,server.type=vsock,server.cid=1,server.port=10809,export=d '
             '--nbd-server addr.type=vsock,addr.cid=4294967295,addr.port=4242 --export type=nbd,id=e,name=x,node-name=c '
             '--pidfile /tmp/second.pid --daemonize')
    assert guest.do(f'ashlar-img compare -f raw -F raw -U nbd+vsock://1:4242/x {disk}') == 'Images are identical.'
    guest.do(f'ashlar-img convert -f raw -O raw -n /tmp/data {uri}')
    guest.do('kill $(cat /tmp/second.pid)')
    guest.kill()
    assert guest.same(disk, '/tmp/data')
    assert "Failed to connect to '1:10809': Connection reset by peer" in guest.fails(f'ashlar-img info {uri}')
