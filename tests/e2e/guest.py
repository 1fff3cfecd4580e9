# SPDX-License-Identifier: LGPL-2.1-or-later
"""A virtual machine without a disk of its own: Debian's cloud kernel and a few programs in memory, emulated by QEMU."""
import pathlib
import re
import subprocess
import threading

from harness import PATIENCE_S, run, wait_for

MODULES = ('virtio_ring', 'virtio', 'virtio_pci_modern_dev', 'virtio_pci_legacy_dev', 'virtio_pci', 'virtio_blk')
INIT = '''#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in {modules}; do insmod /lib/$module.ko; done
while ! [ -e /dev/vda ]; do sleep 0.1; done
stty -echo
echo guest is up
while read -r line; do eval "$line"; echo "status=$?"; done
poweroff -f
'''


def kernel():
    """The newest of the cloud kernels that are installed: its image and the folder of its modules."""
    images = sorted(pathlib.Path('/boot').glob('vmlinuz-*-cloud-amd64'))
    assert images, 'the package linux-image-cloud-amd64 is not installed'
    return images[-1], pathlib.Path('/lib/modules') / images[-1].name.removeprefix('vmlinuz-')


def make_initramfs(folder, modules=MODULES):
    """The guest's programs: busybox, and a shell that does what it is told over the serial line."""
    root = folder / 'initramfs'
    for name in 'bin', 'lib', 'proc', 'sys', 'dev', 'tmp':
        (root / name).mkdir(parents=True)
    (root / 'bin' / 'busybox').write_bytes(pathlib.Path('/bin/busybox').read_bytes())
    (root / 'bin' / 'busybox').chmod(0o755)
    for module in modules:
        found, = kernel()[1].rglob(f'{module}.ko')
        (root / 'lib' / found.name).write_bytes(found.read_bytes())
    (root / 'init').write_text(INIT.format(modules=' '.join(modules)))
    (root / 'init').chmod(0o755)
    archive = folder / 'initramfs.cpio'
    run('sh', '-c', f'cd {root} && find . | cpio -o -H newc --quiet > {archive}')
    return archive


class Guest:
    """A running machine whose disk is at a vhost-user socket."""

    def __init__(self, folder, socket, device=''):
        archive = folder / 'initramfs.cpio'
        if not archive.exists():
            make_initramfs(folder)
        self.log_path = folder / 'guest.log'
        self.output = ''
        with open(self.log_path, 'wb') as log:
            self.process = subprocess.Popen(
                ['qemu-system-x86_64', '-nodefaults', '-nographic', '-serial', 'stdio', '-m', '256', '-smp', '2', '-no-reboot',
                 '-object', 'memory-backend-memfd,id=memory,size=256M,share=on', '-machine', 'q35,memory-backend=memory',
                 '-kernel', str(kernel()[0]), '-initrd', str(archive), '-append', 'console=ttyS0 quiet panic=-1', '-chardev',
                 f'socket,id=disk,path={socket},reconnect=1', '-device', f'vhost-user-blk-pci,chardev=disk{device}'],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.expect('guest is up\n')

    def _read(self):
        while True:
            data = self.process.stdout.read1(4096)
            if not data:
                return
            self.output += data.decode(errors='replace').replace('\r', '')

    def expect(self, pattern):
        """Waits until the guest has said it, and takes everything up to there."""
        def look():
            assert self.process.poll() is None, f'the machine ended: {self.output}{self.log_path.read_text()}'
            return re.search(pattern, self.output)
        try:
            found = wait_for(look, f'{pattern!r} from the guest', 4 * PATIENCE_S)
        except AssertionError as error:
            raise AssertionError(f'{error}\n{self.output}{self.log_path.read_text()}') from error
        self.output = self.output[found.end():]
        return found

    def start(self, command):
        self.process.stdin.write(f'{command}\n'.encode())
        self.process.stdin.flush()

    def finish(self):
        """The output of the command under way, which must succeed."""
        found = self.expect(r'(?s)(.*?)status=(\d+)\n')
        assert found[2] == '0', found[1]
        return found[1].strip()

    def do(self, command):
        self.start(command)
        return self.finish()

    def power_off(self):
        self.start('exit')
        self.process.wait(timeout=PATIENCE_S)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stdin.close()
        self.process.stdout.close()
