# SPDX-License-Identifier: LGPL-2.1-or-later
"""What dirty bitmaps have marked when a job or a change of the graph is over, and a guest has written since: as the
peer has it. Bitmaps stay with their node, wherever its users go; what a stream copies changes nothing that they show."""
import pytest
from harness import need, run
from job_tools import MIB, connect, serve, stage

SIZE = 4 * MIB
CLUSTER = 65536
LAYERS = 4
DISK = ('n3', 'n1', 'n0', 'o')  # that have bitmaps: the guest's image, two below, and the target of copies


def make_images(folder):
    for layer in range(LAYERS):
        backing = ['-b', f'n{layer - 1}', '-F', 'qcow2'] if layer else []
        run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', *backing, folder / f'n{layer}', *([] if layer else [SIZE]))
        run(need('qemu-io'), '-f', 'qcow2', '-c', f'write -P {layer + 1} {layer * MIB} 1M', folder / f'n{layer}')
    for name in ('o', 'over'):
        run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', folder / name, SIZE)


def add_image(qmp, folder, name, backing=None):
    qmp.command('blockdev-add', driver='qcow2', node_name=name, backing=backing,
                file={'driver': 'file', 'filename': str(folder / name)})


def bitmaps(qmp):
    return {node['node-name']: {bitmap['name']: bitmap for bitmap in node['dirty-bitmaps']}
            for node in qmp.command('query-named-block-nodes') if 'dirty-bitmaps' in node}


