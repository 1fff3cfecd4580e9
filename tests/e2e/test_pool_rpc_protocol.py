# SPDX-License-Identifier: LGPL-2.1-or-later
"""What comes over a socket of the pool daemon, packet by packet; well-formed or not."""
import struct

import pytest

from harness import wait_for
from pool_daemon import PoolDaemon, error_of, pool_xml, volume_xml
from pool_raw import (ADMIN, CALL_WITH_FDS, CONTINUE, ERROR, KEEPALIVE, MESSAGE, OK, REMOTE, REPLY, STREAM, Raw, optional,
                      string, words)

SYSTEM = 'storage:///system'


@pytest.fixture(scope='module')
def pool(tmp_path_factory):
    one = PoolDaemon(tmp_path_factory.mktemp('p'))
    (one.folder / 'etc' / 'virtstoraged.conf').write_text('auth_unix_rw = "none"\nauth_unix_ro = "none"\n')
    one.start()
    yield one
    one.stop()


@pytest.fixture
def raw(pool):
    one = Raw(pool.socket)
    assert one.open(pool.uri().split('?')[0]).status == OK
    return one


@pytest.mark.parametrize('length', [0, 3, 4, 27, (32 << 20) + 5, 0xffffffff])
def test_impossible_length_drops_sender_only(pool, raw, length):
    """P1: What is wrong inside a packet of a length that can be costs an error reply, no more (below)."""
    bad = Raw(pool.socket)
    bad.sock.sendall(struct.pack('>I', length) + bytes(24))
    assert bad.closed()
    assert raw.call(71).status == OK


def test_long_packet_costs_memory_as_it_comes(pool):
    clients = [Raw(pool.socket) for _ in range(20)]
    before = rss_kib(pool)
    for client in clients:
        client.sock.sendall(struct.pack('>I', 32 << 20) + bytes(1000))
    assert Raw(pool.socket).open(SYSTEM)
    assert rss_kib(pool) - before < 8 << 10


def rss_kib(pool):
    status = open(f'/proc/{pool.process.pid}/status', encoding='ascii').read()
    return int(status.split('VmRSS:')[1].split()[0])


@pytest.mark.parametrize('fields,message', [
    ({'program': 0x20008087}, 'Cannot find program 536903815 version 1'),
    ({'version': 2}, 'Cannot find program 536903814 version 2'),
    ({'program': KEEPALIVE}, 'Cannot find program 1801807216 version 1'),
    ({'program': ADMIN}, 'Cannot find program 110102160 version 1'),
    ({'status': ERROR}, 'Unexpected message status 1'),
    ({'status': 9}, 'Unexpected message status 9'),
])
def test_wrong_header(raw, fields, message):
    packet = raw.call(71, **fields)
    assert packet.error() == (39, 7, message)
    assert packet.program == fields.get('program', REMOTE) and packet.version == fields.get('version', 1)
    assert raw.call(71).status == OK


@pytest.mark.parametrize('number', [0, -1, 370, 373, 107, 5000])
def test_unknown_procedure(raw, number):
    assert raw.call(number).error() == (39, 7, f'unknown procedure: {number}')


def test_every_procedure_gets_an_answer(pool):
    """Whatever a client of any version may call, without arguments."""
    ends_the_connection = 2
    client = Raw(pool.socket)
    client.open(pool.uri().split('?')[0])
    for number in range(1, 600):
        if number != ends_the_connection:
            reply = client.call(number)
            assert reply.procedure == number and reply.status in (OK, ERROR)
            assert reply.status == OK or reply.error()[2]


def test_half_a_packet(pool, raw):
    """Who says the rest never, or later, keeps nobody waiting."""
    packet = struct.pack('>IIIiIII', 28, REMOTE, 1, 71, 0, 77, 0)
    for cut in (1, 4, 5, 27):
        silent, late = Raw(pool.socket), Raw(pool.socket)
        late.open(pool.uri().split('?')[0])
        silent.sock.sendall(packet[:cut])
        late.sock.sendall(packet[:cut])
        assert raw.call(71).status == OK
        silent.sock.close()
        late.sock.sendall(packet[cut:])
        assert late.receive().serial == 77


