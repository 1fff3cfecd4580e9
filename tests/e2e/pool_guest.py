# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The pool daemon in a virtual machine with a whole kernel: device mapper, iSCSI (initiator and target), NFS (client and
server), SCSI hosts, file systems. One machine serves all tests that use it: they are in the group "pool guest", and take
the fixture `pool_guest` of conftest.py. Clients are those of this host: the daemon's socket is forwarded.

The kernel's modules are there as on a real system, loaded when they are wanted, and udev makes nodes and links.
"""
import pathlib
import re
import subprocess

import libvirt

from guest import Machine, kernel, libraries, make_initramfs, module_files, put
from harness import Qmp, listens, need, program, raw_image, run, sanitized, wait_for
from pool_daemon import PoolServer

MODULES = (
    'virtio_pci', 'virtio_net', 'virtio_rng', 'loop', 'sd_mod', 'scsi_debug',
    'dm_mod', 'dm_multipath', 'dm_round_robin', 'dm_service_time', 'dm_snapshot', 'dm_thin_pool', 'dm_zero', 'dm_mirror',
    'dm_raid', 'raid1',
    'iscsi_tcp', 'target_core_mod', 'target_core_file', 'iscsi_target_mod', 'tcm_loop',
    'nfs', 'nfsv3', 'nfsv4', 'nfsd', 'vfat', 'nls_cp437', 'nls_ascii', 'nls_iso8859_1', 'nls_utf8', 'virtio_scsi', 'sr_mod',
)
# What the daemon's backends call, and what a test needs to make the other side.
PROGRAMS = (
    'socat', 'kmod', 'udevadm', 'mount', 'umount', 'losetup', 'blkid', 'mkfs', 'mke2fs', 'mkfs.vfat',
    'dmsetup', 'multipath', 'lvm', 'iscsiadm', 'iscsid', 'mount.nfs', 'showmount', 'rpcbind', 'rpc.mountd', 'rpc.nfsd',
    'rpc.statd', 'exportfs',
)
LINKS = {
    'kmod': ('modprobe',),
    'udevadm': ('systemd-udevd',),
    'mke2fs': ('mkfs.ext2', 'mkfs.ext3', 'mkfs.ext4'),
    'mount.nfs': ('mount.nfs4', 'umount.nfs', 'umount.nfs4'),
    'lvm': ('pvs', 'vgs', 'lvs', 'pvcreate', 'pvremove', 'pvscan', 'vgcreate', 'vgremove', 'vgchange', 'vgextend', 'vgreduce',
            'vgrename', 'vgscan', 'lvcreate', 'lvremove', 'lvchange', 'lvresize', 'lvrename', 'lvconvert'),
}
# Found by the names that the configuration has for them.
PLUGINS = tuple(pathlib.Path(f'/lib/multipath/{name}.so') for name in ('libchecktur', 'libprioconst', 'libpriosysfs', 'libprioalua'))
RULES = ('50-udev-default', '55-dm', '56-lvm', '60-block', '60-persistent-storage', '60-persistent-storage-dm', '80-drivers',
         '95-dm-notify')
FILES = {
    'etc/passwd': 'root:x:0:0:root:/:/bin/sh\n_rpc:x:101:65534::/run/rpcbind:/bin/false\nstatd:x:102:65534::/var/lib/nfs:/bin/false\n'
                  'somebody:x:1000:1000::/:/bin/false\nnobody:x:65534:65534::/:/bin/false\n',
    'etc/group': 'root:x:0:\ndisk:x:6:\ncdrom:x:24:\nkvm:x:104:\ntty:x:5:\nsomebody:x:1000:\nnogroup:x:65534:\n',
    'etc/nsswitch.conf': 'passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\nrpc: files\n',
    'etc/exports': '',
    'var/lib/nfs/etab': '',
    'var/lib/nfs/rmtab': '',
    'etc/hosts': '127.0.0.1 localhost storage.example\n::1 localhost6\n',
    # What watches volumes for filling up, and what checks thin pools before they are used, is not here; nor is a lasting disk.
    'etc/lvm/lvm.conf': 'activation { monitoring = 0 }\nglobal { thin_check_executable = "" }\nbackup { backup = 0\n archive = 0 }\n',
    'etc/multipath.conf': 'defaults {\nfind_multipaths no\nuser_friendly_names no\n}\n',
    # Who answers may take its time on a busy host; where nobody listens it need not be tried often.
    'etc/iscsi/iscsid.conf': 'node.startup = manual\nnode.session.initial_login_retry_max = 1\nnode.conn[0].timeo.login_timeout = 60\n'
                             'node.conn[0].timeo.noop_out_interval = 0\nnode.session.timeo.replacement_timeout = 120\n'
                             'node.session.cmds_max = 32\nnode.session.queue_depth = 8\ndiscovery.sendtargets.reopen_max = 1\n'
                             'discovery.sendtargets.timeo.login_timeout = 60\n',
    'etc/iscsi/initiatorname.iscsi': 'InitiatorName=iqn.2024-01.org.example:host\n',
}
START = '''export PATH=/sbin:/bin
modprobe -a virtio_pci virtio_rng virtio_net loop
mkdir -p /run/udev /run/lock /run/rpcbind /var/lib/nfs/sm /var/lib/nfs/v4recovery /srv
ln -s /run /var/run
mount -t tmpfs -o mode=1777 tmp /tmp
systemd-udevd --daemon --resolve-names=never --children-max=4
dmesg -n 1
ip link set lo up
ip address add 10.0.2.15/24 dev eth0
ip link set eth0 up
# The shell would take its own ones.
for name in mount umount losetup blkid; do eval "$name() {{ /bin/$name \\"\\$@\\"; }}"; done
socat TCP-LISTEN:{port},fork,reuseaddr,nodelay UNIX-CONNECT:/run/libvirt/virtstoraged-sock 2>/dev/null &'''
PORT = 16514


def _put_links(root):
    """All programs are in one folder, wherever they are looked for; so are libraries."""
    (root / 'lib' / 'udev' / 'rules.d').mkdir(parents=True)
    (root / 'usr').mkdir()
    for link, target in ('sbin', 'bin'), ('usr/bin', '../bin'), ('usr/sbin', '../bin'), ('usr/lib', '../lib'):
        (root / link).symlink_to(target)
    for name, links in LINKS.items():
        for link in links:
            (root / 'bin' / link).symlink_to(name)


def _put_modules(root):
    folder = f'lib/modules/{kernel()[1].name}'
    for name, data in module_files(MODULES).items():
        put(root, f'{folder}/kernel/{name}.ko', data)
    for path in kernel()[1].glob('modules.*'):
        if path.name in ('modules.order', 'modules.builtin', 'modules.builtin.modinfo'):
            put(root, f'{folder}/{path.name}', path.read_bytes())
    run(need('depmod'), '-b', root, kernel()[1].name)


def _fill(root):
    _put_links(root)
    _put_modules(root)
    helper = pathlib.Path('/lib/udev/scsi_id')
    programs = [pathlib.Path(need(name)) for name in PROGRAMS]
    for path in programs:
        put(root, f'bin/{path.name}', path.read_bytes(), 0o755)
    put(root, helper, helper.read_bytes(), 0o755)
    for library in {library for path in (*programs, helper, *PLUGINS) for library in libraries(path)}.union(PLUGINS):
        put(root, library, library.read_bytes(), 0o755)
    for name in RULES:
        put(root, f'lib/udev/rules.d/{name}.rules', pathlib.Path(f'/lib/udev/rules.d/{name}.rules').read_bytes())
    for name in 'netconfig', 'protocols', 'rpc', 'services':
        put(root, f'etc/{name}', pathlib.Path(f'/etc/{name}').read_bytes())
    for name, text in FILES.items():
        put(root, name, text.encode(), 0o600 if 'iscsi' in name else 0o644)


class PoolGuest(Machine, PoolServer):
    """
    do() runs a command in it, fails() one that must fail; connect() and virsh() are clients of its daemon. What a test
    has made beside pools and secrets it takes away itself.
    """

    log = '/tmp/poold.log'

    def __init__(self, folder):
        make_initramfs(folder, (), [pathlib.Path(program('ashlar-poold'))], START.format(port=PORT), fill=_fill)
        raw_image(folder / 'disk.img', 16 << 20)
        control = folder / 'qmp'
        super().__init__(folder, ['-device', 'virtio-scsi-pci,id=card', '-drive', f'if=none,id=disk,format=raw,file={folder}/disk.img',
                                  '-device', 'scsi-hd,drive=disk,bus=card.0', '-device', 'scsi-cd,id=drive,bus=card.0',
                                  '-netdev', f'user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:{PORT}',
                                  '-device', 'virtio-net-pci,netdev=net,romfile=', '-device', 'virtio-rng-pci', '-qmp', f'unix:{control},server=on,wait=off'],
                         memory='2G' if sanitized() else '1G')
        try:
            self.qmp = Qmp.connect(control)
            self.socket = folder / 'pool.sock'
            self.forwarder = self._forward()
            self.start_daemon()
        except BaseException:
            self.process.kill()
            raise

    def _forward(self):
        networks = self.qmp.command('human-monitor-command', command_line='info usernet')
        port = re.search(r'TCP\[HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)', networks)[1]
        forwarder = subprocess.Popen([need('socat'), f'UNIX-LISTEN:{self.socket},fork,backlog=64', f'TCP:127.0.0.1:{port},nodelay'],
                                     stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: listens(self.socket), 'the forwarded socket')
        return forwarder

    def uri(self, driver='storage'):
        return f'{driver}:///system?socket={self.socket}'

    # --- the daemon ---

    def start_daemon(self):
        self.do(f'ashlar-poold >>{self.log} 2>&1 & echo $! >/tmp/poold.pid')
        wait_for(self._answers, 'the pool daemon')

    def _answers(self):
        assert self.is_running(), f'the daemon has ended:\n{self.do("cat " + self.log)}'
        try:
            libvirt.open(self.uri()).close()
        except libvirt.libvirtError:
            return False
        return True

    def is_running(self):
        return self.do('[ -e /proc/$(cat /tmp/poold.pid)/exe ] && echo yes || true') == 'yes'

    def stop_daemon(self, signal='TERM'):
        """Its exit status."""
        status = int(self.do(f'p=$(cat /tmp/poold.pid); kill -{signal} $p; wait $p; echo $?').split()[-1])
        assert signal != 'TERM' or status == 0, f'the daemon ended with {status}:\n{self.do("cat " + self.log)}'
        return status

    def restart_daemon(self, signal='TERM'):
        """KILL: as if it had crashed."""
        self.stop_daemon(signal)
        self.start_daemon()

    def clean_up(self):
        """No pool and no secret is left for the next test; the daemon has survived this one."""
        assert self.is_running(), f'the daemon has ended:\n{self.do("cat " + self.log)}'
        connection = self.connect()
        for pool in connection.listAllStoragePools():
            try:
                if pool.isActive():
                    pool.destroy()
                pool.undefine()
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_POOL:  # a transient one that was stopped
                    raise
        connection.close()
        connection = self.connect('secret')
        for secret in connection.listAllSecrets():
            secret.undefine()
        connection.close()

    # --- the machine ---

    def fails(self, command):
        self.start(f'{command} 2>&1')
        found = self.expect(r'(?s)(.*?)status=(\d+)\n')
        assert found[2] != '0', found[1]
        return found[1]

    def wait(self, condition):
        """Until that command succeeds."""
        self.do(f'while ! {{ {condition}; }} >/dev/null 2>&1; do usleep 20000; done')

    def write(self, path, data):
        """A file of a few lines."""
        self.do(f"mkdir -p $(dirname {path}); printf '{data}' >{path}")

    def loop_device(self, name, mib):
        """A loop device on a file of that many MiB, /tmp/NAME."""
        return self.do(f'truncate -s {mib}M /tmp/{name} && losetup --find --show /tmp/{name}')

    def remove_loop_device(self, node, name):
        self.do(f'losetup --detach {node}; rm -f /tmp/{name}')

    def __exit__(self, *exception):
        try:
            if exception[0] is None:
                self.stop_daemon()
                assert 'Sanitizer' not in self.do(f'cat {self.log}'), self.do(f'cat {self.log}')
        finally:
            self.qmp.close()
            self.forwarder.kill()
            self.forwarder.wait()
            super().__exit__(*exception)
