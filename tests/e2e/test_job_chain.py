# SPDX-License-Identifier: LGPL-2.1-or-later
"""block-stream and block-commit: data moves up or down a chain, and what a client reads stays the same all the time."""
import json

import pytest
from harness import QmpError, need, run
from job_tools import MIB, connect, content, serve, stage, story, writing

SIZE = 16 * MIB


def make_chain(tmp_path, count):
    """Overlays i0 (lowest) to i<count-1>, each with writes of its own; the content as the peer sees it."""
    for number in range(count):
        path = tmp_path / f'i{number}'
        backing = ['-b', tmp_path / f'i{number - 1}', '-F', 'qcow2'] if number else []
        run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', *backing, path, *([] if number else [SIZE]))
        commands = []
        for at in range(8):
            commands += ['-c', f'write -P {number * 16 + at + 1} {at * 2 * MIB + number * 192 * 1024} 256k']
        commands += ['-c', f'write -z {10 * MIB + number * MIB} 512k']
        run(need('qemu-io'), '-f', 'qcow2', *commands, path)
    return flat(tmp_path, tmp_path / f'i{count - 1}')


def flat(tmp_path, image):
    run(need('qemu-img'), 'convert', '-U', '-O', 'raw', image, tmp_path / 'flat')
    return content(tmp_path / 'flat')


def info(path):
    return json.loads(run(need('qemu-img'), 'info', '--output=json', '-U', path).stdout)


def open_chain(qmp, tmp_path, count):
    """All as nodes n0 to n<count-1>."""
    for number in range(count):
        qmp.command('blockdev-add', driver='qcow2', node_name=f'n{number}',
                    file={'driver': 'file', 'filename': str(tmp_path / f'i{number}')},
                    backing=f'n{number - 1}' if number else None)


def chain_of(qmp, top):
    """The names of the chain's nodes, by its backing edges and filters."""
    graph = qmp.command('x-debug-query-block-graph')
    names = {node['id']: node['name'] for node in graph['nodes']}
    below = {}
    for edge in graph['edges']:
        if edge['name'] == 'backing':
            below[names[edge['parent']]] = names[edge['child']]
    found = [top]
    while found[-1] in below:
        found.append(below[found[-1]])
    return found


def expected(before, written):
    image = bytearray(before)
    for at, data in written.items():
        image[at:at + 4096] = data
    return bytes(image)


STREAMS = [({}, ['n3']), ({'base_node': 'n0'}, ['n3', 'n0']), ({'bottom': 'n2'}, ['n3', 'n1', 'n0']),
           ({'base_node': 'n2'}, ['n3', 'n2', 'n1', 'n0'])]


@pytest.mark.parametrize('options, after', STREAMS, ids=['all', 'base-node', 'bottom', 'nothing'])
def test_stream_under_writes(daemon, tmp_path, options, after):
    before = make_chain(tmp_path, 4)
    one = daemon()
    open_chain(one.qmp, tmp_path, 4)
    one.qmp.command('object-add', qom_type='iothread', id='t')
    uri = serve(one.qmp, tmp_path / 'nbd', 'n3', iothread='t')
    with writing(uri, SIZE) as written:
        one.qmp.command('block-stream', job_id='j', device='n3', **options)
        assert story(one.qmp, 'j')[-4:] == ['pending', 'COMPLETED', 'concluded', 'null']
        assert chain_of(one.qmp, 'n3') == after
    one.stop()
    assert flat(tmp_path, tmp_path / 'i3') == expected(before, written)
    backing = info(tmp_path / 'i3').get('backing-filename')
    assert backing is None if len(after) == 1 else backing.endswith('i' + after[1][1])
    run(need('qemu-img'), 'check', '-q', tmp_path / 'i3')


def test_stream_in_the_middle(daemon, tmp_path):
    """The image that gets the data is itself a backing image, and was opened for reading."""
    before = make_chain(tmp_path, 4)
    one = daemon()
    one.qmp.command('blockdev-add', driver='qcow2', node_name='n3',
                    file={'driver': 'file', 'filename': str(tmp_path / 'i3')},
                    backing={'driver': 'qcow2', 'node-name': 'n2',
                             'file': {'driver': 'file', 'filename': str(tmp_path / 'i2')},
                             'backing': {'driver': 'qcow2', 'node-name': 'n1',
                                         'file': {'driver': 'file', 'filename': str(tmp_path / 'i1')}}})
    uri = serve(one.qmp, tmp_path / 'nbd', 'n3')
    with writing(uri, SIZE) as written:
        one.qmp.command('block-stream', job_id='j', device='n2', filter_node_name='f')
        stage(one.qmp, 'j', 'null')
        assert chain_of(one.qmp, 'n3') == ['n3', 'n2']
    assert {node['node-name']: node['ro'] for node in one.qmp.command('query-named-block-nodes')}['n2']
    one.stop()
    assert flat(tmp_path, tmp_path / 'i3') == expected(before, written)
    assert 'backing-filename' not in info(tmp_path / 'i2')


