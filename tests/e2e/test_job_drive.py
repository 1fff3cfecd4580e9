# SPDX-License-Identifier: LGPL-2.1-or-later
"""drive-mirror, drive-backup, and the copy-on-read filter: what makes or opens images by itself."""
import json

import pytest
from harness import QmpError, need, run
from job_tools import MIB, SUCCESS, connect, content, more_writes, serve, stage, story, writing

SIZE = 16 * MIB


def qcow2(path, backing=None, *commands):
    run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', *(['-b', backing, '-F', 'qcow2'] if backing else []), path,
        *([] if backing else [SIZE]))
    if commands:
        run(need('qemu-io'), '-f', 'qcow2', *[word for command in commands for word in ('-c', command)], path)
    return path


def flat(tmp_path, image):
    run(need('qemu-img'), 'convert', '-U', '-O', 'raw', image, tmp_path / 'flat')
    return content(tmp_path / 'flat')


def info(path):
    return json.loads(run(need('qemu-img'), 'info', '--output=json', '-U', path).stdout)


@pytest.fixture
def disk(daemon, tmp_path):
    """A daemon with node 'top' on a chain of two."""
    qcow2(tmp_path / 'base', None, 'write -P 1 0 4M', 'write -P 2 8M 1M')
    qcow2(tmp_path / 'top', tmp_path / 'base', 'write -P 3 1M 1M', 'write -z 8M 64k')
    one = daemon()
    one.before = flat(tmp_path, tmp_path / 'top')
    one.qmp.command('blockdev-add', driver='qcow2', node_name='top',
                    file={'driver': 'file', 'filename': str(tmp_path / 'top')})
    return one


def expected(before, written):
    image = bytearray(before)
    for at, data in written.items():
        image[at:at + 4096] = data
    return bytes(image)


@pytest.mark.parametrize('sync, backing', [('full', None), ('top', 'base'), ('none', 'top')])
def test_drive_mirror(disk, tmp_path, sync, backing):
    uri = serve(disk.qmp, tmp_path / 'nbd', 'top')
    with writing(uri, SIZE) as written:
        disk.qmp.command('drive-mirror', job_id='j', device='top', target=str(tmp_path / 'copy'), sync=sync,
                         node_name='copy')
        stage(disk.qmp, 'j', 'ready')
        disk.qmp.command('job-complete', id='j')
        stage(disk.qmp, 'j', 'null')
        more_writes(written, 20)
    disk.qmp.command('block-export-del', id='exp', mode='hard')
    disk.stop()
    assert flat(tmp_path, tmp_path / 'copy') == expected(disk.before, written)
    assert (info(tmp_path / 'copy').get('backing-filename') or '').endswith(backing or '')
    assert info(tmp_path / 'copy')['format'] == 'qcow2'
    run(need('qemu-img'), 'check', '-q', tmp_path / 'copy')


def test_drive_mirror_existing_raw(disk, tmp_path):
    with open(tmp_path / 'raw', 'wb') as image:
        image.truncate(SIZE)
    disk.qmp.command('drive-mirror', job_id='j', device='top', target=str(tmp_path / 'raw'), sync='full',
                     mode='existing', format='raw')
    stage(disk.qmp, 'j', 'ready')
    disk.qmp.command('block-job-cancel', device='j')
    stage(disk.qmp, 'j', 'null')
    assert content(tmp_path / 'raw') == disk.before


@pytest.mark.parametrize('sync', ['full', 'top'])
@pytest.mark.parametrize('compress', [False, True])
def test_drive_backup(disk, tmp_path, sync, compress):
    disk.qmp.command('drive-backup', job_id='j', device='top', target=str(tmp_path / 'copy'), sync=sync,
                     compress=compress)
    assert story(disk.qmp, 'j') == SUCCESS
    assert flat(tmp_path, tmp_path / 'copy') == disk.before
    assert bool(info(tmp_path / 'copy').get('backing-filename')) == (sync == 'top')
    run(need('qemu-img'), 'check', '-q', tmp_path / 'copy')


def test_drive_backup_none(disk, tmp_path):
    """The copy stands on the disk, and shows what was there when the job began."""
    handle = connect(serve(disk.qmp, tmp_path / 'nbd', 'top'))
    disk.qmp.command('drive-backup', job_id='j', device='top', target=str(tmp_path / 'copy'), sync='none')
    handle.pwrite(b'new!' * 1024, 4096)
    handle.shutdown()
    disk.qmp.command('block-job-cancel', device='j')
    stage(disk.qmp, 'j', 'null')
    disk.qmp.command('block-export-del', id='exp', mode='hard')
    disk.stop()
    assert flat(tmp_path, tmp_path / 'copy') == disk.before


def test_transaction_of_drive_backups(disk, tmp_path):
    actions = [{'type': 'drive-backup', 'data': {'job-id': f'j{number}', 'device': 'top', 'sync': 'full',
                                                 'target': str(tmp_path / f'copy{number}')}} for number in range(2)]
    with pytest.raises(QmpError, match='Abort action'):
        disk.qmp.command('transaction', actions=actions + [{'type': 'abort', 'data': {}}],
                         properties={'completion-mode': 'grouped'})
    assert story(disk.qmp, 'j1') == ['created', 'aborting', 'concluded', 'null']
    disk.qmp.command('transaction', actions=actions, properties={'completion-mode': 'grouped'})
    stage(disk.qmp, 'j0', 'null')
    stage(disk.qmp, 'j1', 'null')
    for number in range(2):
        assert flat(tmp_path, tmp_path / f'copy{number}') == disk.before