@pytest.mark.parametrize('number,body', [
    (84, b''),
    (84, words(5) + b'ab\0\0'),
    (84, words(4 << 20 | 1)),
    (84, words(0xffffffff)),
    (84, words(2) + b'a\0\0\0'),
    (85, bytes(15)),
    (368, words(0, 2)),
    (419, words(1) + string('x') + words(9, 0, 0)),
    (419, words(17000)),
])
def test_arguments_that_do_not_decode(raw, number, body):
    assert raw.call(number, body).error() == (39, 7, 'Unable to decode message payload')
    assert raw.call(71).status == OK


def test_bytes_after_the_arguments_are_ignored(raw):
    assert raw.call(71, b'more than is wanted!').status == OK


@pytest.mark.parametrize('kind', [REPLY, MESSAGE, STREAM, 6, 7, 1000])
def test_packets_that_ask_nothing_get_no_answer(raw, kind):
    raw.send(209, b'data', type=kind, status=CONTINUE)
    assert raw.call(71).status == OK


def test_call_with_descriptors(raw):
    raw.send(71, words(2), type=CALL_WITH_FDS)
    raw.sock.sendall(b'\0\0')
    assert raw.receive().status == OK
    assert raw.call(71).status == OK


def test_ping_is_answered(raw):
    raw.send(1, program=KEEPALIVE, type=MESSAGE, serial=77)
    packet = raw.receive()
    assert (packet.program, packet.procedure, packet.type, packet.serial, packet.body) == (KEEPALIVE, 2, MESSAGE, 0, b'')


def test_before_open(pool):
    raw = Raw(pool.socket)
    assert raw.call(71).error() == (1, 7, 'internal error: connection not open')
    assert raw.call(3).error() == (1, 7, 'internal error: hypervisor connection not open')
    assert raw.call(60, words(14)).error() == (1, 7, 'internal error: hypervisor connection not open')
    assert raw.call(60, words(10)).body == words(1)
    assert raw.call(66).body == words(1, 0)
    assert raw.call(67).error() == (45, 7, 'authentication failed: authentication failed')
    assert raw.call(70).error() == (1, 7, 'Library function returned error but did not set virError')


def test_open(pool):
    path = '/system' if pool.privileged else '/session'
    raw = Raw(pool.socket)
    for uri, error in [
            (None, (5, 0, 'no connection driver available for <null>')),
            ('', (5, 0, 'no connection driver available for <null>')),
            ('qemu:///system', (5, 0, 'no connection driver available for qemu:///system')),
            ('foo', (5, 0, "no connection driver available for URI 'foo' does not include a driver name")),
            ('storage:///foo', (1, 0, f"internal error: unexpected storage URI path '/foo', try storage://{path}")),
            ('storage:///', (1, 0, f"internal error: unexpected storage URI path '/', try storage://{path}")),
            (f' storage://{path}', (1, 45, f'internal error: Unable to parse URI  storage://{path}')),
            (f'storage://{path}\n', (1, 45, f'internal error: Unable to parse URI storage://{path}\n')),
            ('storage:///%zz', (1, 45, 'internal error: Unable to parse URI storage:///%zz')),
            ('://', (1, 45, 'internal error: Unable to parse URI ://')),
    ]:
        assert raw.open(uri).error() == error
    assert raw.open(f'storage://host{path}').status == ERROR
    assert raw.open(f'storage://{path}?foo=bar').status == OK
    assert raw.open(f'storage://{path}').error() == (1, 7, 'internal error: connection already open')
    assert raw.call(110).body == string(f'storage://{path}?foo=bar')


def typed(name, kind, value):
    return string(name) + words(kind) + value


USER, PROCESS = typed('user-name', 7, string('joe')), typed('process-id', 3, struct.pack('>q', 5))


@pytest.mark.parametrize('params,error', [
    ([], None),
    ([USER, PROCESS, typed('unix-user-id', 4, struct.pack('>Q', 7)), typed('system.token', 7, string('x'))], None),
    ([typed('zork', 7, string('x'))], (74, 0, "argument unsupported: parameter 'zork' not supported")),
    ([typed('unix-user-id', 7, string('0'))],
     (8, 0, "invalid argument: invalid type 'string' for parameter 'unix-user-id', expected 'ullong'")),
    ([typed('system.token', 1, words(5))],
     (8, 0, "invalid argument: invalid type 'int' for parameter 'system.token', expected 'string'")),
    ([USER, PROCESS, USER], (8, 0, "invalid argument: parameter 'user-name' occurs multiple times")),
])
def test_speaking_for_somebody(raw, params, error):
    reply = raw.call(419, words(len(params)) + b''.join(params) + words(0))
    assert reply.status == OK if error is None else reply.error() == error