def counts(qmp, name):
    """In clusters, of each node's bitmap of that name."""
    return tuple(bitmaps(qmp)[node][name]['count'] // CLUSTER for node in DISK)


def run_job(qmp, command, arguments, last):
    qmp.command(command, job_id='j', **arguments)
    while True:
        status = qmp.event('JOB_STATUS_CHANGE')['data']['status']
        if status == 'ready':
            qmp.command(last, device='j')
        if status == 'null':
            break
        assert status != 'aborting'


# Each: a command, and what is marked afterwards in the node of the guest, two images below it, and the target.
STREAM, COMMIT, MIRROR, BACKUP = 'block-stream', 'block-commit', 'blockdev-mirror', 'blockdev-backup'
COPY = {'device': 'n3', 'target': 'o'}
SCENES = {
    'stream': (STREAM, {'device': 'n3'}, (3, 0, 0, 0)),
    'stream-base': (STREAM, {'device': 'n3', 'base_node': 'n1'}, (3, 0, 0, 0)),
    'stream-below': (STREAM, {'device': 'n1'}, (3, 0, 0, 0)),
    'commit': (COMMIT, {'device': 'n3'}, (1, 0, 49, 0)),
    'commit-below': (COMMIT, {'device': 'n3', 'top_node': 'n1', 'base_node': 'n0'}, (3, 0, 16, 0)),
    'mirror': (MIRROR, {**COPY, 'sync': 'full'}, (1, 0, 0, 64)),
    'mirror-let-go': (MIRROR, {**COPY, 'sync': 'full'}, (3, 0, 0, 64)),
    'mirror-active': (MIRROR, {**COPY, 'sync': 'top', 'copy_mode': 'write-blocking'}, (1, 0, 0, 19)),
    'backup': (BACKUP, {**COPY, 'sync': 'full'}, (3, 0, 0, 64)),
}
# The bitmap that a backup uses, and what its own and the others of the node have marked.
BACKUPS = {
    'incremental': ({'sync': 'incremental', 'bitmap': 'b'}, 2, {'p': 3}, 1),
    'incremental-stored': ({'sync': 'incremental', 'bitmap': 'p'}, 2, {'b': 3}, 1),
    'disabled': ({'sync': 'bitmap', 'bitmap': 'd', 'bitmap_mode': 'always'}, 0, {'b': 3, 'p': 3}, 0),
    'never': ({'sync': 'bitmap', 'bitmap': 'b', 'bitmap_mode': 'never'}, 3, {'p': 3}, 1),
    'top': ({'sync': 'top', 'bitmap': 'b', 'bitmap_mode': 'always'}, 2, {'p': 3}, 17),
    'full': ({'sync': 'full', 'bitmap': 'b', 'bitmap_mode': 'on-success'}, 2, {'p': 3}, 64),
}


class Scene:
    def __init__(self, one, folder):
        self.one, self.qmp, self.folder = one, one.qmp, folder
        make_images(folder)
        for layer in range(LAYERS):
            add_image(self.qmp, folder, f'n{layer}', f'n{layer - 1}' if layer else None)
        for name in ('o', 'over'):
            add_image(self.qmp, folder, name)
        for node in DISK:
            for name, options in (('b', {}), ('p', {'persistent': True}), ('d', {'disabled': True})):
                self.qmp.command('block-dirty-bitmap-add', node=node, name=name, granularity=CLUSTER, **options)
        self.guest = connect(serve(self.qmp, folder / 'nbd', 'n3'))
        self.guest.pwrite(b'a' * CLUSTER, 0)

    def write(self):
        self.guest.pwrite(b'b' * CLUSTER, MIB)
        self.guest.zero(CLUSTER, 2 * MIB)

    def check_stored(self):
        """The persistent ones are the same once the images have been closed and opened, and those alone are left."""
        before = counts(self.qmp, 'p')
        self.guest.shutdown()
        self.one.stop()
        for node in DISK:
            sizes = run(need('qemu-img'), 'info', '--output=json', self.folder / node).stdout
            assert '"name": "p"' in sizes
            assert '"in-use"' not in sizes
        return before


@pytest.fixture
def scene(daemon, tmp_path):
    return Scene(daemon(), tmp_path)


@pytest.fixture
def again(daemon, tmp_path):
    """Another daemon with the images: what is marked in each."""
    def open_again():
        qmp = daemon().qmp
        for layer in range(LAYERS):
            add_image(qmp, tmp_path, f'n{layer}', f'n{layer - 1}' if layer else None)
        add_image(qmp, tmp_path, 'o')
        assert all(list(found) == ['p'] and found['p']['recording'] for found in bitmaps(qmp).values())
        return counts(qmp, 'p')
    return open_again


@pytest.mark.parametrize('name', SCENES)
def test_job(scene, again, name):
    command, arguments, after = SCENES[name]
    run_job(scene.qmp, command, arguments, 'block-job-cancel' if name == 'mirror-let-go' else 'block-job-complete')
    scene.write()
    assert counts(scene.qmp, 'b') == after
    assert counts(scene.qmp, 'p') == after
    assert counts(scene.qmp, 'd') == (0, 0, 0, 0)
    assert scene.check_stored() == again()


@pytest.mark.parametrize('name', BACKUPS)
def test_backup_with_a_bitmap(scene, again, name):
    """While it is pending the bitmap is busy, and shows what it had; what is written then goes to its successor."""
    options, own, others, copied = BACKUPS[name]
    used = options['bitmap']
    scene.qmp.command('blockdev-backup', job_id='j', auto_finalize=False, **COPY, **options)
    stage(scene.qmp, 'j', 'pending')
    scene.write()
    assert [bitmap['busy'] for bitmap in bitmaps(scene.qmp)['n3'].values() if bitmap['name'] == used] == [True]
    scene.qmp.command('job-finalize', id='j')
    stage(scene.qmp, 'j', 'null')
    shown = bitmaps(scene.qmp)['n3']
    assert not any(bitmap['busy'] for bitmap in shown.values())
    assert {bitmap: shown[bitmap]['count'] // CLUSTER for bitmap in (used, *others)} == {used: own, **others}
    assert [shown[bitmap]['recording'] for bitmap in ('b', 'p', 'd')] == [True, True, False]
    assert counts(scene.qmp, 'p')[3] == copied
    assert scene.check_stored() == again()


def test_snapshots(scene, again):
    """Those of the disk stay below, as they were; a snapshot inside the image changes nothing."""
    scene.qmp.command('blockdev-snapshot-internal-sync', device='n3', name='s')
    scene.qmp.command('blockdev-snapshot', node='n3', overlay='over')
    scene.write()
    assert counts(scene.qmp, 'b') == counts(scene.qmp, 'p') == (1, 0, 0, 0)
    assert 'over' not in bitmaps(scene.qmp)
    assert scene.check_stored() == again()


def test_resize(scene, again):
    """What is new is clean; what is cut off is forgotten."""
    scene.qmp.command('block_resize', node_name='n3', size=2 * SIZE)
    scene.write()
    scene.guest.shutdown()
    scene.guest = connect(f'nbd+unix:///x?socket={scene.folder}/nbd')
    scene.guest.pwrite(b'c' * CLUSTER, 2 * SIZE - CLUSTER)
    assert counts(scene.qmp, 'b') == counts(scene.qmp, 'p') == (4, 0, 0, 0)
    scene.qmp.command('block_resize', node_name='n3', size=2 * MIB)
    assert counts(scene.qmp, 'b') == counts(scene.qmp, 'p') == (2, 0, 0, 0)
    assert scene.check_stored() == again()


def test_replaced_by_a_mirror(scene, again):
    """A mirror that replaces an image below the guest's: each bitmap stays with its image."""
    scene.qmp.command('blockdev-add', driver='copy-on-read', node_name='filter', file='n3')
    scene.guest.shutdown()
    scene.qmp.command('block-export-del', id='exp', mode='hard')
    scene.qmp.event('BLOCK_EXPORT_DELETED')
    scene.qmp.command('block-export-add', type='nbd', id='exp', node_name='filter', name='x', writable=True)
    scene.guest = connect(f'nbd+unix:///x?socket={scene.folder}/nbd')
    run_job(scene.qmp, MIRROR, {'device': 'filter', 'target': 'o', 'sync': 'full', 'replaces': 'n3'},
            'block-job-complete')
    scene.write()
    assert counts(scene.qmp, 'b') == counts(scene.qmp, 'p') == (1, 0, 0, 64)
    assert scene.check_stored() == again()