@pytest.mark.parametrize('sync', ['incremental', 'bitmap'])
def test_drive_mirror_knows_no_bitmap(disk, tmp_path, sync):
    """As the peer says; and no image is made."""
    with pytest.raises(QmpError) as failure:
        disk.qmp.command('drive-mirror', job_id='j', device='top', target=str(tmp_path / 'copy'), sync=sync)
    assert failure.value.desc == f"Sync mode '{sync}' not supported"
    assert not (tmp_path / 'copy').exists()


def test_drive_mirror_replacing_needs_a_name(disk, tmp_path):
    """What takes the place of a named node has a name; and no image is made without one."""
    with pytest.raises(QmpError, match='a node-name must be provided when replacing a named node of the graph'):
        disk.qmp.command('drive-mirror', job_id='j', device='top', target=str(tmp_path / 'copy'), sync='full',
                         replaces='top')
    assert not (tmp_path / 'copy').exists()


@pytest.mark.parametrize('command', ['drive-mirror', 'drive-backup'])
def test_format_is_that_of_the_file(disk, tmp_path, command):
    """'file' is no format, but makes an image without one."""
    disk.qmp.command(command, job_id='j', device='top', target=str(tmp_path / 'copy'), sync='full', format='file',
                     auto_dismiss=False)
    if command == 'drive-mirror':
        stage(disk.qmp, 'j', 'ready')
        disk.qmp.command('job-complete', id='j')
    stage(disk.qmp, 'j', 'concluded')
    assert content(tmp_path / 'copy') == disk.before


@pytest.mark.parametrize('command', ['drive-mirror', 'drive-backup'])
@pytest.mark.parametrize('options, message', [
    ({'device': 'no'}, "Cannot find device='no' nor node-name='no'"),
    ({'format': 'bogus'}, "Unknown file format 'bogus'"),
    ({'format': 'bogus', 'mode': 'existing'}, "Unknown driver 'bogus'"),
    ({'format': 'null-co'}, "Format driver 'null-co' does not support image creation"),
    ({'format': 'raw', 'sync': 'none'}, "Backing file not supported for file format 'raw'"),
    ({'target': '/nonexistent/x'}, 'No such file or directory'),
    ({'target': '/nonexistent/x', 'mode': 'existing'}, 'No such file or directory'),
    ({'speed': -1}, "Parameter 'speed' expects a non-negative value"),
    ({'job_id': '?'}, "Invalid job ID '?'"),
])
def test_refusals(disk, tmp_path, command, options, message):
    with pytest.raises(QmpError) as failure:
        disk.qmp.command(command, **{'job_id': 'j', 'device': 'top', 'target': str(tmp_path / 'copy'), 'sync': 'full',
                                     **options})
    assert message in failure.value.desc
    assert disk.qmp.command('query-jobs') == []
    disk.qmp.command('blockdev-del', node_name='top')
    assert disk.qmp.command('query-named-block-nodes') == []


@pytest.mark.parametrize('bottom', [False, True])
def test_copy_on_read(disk, tmp_path, bottom):
    """What a client reads is in the image afterwards; but not what lies below the bottom."""
    if bottom:
        qcow2(tmp_path / 'upper', tmp_path / 'top')
        disk.qmp.command('blockdev-add', driver='qcow2', node_name='upper', backing='top',
                         file={'driver': 'file', 'filename': str(tmp_path / 'upper')})
    image = 'upper' if bottom else 'top'
    before = flat(tmp_path, tmp_path / image)
    disk.qmp.command('blockdev-add', driver='copy-on-read', node_name='cor', file=image,
                     **({'bottom': 'top'} if bottom else {}))
    uri = serve(disk.qmp, tmp_path / 'nbd', 'cor')
    with writing(uri, SIZE) as written:
        handle = connect(uri)
        for at in range(0, SIZE, MIB):
            handle.pread(MIB, at)
        handle.shutdown()
    disk.qmp.command('block-export-del', id='exp', mode='hard')
    disk.stop()
    assert flat(tmp_path, tmp_path / image) == expected(before, written)
    layers = json.loads(run(need('qemu-img'), 'map', '--output=json', tmp_path / image).stdout)
    depths = {extent['depth'] for extent in layers if extent['present'] and not extent['zero']}
    assert depths == ({0, 2} if bottom else {0})


def test_blockdev_change(disk):
    for arguments, message in [({'child': 'x', 'node': 'y'}, 'The parameters child and node are in conflict'),
                               ({}, 'Either child or node must be specified'),
                               ({'child': 'children.1'}, "Node 'top' does not have child 'children.1'"),
                               ({'node': 'top'}, 'The node top does not support adding a child')]:
        with pytest.raises(QmpError) as failure:
            disk.qmp.command('x-blockdev-change', parent='top', **arguments)
        assert message in failure.value.desc