@pytest.mark.parametrize('feature,answer', [(1, 0), (2, 0), (8, 1), (9, 0), (10, 1), (14, 1), (15, 1), (16, 0), (99, 0)])
def test_features(raw, feature, answer):
    assert raw.call(60, words(feature)).body == words(answer)


@pytest.mark.parametrize('number,domain,function', [
    (4, 20, 'virConnectGetVersion'), (6, 20, 'virNodeGetInfo'), (59, 20, 'virConnectGetHostname'),
    (273, 20, 'virConnectListAllDomains'), (283, 19, 'virConnectListAllNetworks'),
    (284, 26, 'virConnectListAllInterfaces'), (285, 22, 'virConnectListAllNodeDevices'),
    (287, 30, 'virConnectListAllSecrets')])
def test_other_families(raw, number, domain, function):
    assert raw.call(number, words(1, 0)).error() == (
        3, domain, f'this function is not supported by the connection driver: {function}')


def test_limits_of_name_lists(pool, raw):
    """P2: Lists of nothing, and for nothing, among them."""
    assert raw.call(72, words(0)).body == words(0)
    assert raw.call(281, words(1, 0)).body == raw.call(281, words(0, 0)).body == words(0, 0)
    assert raw.call(72, words(-1)).error() == (39, 7, 'maxnames must be non-negative')
    assert raw.call(72, words(16385)).error() == (39, 7, 'maxnames > REMOTE_STORAGE_POOL_LIST_MAX')
    assert raw.call(72, words(16384)).body == words(0)
    secrets = Raw(pool.socket)
    secrets.open(pool.uri('secret').split('?')[0])
    assert secrets.call(140, words(-1)).error() == (39, 7, 'maxuuids must be non-negative')
    assert secrets.call(140, words(16385)).error() == (39, 7, 'maxuuids > REMOTE_SECRET_LIST_MAX')


def test_more_volumes_than_a_list_may_have(pool, raw, tmp_path):
    most = 16384
    for number in range(most + 1):
        (tmp_path / str(number)).touch()
    one = pool.connect().storagePoolCreateXML(pool_xml('many', tmp_path))
    packet = string('many') + one.UUID()
    try:
        assert one.numOfVolumes() == most + 1
        assert error_of(one.listAllVolumes) == (1, f"internal error: Too many storage_vols '{most + 1}' for limit '{most}'")
        assert raw.call(282, packet + words(0, 0)).body == words(0, most + 1)
        assert raw.call(92, packet + words(most)).body[:4] == words(most)
        (tmp_path / '0').unlink()
        one.refresh()
        assert len(one.listAllVolumes()) == len(one.listVolumes()) == most
    finally:
        one.destroy()


@pytest.fixture
def images(pool):
    """A running pool "images" and its packet."""
    connection = pool.connect()
    one = connection.storagePoolDefineXML(pool_xml('images', pool.images))
    one.create()
    yield string('images') + one.UUID()
    one.destroy()
    one.undefine()


def test_path_that_is_written_otherwise(pool, images, raw):
    path = f'{pool.images}//'
    assert raw.call(391, string(path)).body == images
    assert raw.call(391, string(f'{path}x')).error() == (
        49, 18, f"Storage pool not found: no storage pool with matching target path '{path}x' ({pool.images}/x)")


def test_state_comes_before_flags(pool, images, raw):
    """What a running pool cannot do, it cannot do with flags of the future either; those are for the type to know."""
    busy = "Requested operation is not valid: storage pool 'images' is {} active"
    assert raw.call(79, images + words(64)).error() == (55, 18, busy.format('already'))
    assert raw.call(81, images + words(64)).error() == (55, 18, busy.format('still'))
    raw.call(80, images)
    assert raw.call(79, images + words(64)).error() == (
        8, 18, 'unsupported flags (0x40) in function virStorageBackendFileSystemBuild')
    assert raw.call(81, images + words(64)).error() == (
        8, 18, 'unsupported flags (0x40) in function virStorageBackendDeleteLocal')
    raw.call(78, images + words(0))


