# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who else may use the nodes of a job, and what they may not do with them: writers, readers, snapshots, other jobs."""
import pytest
from harness import QmpError, need, run
from job_tools import MIB, add_file, connect, content, more_writes, random_image, raw_image, serve, stage, writing
from test_job_chain import SIZE, chain_of, expected, flat, make_chain, open_chain


def node_of_export(qmp, name):
    return next(one['node-name'] for one in qmp.command('query-block-exports') if one['id'] == name)


def write(uri, data, at):
    handle = connect(uri)
    handle.pwrite(data, at)
    handle.shutdown()


def read(uri, at):
    handle = connect(uri)
    data = bytes(handle.pread(4096, at))
    handle.shutdown()
    return data


def join(one, path, node, name, writable):
    """Another export of the node, on the server that runs already; its URI."""
    one.qmp.command('block-export-add', type='nbd', id=name, node_name=node, name=name, writable=writable)
    return f'nbd+unix:///{name}?socket={path}'


@pytest.mark.parametrize('mode', ['background', 'write-blocking'])
def test_writers_past_the_filter_of_a_mirror(daemon, tmp_path, mode):
    """They come to the source itself while the mirror runs. What they write is copied, and they go to the copy, too."""
    one = daemon()
    before = random_image(tmp_path / 'src', SIZE, (0, 2 * MIB))
    raw_image(tmp_path / 'dst', SIZE)
    add_file(one.qmp, 'src', tmp_path / 'src')
    add_file(one.qmp, 'dst', tmp_path / 'dst')
    early = serve(one.qmp, tmp_path / 'nbd', 'src')
    one.qmp.command('blockdev-mirror', job_id='j', device='src', target='dst', sync='full', copy_mode=mode)
    stage(one.qmp, 'j', 'ready')
    late = join(one, tmp_path / 'nbd', 'src', 'late', True)
    reader = join(one, tmp_path / 'nbd', 'src', 'reader', False)
    with writing(early, SIZE // 2) as first, writing(late, SIZE // 2, seed=8) as second:
        handle = connect(late)
        for step in range(100):
            handle.pwrite(bytes([step + 1]) * 4096, SIZE // 2 + step * 65536)
        one.qmp.command('job-complete', id='j')
        stage(one.qmp, 'j', 'null')
        assert [node_of_export(one.qmp, name) for name in ('exp', 'late', 'reader')] == ['dst'] * 3
        handle.shutdown()
    image = bytearray(before)
    for step in range(100):
        at = SIZE // 2 + step * 65536
        image[at:at + 4096] = bytes([step + 1]) * 4096
    after = content(tmp_path / 'dst')
    assert after[SIZE // 2:] == bytes(image)[SIZE // 2:]
    # Two clients that race have no order between them; each place has what one of them wrote.
    for at in range(0, SIZE // 2, 4096):
        allowed = [written[at] for written in (first, second) if at in written] or [before[at:at + 4096]]
        assert after[at:at + 4096] in allowed
    assert read(reader, SIZE // 2) == bytes([1]) * 4096


def test_writers_past_the_filter_of_a_commit(daemon, tmp_path):
    before = make_chain(tmp_path, 2)
    one = daemon()
    open_chain(one.qmp, tmp_path, 2)
    early = serve(one.qmp, tmp_path / 'nbd', 'n1')
    one.qmp.command('block-commit', job_id='j', device='n1')
    stage(one.qmp, 'j', 'ready')
    late = join(one, tmp_path / 'nbd', 'n1', 'late', True)
    write(late, b'late' * 1024, MIB)
    write(early, b'soon' * 1024, 3 * MIB)
    one.qmp.command('job-complete', id='j')
    stage(one.qmp, 'j', 'null')
    assert node_of_export(one.qmp, 'late') == 'n0'
    write(late, b'last' * 1024, 5 * MIB)
    one.stop()
    assert flat(tmp_path, tmp_path / 'i0') == expected(before, {MIB: b'late' * 1024, 3 * MIB: b'soon' * 1024,
                                                                5 * MIB: b'last' * 1024})


def test_writers_past_the_filter_of_a_stream(daemon, tmp_path):
    """They come to the image itself while the stream runs; nothing that they write is lost."""
    before = make_chain(tmp_path, 3)
    one = daemon()
    open_chain(one.qmp, tmp_path, 3)
    early = serve(one.qmp, tmp_path / 'nbd', 'n2')
    # What they write is all over one half each, and less than what is copied as one.
    with writing(early, SIZE // 2, block=2048) as first:
        one.qmp.command('block-stream', job_id='j', device='n2', filter_node_name='f', speed=256 * 1024)
        late = join(one, tmp_path / 'nbd', 'n2', 'late', True)
        with writing(late, SIZE, block=2048, seed=8, start=SIZE // 2) as second:
            more_writes(second, 100)
            one.qmp.command('block-job-set-speed', device='j', speed=0)
            stage(one.qmp, 'j', 'null')
            more_writes(second, 20)
        assert [node_of_export(one.qmp, name) for name in ('exp', 'late')] == ['n2'] * 2
    one.stop()
    image = bytearray(before)
    for at, data in [*first.items(), *second.items()]:
        image[at:at + len(data)] = data
    assert flat(tmp_path, tmp_path / 'i2') == bytes(image)
    run(need('qemu-img'), 'check', '-q', tmp_path / 'i2')


JOBS = {
    'mirror': ('blockdev-mirror', {'device': 'n2', 'target': 'other', 'sync': 'full'}, ['n2', 'other'], []),
    'backup': ('blockdev-backup', {'device': 'n2', 'target': 'other', 'sync': 'none'}, ['other'], []),
    'commit': ('block-commit', {'device': 'n2'}, ['n2', 'n1', 'n0'], []),
    'stream': ('block-stream', {'device': 'n2', 'base_node': 'n0', 'speed': 1}, ['n2', 'n1'], ['n0']),
}


def attempts(tmp_path, node):
    """What nobody may do with a node that a job counts on."""
    yield 'blockdev-snapshot', {'node': node, 'overlay': 'ov'}
    yield 'blockdev-snapshot-sync', {'node_name': node, 'snapshot_file': str(tmp_path / 'no')}
    yield 'blockdev-snapshot-internal-sync', {'device': node, 'name': 's'}
    yield 'blockdev-backup', {'job_id': 'k', 'device': node, 'target': 'ov', 'sync': 'full'}
    yield 'blockdev-backup', {'job_id': 'k', 'device': 'ov', 'target': node, 'sync': 'full'}
    yield 'blockdev-mirror', {'job_id': 'k', 'device': node, 'target': 'ov', 'sync': 'full'}
    yield 'blockdev-mirror', {'job_id': 'k', 'device': 'ov', 'target': node, 'sync': 'full'}
    yield 'block-stream', {'job_id': 'k', 'device': node}


@pytest.mark.parametrize('job', JOBS)
def test_occupied_nodes(daemon, tmp_path, job):
    """They are refused with the job's kind, change nothing, and are possible once the job is gone."""
    command, options, busy, free = JOBS[job]
    before = make_chain(tmp_path, 3)
    one = daemon()
    open_chain(one.qmp, tmp_path, 3)
    for name in ('other', 'ov'):
        run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', tmp_path / name, SIZE)
        one.qmp.command('blockdev-add', driver='qcow2', node_name=name,
                        file={'driver': 'file', 'filename': str(tmp_path / name)}, backing=None)
    one.qmp.command(command, job_id='j', auto_dismiss=False, auto_finalize=False, **options)
    for node in busy:
        for name, arguments in attempts(tmp_path, node):
            with pytest.raises(QmpError) as failure:
                one.qmp.command(name, **arguments)
            assert f"Node '{node}' is busy: block device is in use by block job: {job}" in failure.value.desc, name
        with pytest.raises(QmpError, match=f'Node {node} is in use: by block job'):
            one.qmp.command('blockdev-del', node_name=node)
    assert [info['id'] for info in one.qmp.command('query-jobs')] == ['j']
    assert chain_of(one.qmp, 'n2') == ['n2', 'n1', 'n0']
    for node in free:
        one.qmp.command('block-dirty-bitmap-add', node=node, name='b')
    one.qmp.command('job-cancel', id='j')
    stage(one.qmp, 'j', 'concluded')
    one.qmp.command('job-dismiss', id='j')
    one.qmp.command('blockdev-snapshot', node=busy[0], overlay='ov')
    one.stop()
    assert flat(tmp_path, tmp_path / 'i2') == before


def test_reopen_leaves_the_chain_of_a_job(daemon, tmp_path):
    make_chain(tmp_path, 3)
    one = daemon()
    open_chain(one.qmp, tmp_path, 3)
    one.qmp.command('block-commit', job_id='j', device='n2')
    options = {'driver': 'qcow2', 'node-name': 'n1', 'file': {'driver': 'file', 'filename': str(tmp_path / 'i1')}}
    for backing in (None, 'n2'):
        with pytest.raises(QmpError, match="Node 'n1' is busy: block device is in use by block job: commit"):
            one.qmp.command('blockdev-reopen', options=[{**options, 'backing': backing}])
    one.qmp.command('blockdev-reopen', options=[{**options, 'backing': 'n0', 'read-only': True}])


@pytest.mark.parametrize('options, message', [
    ({'x_perf': {'max-chunk': 4096}}, 'is less than backup cluster size'),
    ({'filter_node_name': 'src'}, "Duplicate nodes with node-name='src'"),
])
def test_a_target_file_of_no_job_is_closed(daemon, tmp_path, options, message):
    one = daemon()
    random_image(tmp_path / 'src', MIB, (0, 65536))
    add_file(one.qmp, 'src', tmp_path / 'src')
    with pytest.raises(QmpError, match=message):
        one.qmp.command('drive-backup', job_id='j', device='src', target=str(tmp_path / 'dst'), format='raw',
                        sync='full', **options)
    assert [node['node-name'] for node in one.qmp.command('query-named-block-nodes')] == ['src']