def test_stream_cancelled(daemon, tmp_path):
    before = make_chain(tmp_path, 3)
    one = daemon()
    open_chain(one.qmp, tmp_path, 3)
    one.qmp.command('block-stream', job_id='j', device='n2', speed=1)
    assert 'copy-on-read' in [node['drv'] for node in one.qmp.command('query-named-block-nodes')]
    one.qmp.command('job-pause', id='j')
    one.qmp.command('job-cancel', id='j')
    stage(one.qmp, 'j', 'null')
    assert chain_of(one.qmp, 'n2') == ['n2', 'n1', 'n0']
    one.stop()
    assert flat(tmp_path, tmp_path / 'i2') == before


def test_commit_intermediate_under_writes(daemon, tmp_path):
    before = make_chain(tmp_path, 4)
    one = daemon()
    open_chain(one.qmp, tmp_path, 4)
    uri = serve(one.qmp, tmp_path / 'nbd', 'n3')
    with writing(uri, SIZE) as written:
        one.qmp.command('block-commit', job_id='j', device='n3', top_node='n2', base_node='n0')
        assert story(one.qmp, 'j') == ['created', 'running', 'waiting', 'pending', 'COMPLETED', 'concluded', 'null']
        assert chain_of(one.qmp, 'n3') == ['n3', 'n0']
        one.qmp.command('blockdev-del', node_name='n2')
    one.stop()
    assert flat(tmp_path, tmp_path / 'i3') == expected(before, written)
    assert info(tmp_path / 'i3')['backing-filename'].endswith('i0')
    run(need('qemu-img'), 'check', '-q', tmp_path / 'i0')


@pytest.mark.parametrize('command, options', [
    ('block-commit', {'device': 'n2', 'top_node': 'n1'}), ('block-commit', {'device': 'n2'}),
    ('blockdev-mirror', {'device': 'n2', 'target': 'copy', 'sync': 'top'}),
    ('blockdev-backup', {'device': 'n1', 'target': 'copy', 'sync': 'full'})], ids=['middle', 'active', 'mirror', 'backup'])
def test_filters_are_called_as_what_they_show(daemon, tmp_path, command, options):
    """Names of images stay as they are while a job has a node of its own between them."""
    make_chain(tmp_path, 3)
    one = daemon()
    open_chain(one.qmp, tmp_path, 3)
    one.qmp.command('blockdev-add', driver='null-co', node_name='copy', size=SIZE)
    one.qmp.command(command, job_id='j', speed=1, filter_node_name='filter', **options)
    nodes = {node['node-name']: node for node in one.qmp.command('query-named-block-nodes')}
    assert nodes['n2']['backing_file'] == nodes['n2']['image']['backing-filename'] == str(tmp_path / 'i1')
    shown = 'i1' if options.get('top_node', options['device']) == 'n1' else 'i2'
    assert nodes['filter']['file'] == str(tmp_path / shown)
    one.qmp.command('job-cancel', id='j')
    stage(one.qmp, 'j', 'null')


def test_commit_active_under_writes(daemon, tmp_path):
    before = make_chain(tmp_path, 3)
    one = daemon()
    open_chain(one.qmp, tmp_path, 3)
    uri = serve(one.qmp, tmp_path / 'nbd', 'n2')
    with writing(uri, SIZE) as written:
        one.qmp.command('block-commit', job_id='j', device='n2', base_node='n0')
        stage(one.qmp, 'j', 'ready')
        one.qmp.command('job-complete', id='j')
        stage(one.qmp, 'j', 'null')
        one.qmp.command('blockdev-del', node_name='n2')
        one.qmp.command('blockdev-del', node_name='n1')
    one.stop()
    assert flat(tmp_path, tmp_path / 'i0') == expected(before, written)


def test_commit_active_soft_cancel(daemon, tmp_path):
    """The overlay stays, and so does what clients read."""
    before = make_chain(tmp_path, 2)
    one = daemon()
    open_chain(one.qmp, tmp_path, 2)
    handle = connect(serve(one.qmp, tmp_path / 'nbd', 'n1'))
    one.qmp.command('block-commit', job_id='j', device='n1')
    stage(one.qmp, 'j', 'ready')
    handle.pwrite(b'late' * 1024, 0)
    handle.shutdown()
    one.qmp.command('block-job-cancel', device='j')
    stage(one.qmp, 'j', 'null')
    assert chain_of(one.qmp, 'n1') == ['n1', 'n0']
    one.stop()
    assert flat(tmp_path, tmp_path / 'i1') == b'late' * 1024 + before[4096:]


def test_commit_into_read_only_backing(daemon, tmp_path):
    """The chain as the header tells it: images below are open for reading, and the base is made writable meanwhile."""
    before = make_chain(tmp_path, 3)
    one = daemon()
    one.qmp.command('blockdev-add', driver='qcow2', node_name='top',
                    file={'driver': 'file', 'filename': str(tmp_path / 'i2')})
    middle, base = chain_of(one.qmp, 'top')[1:]
    one.qmp.command('block-commit', job_id='j', device='top', top_node=middle, base=str(tmp_path / 'i0'),
                    backing_file=str(tmp_path / '../' / tmp_path.name / 'i0'))
    stage(one.qmp, 'j', 'null')
    assert chain_of(one.qmp, 'top') == ['top', base]
    assert {node['node-name']: node['ro'] for node in one.qmp.command('query-named-block-nodes')}[base]
    one.stop()
    assert '..' in info(tmp_path / 'i2')['backing-filename']
    assert flat(tmp_path, tmp_path / 'i2') == before