def test_finding_sources_of_a_type(raw):
    """First whether the type can, then flags, then what to look for."""
    def find(kind, spec, flags):
        return raw.call(75, string(kind) + optional(spec) + words(flags)).error()

    assert find('zork', None, 1) == (1, 18, 'internal error: unknown storage pool type zork')
    assert find('dir', '<x', 1) == (3, 18, "this function is not supported by the connection driver: pool type 'dir' does not "
                                    'support source discovery')
    assert find('netfs', '<x', 2) == (8, 18, 'unsupported flags (0x2) in function virStorageBackendFileSystemNetFindPoolSources')
    assert find('netfs', None, 0) == (8, 18, 'invalid argument: hostname must be specified for netfs sources')
    assert find('netfs', '', 0)[:2] == (35, 18)


def test_wipe_of_unknown_kind(images, raw):
    assert raw.call(259, string('images') + string('v') + string('') + words(-1, 0)).error() == (
        8, 18, 'invalid argument: wiping algorithm -1 not supported')


@pytest.mark.parametrize('procedure', [208, 209])
def test_streams_far_out(pool, images, raw, procedure):
    """A beginning that no file can have is an error at once; a length that none can have is as good as none."""
    raw.call(93, images + string(volume_xml('v', 4096)) + words(0))
    volume = string('images') + string('v') + string('')
    far = (1 << 63) + 5
    assert raw.call(procedure, volume + struct.pack('>QQI', far, 0, 0)).error() == (
        38, 38, f'Unable to seek {pool.images}/v to {far}: Invalid argument')
    (pool.images / 'w').mkdir()
    assert raw.call(83, images + words(0)).status == OK
    assert raw.call(procedure, string('images') + string('w') + string('') + bytes(20)).error() == (
        38, 38, f"Unable to open stream for '{pool.images}/w': Is a directory")
    (pool.images / 'w').rmdir()
    serial = raw.send(procedure, volume + struct.pack('>QQI', 1, (1 << 64) - 1, 0))
    assert raw.receive().status == OK
    if procedure == 209:
        assert len(raw.receive().body) == 4095
        assert raw.receive().body == b''
    raw.send(procedure, type=STREAM, serial=serial)
    assert raw.receive().status == OK
    raw.call(94, volume + words(0))


def test_event_registrations(pool, raw):
    first = struct.unpack('>I', raw.call(368, words(0, 0)).body)[0]
    assert raw.call(368, words(1, 0)).body == words(first + 1)
    assert raw.call(368, words(2, 0)).error() == (1, 7, 'internal error: unsupported storage pool event ID 2')
    other = Raw(pool.socket)
    other.open(pool.uri().split('?')[0])
    missing = (1, 7, f'internal error: storage pool event callback {first} not registered')
    assert other.call(369, words(first)).error() == missing
    assert raw.call(369, words(first)).status == OK
    assert raw.call(369, words(first)).error() == missing
    assert other.call(368, words(0, 0)).body == words(first + 2)


READ_ONLY = {75: 'virConnectFindStoragePoolSources', 76: 'virStoragePoolCreateXML', 77: 'virStoragePoolDefineXML',
             78: 'virStoragePoolCreate', 79: 'virStoragePoolBuild', 80: 'virStoragePoolDestroy', 81: 'virStoragePoolDelete',
             82: 'virStoragePoolUndefine', 83: 'virStoragePoolRefresh', 90: 'virStoragePoolSetAutostart',
             93: 'virStorageVolCreateXML', 94: 'virStorageVolDelete', 125: 'virStorageVolCreateXMLFrom',
             165: 'virStorageVolWipe', 208: 'virStorageVolUpload', 209: 'virStorageVolDownload',
             259: 'virStorageVolWipePattern', 260: 'virStorageVolResize'}


def test_read_only_connections(pool):
    """P6: Each procedure that changes or reads more than facts is refused, whatever its arguments."""
    raw = Raw(pool.socket)
    raw.open(pool.uri().split('?')[0], flags=1)
    for number, function in READ_ONLY.items():
        assert raw.call(number, bytes(200)).error() == (
            29, 18, f'operation forbidden: read only access prevents {function}')
    for number in (71, 73, 281, 403, 7, 157):
        assert raw.call(number, bytes(8)).status == OK


