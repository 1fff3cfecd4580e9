# SPDX-License-Identifier: LGPL-2.1-or-later
"""A virtual machine without a disk of its own: Debian's cloud kernel and a few programs in memory, emulated by QEMU."""
import lzma
import pathlib
import re
import subprocess
import threading

from harness import PATIENCE_S, run, wait_for

VIRTIO_DISK = ('virtio_ring', 'virtio', 'virtio_pci_modern_dev', 'virtio_pci_legacy_dev', 'virtio_pci', 'virtio_blk')
INIT = '''#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /run /tmp
mount -t tmpfs shm /dev/shm
for module in {modules}; do insmod /lib/modules/$module.ko; done
{start}
stty -echo
echo guest is up
while read -r line; do eval "$line"; echo "status=$?"; done
poweroff -f
'''
WAIT_FOR_DISK = 'while ! [ -e /dev/vda ]; do sleep 0.1; done'


def kernel():
    """The newest of the cloud kernels that are installed: its image and the folder of its modules."""
    images = sorted(pathlib.Path('/boot').glob('vmlinuz-*-cloud-amd64'))
    assert images, 'no package linux-image-*cloud-amd64 is installed'
    return images[-1], pathlib.Path('/lib/modules') / images[-1].name.removeprefix('vmlinuz-')


def module_files(names):
    """Name to contents of the modules and of what they need, in the order of loading; without what is in the kernel itself."""
    folder = kernel()[1]
    needs = {}
    for line in (folder / 'modules.dep').read_text().splitlines():
        path, _, needed = line.partition(':')
        needs[path] = needed.split()
    paths = {pathlib.Path(path).name.split('.')[0].replace('-', '_'): path for path in needs}
    found = {}

    def add(path):
        for other in reversed(needs[path]):
            add(other)
        data = (folder / path).read_bytes()
        found[pathlib.Path(path).name.split('.')[0]] = lzma.decompress(data) if path.endswith('.xz') else data
    for name in names:
        if name in paths:
            add(paths[name])
        else:
            assert f'/{name}.ko\n' in (folder / 'modules.builtin').read_text(), f'no module {name} in {folder}'
    return found


def libraries(program):
    """The shared libraries that a program loads."""
    return [pathlib.Path(path) for path in re.findall(r'(/\S+) \(0x', run('ldd', program, check=False).stdout)]


def put(root, path, data, mode=0o644):
    target = root / str(path).lstrip('/')
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    target.chmod(mode)


def make_initramfs(folder, modules=VIRTIO_DISK, programs=(), start=WAIT_FOR_DISK, libs=(), fill=None):
    """
    What the guest has: busybox, a shell that does what it is told over the serial line, and programs with their libraries, stripped;
    `libs`: libraries that something loads at run time. fill(folder) adds what else there is to be.
    """
    root = folder / 'initramfs'
    for name in 'bin', 'proc', 'sys', 'dev', 'tmp', 'run':
        (root / name).mkdir(parents=True)
    if fill:
        fill(root)
    put(root, 'bin/busybox', pathlib.Path('/bin/busybox').read_bytes(), 0o755)
    loaded = module_files(modules)
    for name, data in loaded.items():
        put(root, f'lib/modules/{name}.ko', data)
    for library in {library for program in (*programs, *libs) for library in libraries(program)} | set(libs):
        put(root, library, library.read_bytes(), 0o755)
    for program in programs:
        path = root / 'bin' / program.name
        run('strip', '-o', path, program)
        path.chmod(0o755)
    put(root, 'init', INIT.format(modules=' '.join(loaded), start=start).encode(), 0o755)
    archive = folder / 'initramfs.cpio'
    run('sh', '-c', f'cd {root} && find . | cpio -o -H newc --quiet > {archive}')
    return archive


class Machine:
    """
    A running machine; `devices` are further arguments for QEMU. Its kernel does not try whether the timer ticks, which it may not do
    in time on a busy host. `waits`: for another machine to migrate into it.
    """

    def __init__(self, folder, devices=(), memory='256M', waits=False):
        self.log_path = folder / 'guest.log'
        self.output = ''
        with open(self.log_path, 'wb') as log:
            self.process = subprocess.Popen(
                ['qemu-system-x86_64', '-nodefaults', '-nographic', '-serial', 'stdio', '-m', memory, '-smp', '2',
                 '-object', f'memory-backend-memfd,id=memory,size={memory},share=on', '-machine', 'q35,memory-backend=memory',
                 '-kernel', str(kernel()[0]), '-initrd', str(folder / 'initramfs.cpio'), '-append', 'console=ttyS0 quiet panic=-1 no_timer_check',
                 *devices], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        if not waits:
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
        self.start('poweroff -f')
        self.process.wait(timeout=PATIENCE_S)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stdin.close()
        self.process.stdout.close()


class Guest(Machine):
    """A running machine whose disk is at a vhost-user socket."""

    def __init__(self, folder, socket, device='', more=(), **kwargs):
        if not (folder / 'initramfs.cpio').exists():
            make_initramfs(folder)
        super().__init__(folder, ['-chardev', f'socket,id=disk,path={socket},reconnect=1', '-device',
                                  f'vhost-user-blk-pci,chardev=disk{device}', *more], **kwargs)