def test_commit_into_explicitly_read_only(daemon, tmp_path):
    make_chain(tmp_path, 2)
    one = daemon()
    one.qmp.command('blockdev-add', driver='qcow2', node_name='n1',
                    file={'driver': 'file', 'filename': str(tmp_path / 'i1')},
                    backing={'driver': 'qcow2', 'node-name': 'n0', 'read-only': True,
                             'file': {'driver': 'file', 'filename': str(tmp_path / 'i0')}})
    with pytest.raises(QmpError, match='Block node is read-only'):
        one.qmp.command('block-commit', job_id='j', device='n1')
    assert one.qmp.command('query-jobs') == []


@pytest.mark.parametrize('command, options, error_class, message', [
    ('block-stream', {'device': 'no'}, 'GenericError', "Cannot find device='no' nor node-name='no'"),
    ('block-stream', {'base': 'x', 'base_node': 'y'}, 'GenericError',
     "'base' and 'base-node' cannot be specified at the same time"),
    ('block-stream', {'base_node': 'n'}, 'GenericError', "Node 'n' is not a backing image of 'n2'"),
    ('block-stream', {'base': 'x'}, 'GenericError', "Can't find 'x' in the backing chain"),
    ('block-stream', {'backing_file': 'x'}, 'GenericError', 'backing file specified, but streaming the entire chain'),
    ('block-stream', {'bottom': 'n'}, 'GenericError', "Node 'n' is not in a chain starting from 'n2'"),
    ('block-stream', {'speed': -1}, 'GenericError', "Parameter 'speed' expects a non-negative value"),
    ('block-stream', {'filter_node_name': 'n'}, 'GenericError', "Duplicate nodes with node-name='n'"),
    ('block-commit', {'device': 'no'}, 'DeviceNotFound', "Device 'no' not found"),
    ('block-commit', {'device': 'n'}, 'GenericError', 'cannot commit an image into itself'),
    ('block-commit', {'top_node': 'n'}, 'GenericError', "'n' is not in this backing file chain"),
    ('block-commit', {'base_node': 'n'}, 'GenericError', "'n' is not in this backing file chain"),
    ('block-commit', {'base': 'a', 'base_node': 'n'}, 'GenericError', "'base-node' and 'base' are mutually exclusive"),
    ('block-commit', {'top_node': 'n1', 'base_node': 'n1'}, 'GenericError', 'cannot commit an image into itself'),
    ('block-commit', {'top_node': 'n0', 'base_node': 'n1'}, 'GenericError', "'n1' is not in this backing file chain"),
    ('block-commit', {'backing_file': 'x'}, 'GenericError', "'backing-file' specified, but 'top' is the active layer"),
])
def test_refusals(daemon, tmp_path, command, options, error_class, message):
    make_chain(tmp_path, 3)
    one = daemon()
    open_chain(one.qmp, tmp_path, 3)
    one.qmp.command('blockdev-add', driver='null-co', node_name='n')
    with pytest.raises(QmpError) as failure:
        one.qmp.command(command, **{'job_id': 'j', 'device': 'n2', **options})
    assert failure.value.error_class == error_class
    assert message in failure.value.desc
    assert one.qmp.command('query-jobs') == []
    assert chain_of(one.qmp, 'n2') == ['n2', 'n1', 'n0']
    for name in ['n2', 'n1', 'n0', 'n']:
        one.qmp.command('blockdev-del', node_name=name)


def test_snapshot_then_commit_then_stream(daemon, tmp_path):
    """What people do all day: a snapshot, a commit back, a snapshot, a stream; with a client that writes."""
    before = make_chain(tmp_path, 1)
    one = daemon()
    open_chain(one.qmp, tmp_path, 1)
    uri = serve(one.qmp, tmp_path / 'nbd', 'n0')
    with writing(uri, SIZE) as written:
        for step in range(3):
            one.qmp.command('blockdev-snapshot-sync', node_name='n0', snapshot_node_name=f's{step}',
                            snapshot_file=str(tmp_path / f's{step}'))
            one.qmp.command('block-commit', job_id='j', device=f's{step}')
            stage(one.qmp, 'j', 'ready')
            one.qmp.command('job-complete', id='j')
            stage(one.qmp, 'j', 'null')
        one.qmp.command('blockdev-snapshot-sync', node_name='n0', snapshot_node_name='last',
                        snapshot_file=str(tmp_path / 'last'))
        one.qmp.command('block-stream', job_id='j', device='last')
        stage(one.qmp, 'j', 'null')
        one.qmp.command('blockdev-del', node_name='n0')
    one.qmp.command('block-export-del', id='exp', mode='hard')
    one.stop()
    assert flat(tmp_path, tmp_path / 'last') == expected(before, written)