def test_read_only_socket(pool):
    if not pool.privileged:
        assert not pool.socket.with_name('virtstoraged-sock-ro').exists()
        return
    raw = Raw(pool.socket.with_name('virtstoraged-sock-ro'))
    assert raw.open(SYSTEM).status == OK
    assert raw.call(80, bytes(24)).error()[0] == 29


def test_close_answers_first(raw):
    assert raw.call(2).status == OK
    assert raw.closed()


def test_many_requests_without_reading(pool):
    """Whoever does not read its replies is not read from, and others do not notice."""
    greedy = Raw(pool.socket)
    greedy.open(pool.uri().split('?')[0])
    greedy.sock.setblocking(False)
    packet = struct.pack('>IIIiIII', 28, REMOTE, 1, 403, 0, 9, 0)[:28].replace(struct.pack('>I', 28), struct.pack('>I', 32), 1)
    sent = 0
    with pytest.raises(BlockingIOError):
        while sent < 64 << 20:
            sent += greedy.sock.send((packet + words(0)) * 1000)
    other = Raw(pool.socket)
    assert other.open(pool.uri().split('?')[0]).status == OK
    assert rss_kib(pool) < 200 << 10


def test_errors_of_long_names(pool, raw):
    """What comes back of a long name is its beginning: those who do not read their errors cost little."""
    name = 'm' * ((4 << 20) - 8)
    reply = raw.call(84, string(name))
    assert reply.error()[0] == 49 and len(reply.body) < 200 << 10
    # A client of libvirt can read it, too.
    code, message = error_of(pool.connect().storagePoolLookupByName, name)
    assert code == 49 and message.endswith('mmm...')
    assert Raw(pool.socket).open(f'{pool.uri().split("?")[0]}?{"x" * 70000}').status == ERROR


def test_download_that_nobody_reads(pool, raw):
    connection = pool.connect()
    images = connection.storagePoolCreateXML(pool_xml('unread', pool.images))
    images.createXML(volume_xml('large', 256 << 20, allocation=0))
    before = rss_kib(pool)
    reader = Raw(pool.socket)
    reader.open(pool.uri().split('?')[0])
    reader.send(209, string('unread') + string('large') + string('') + bytes(20))
    assert reader.receive().status == OK
    assert reader.receive().type == STREAM
    assert raw.call(71).status == OK
    assert rss_kib(pool) - before < 8 << 10
    reader.sock.close()
    images.destroy()


def test_hundred_connections(pool):
    clients = [Raw(pool.socket) for _ in range(100)]
    for client in clients:
        client.send(1, optional(pool.uri().split('?')[0]) + words(0))
    for client in clients:
        assert client.receive().status == OK


def test_admin_program_is_on_its_socket(pool):
    raw = Raw(pool.socket.with_name('virtstoraged-admin-sock'), ADMIN)
    assert raw.call(3).body == struct.pack('>Q', 11003000)
    assert raw.call(1, program=REMOTE).error() == (39, 7, 'Cannot find program 536903814 version 1')
    assert raw.call(5, string('zork') + words(0)).error() == (95, 7, "Server not found: No server named 'zork'")
    assert raw.call(6, string('zork') + words(0)).error() == (
        95, 62, "Server not found: no server with matching name 'zork' found")
    assert raw.call(14, words(3)).error() == (8, 62, 'unsupported flags (0x3) in function adminConnectGetLoggingOutputs')
    assert raw.call(18, string('admin') + words(0)).error() == (
        1, 7, 'internal error: no tls service found, unable to update tls files')


def test_clients_beyond_the_limit_wait(tmp_path):
    one = PoolDaemon(tmp_path)
    (one.folder / 'etc' / ('virtstoraged.conf' if one.privileged else 'libvirt/virtstoraged.conf')).write_text(
        'max_clients = 2\nmax_anonymous_clients = 2\nauth_unix_rw = "none"\n')
    one.start()
    first, second = Raw(one.socket), Raw(one.socket)
    wait_for(lambda: first.call(66).status == OK and second.call(66).status == OK, 'two clients')
    third = Raw(one.socket)
    third.send(66)
    third.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        third.receive()
    third.sock.settimeout(60)
    first.sock.close()
    assert third.receive().status == OK
    second.sock.close()
    third.sock.close()
    one.stop()
