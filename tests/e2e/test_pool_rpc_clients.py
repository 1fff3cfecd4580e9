# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian's virsh and python3-libvirt against the pool daemon: connections, events, streams, secrets."""
import errno
import os
import struct
import threading

import libvirt
import pytest

from harness import run, wait_for
from pool_daemon import PoolDaemon, error_of, pool_xml, volume_xml
from pool_raw import CONTINUE, KEEPALIVE, MESSAGE, OK, REMOTE, STREAM, Raw, string, words

PIECE = 1 << 20


@pytest.fixture(scope='module')
def pool(tmp_path_factory):
    one = PoolDaemon(tmp_path_factory.mktemp('p')).start()
    yield one
    one.stop()


@pytest.fixture(scope='module')
def images(pool):
    connection = pool.connect()
    made = connection.storagePoolCreateXML(pool_xml('images', pool.images), 0)
    yield made
    made.destroy()


def test_facts_of_a_connection(pool):
    connection = pool.connect()
    assert connection.getType() == 'storage'
    assert connection.getURI() == pool.uri()
    assert connection.getLibVersion() == 11003000
    assert (connection.isSecure(), connection.isEncrypted(), connection.isAlive()) == (1, 0, 1)
    assert "<enum name='type'>" in connection.getCapabilities()
    for call in (connection.getVersion, connection.getHostname, connection.getInfo, connection.listDomainsID):
        assert error_of(call)[0] == libvirt.VIR_ERR_NO_SUPPORT


@pytest.fixture(scope='module')
def event_loop():
    """Connections that are opened after this one hear of events."""
    libvirt.virEventRegisterDefaultImpl()

    def live():
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=live, daemon=True).start()


def listen(connection, one=None):
    """What the connection hears of that pool, or of all."""
    heard = []
    connection.storagePoolEventRegisterAny(one, 0, lambda _, pool, event, detail, into: into.append((pool.name(), event, detail)), heard)
    connection.storagePoolEventRegisterAny(one, 1, lambda _, pool, into: into.append((pool.name(), 'refresh')), heard)
    return heard


def upload_some(connection, volume, end):
    stream = connection.newStream()
    connection.storageVolLookupByPath(volume.path()).upload(stream, 0, 0)
    stream.send(b'x')
    getattr(stream, end)()


def test_events_reach_every_registered_connection(pool, event_loop, tmp_path):
    """All that is told of pools, in its order; who asks about one pool hears of that one."""
    clients = [pool.connect() for _ in range(3)]
    heard = [listen(client) for client in clients[:2]]
    connection = pool.connect()
    first = connection.storagePoolDefineXML(pool_xml('ev', tmp_path / 'first'))
    assert error_of(first.create)[0] == libvirt.VIR_ERR_SYSTEM_ERROR
    first.build()
    first.create()
    volume = first.createXML(volume_xml('v', 4096))
    first.refresh()
    for end, so_far in (('finish', 5), ('abort', 6)):
        upload_some(connection, volume, end)
        wait_for(lambda so_far=so_far: len(heard[0]) >= so_far, 'the refresh that an upload brings')
    volume.delete()
    first.setAutostart(1)
    second = connection.storagePoolDefineXML(pool_xml('ev2', tmp_path / 'second'))
    only_second = listen(clients[2], clients[2].storagePoolLookupByName('ev2'))
    second.build()
    second.create()
    (tmp_path / 'second').rmdir()
    assert error_of(second.refresh)[0] == libvirt.VIR_ERR_SYSTEM_ERROR
    for step in (first.destroy, first.delete, first.undefine, second.undefine):
        step()
    connection.storagePoolCreateXML(pool_xml('ev3', tmp_path / 'third'), libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD).destroy()
    defined, undefined, started, stopped, created, deleted = range(6)
    expected = [('ev', defined, 0), ('ev', created, 0), ('ev', started, 0), *[('ev', 'refresh')] * 3,
                ('ev2', defined, 0), ('ev2', created, 0), ('ev2', started, 0), ('ev2', stopped, 0),
                ('ev', stopped, 0), ('ev', deleted, 0), ('ev', undefined, 0), ('ev2', undefined, 0),
                ('ev3', started, 0), ('ev3', stopped, 0)]
    for events in heard:
        wait_for(lambda events=events: len(events) >= len(expected), 'the events')
        assert events == expected
    about_second = [event for event in expected[7:] if event[0] == 'ev2']
    wait_for(lambda: len(only_second) >= len(about_second), 'the events of one pool')
    assert only_second == about_second


def parts(call, *arguments):
    """All that an error says: code, domain, text, level, strings, numbers."""
    with pytest.raises(libvirt.libvirtError) as caught:
        call(*arguments)
    return caught.value.err


def test_parts_of_errors(pool, images):
    connection = pool.connect()
    pools = connection.storagePoolLookupByName
    missing = "no storage pool with matching name 'zork'"
    assert parts(pools, 'zork') == (49, 18, f'Storage pool not found: {missing}', 2, 'Storage pool not found: %1$s', missing, None, -1, -1)
    assert parts(pools('images').XMLDesc, 64) == (
        8, 18, 'unsupported flags (0x40) in function storagePoolGetXMLDesc', 2, 'storagePoolGetXMLDesc', 'flags', None, 0, 0)
    gone = "cannot open directory '/nowhere/at/all': No such file or directory"
    assert parts(connection.storagePoolCreateXML, pool_xml('x', '/nowhere/at/all')) == (
        38, 0, gone, 2, '%s', gone, None, errno.ENOENT, -1)
    root = "expecting root element of 'pool', not 'zork'"
    assert parts(connection.storagePoolDefineXML, '<zork/>') == (27, 5, f'XML error: {root}', 2, 'XML error: %1$s', root, None, -1, -1)


def test_silent_clients_are_pinged(tmp_path, event_loop):
    """A client that answers stays, one that is stopped is dropped after a while."""
    one = PoolDaemon(tmp_path)
    path = one.config.parent / 'virtstoraged.conf'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('auth_unix_rw = "none"\nkeepalive_interval = 1\nkeepalive_count = 1\n')
    one.start()
    alive = one.connect()
    raw = Raw(one.socket)
    assert raw.call(60, words(10)).body == words(1)
    ping = raw.receive()
    assert (ping.program, ping.procedure, ping.type, ping.serial) == (KEEPALIVE, 1, MESSAGE, 0)
    assert raw.closed()
    assert alive.numOfStoragePools() == 0
    alive.close()
    one.stop()


def transfer(connection, volume, data, flags=0):
    """Uploads and downloads `data`; what came back."""
    back = bytearray()
    stream = connection.newStream()
    volume.upload(stream, 0, len(data), flags)
    for at in range(0, len(data), PIECE):
        piece = data[at:at + PIECE]
        while piece:
            piece = piece[stream.send(piece):]
    stream.finish()
    stream = connection.newStream()
    volume.download(stream, 0, 0, 0)
    stream.recvAll(lambda _, piece, __: back.extend(piece), None)
    stream.finish()
    return bytes(back)


def test_upload_and_download(pool, images):
    data = os.urandom(10 * PIECE + 12345)
    volume = images.createXML(volume_xml('whole', len(data)), 0)
    connection = pool.connect()
    own = connection.storageVolLookupByPath(volume.path())
    assert transfer(connection, own, data) == data
    own.delete(0)


def test_several_streams_at_once(pool, images):
    connection = pool.connect()
    results = {}

    def work(name):
        data = os.urandom(3 * PIECE + 1)
        volume = connection.storagePoolLookupByName('images').createXML(volume_xml(name, len(data)), 0)
        results[name] = transfer(connection, volume, data) == data
        volume.delete(0)

    threads = [threading.Thread(target=work, args=(f'v{i}',)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {f'v{i}': True for i in range(4)}


def test_sparse_streams(pool, images):
    source, back = pool.folder / 'source', pool.folder / 'back'
    data = os.urandom(100000)
    with open(source, 'wb') as file:
        file.truncate(64 * PIECE)
        file.seek(20 * PIECE)
        file.write(data)
    pool.virsh('vol-create-as', 'images', 'sparse', 64 * PIECE)
    pool.virsh('vol-upload', 'sparse', source, '--pool', 'images', '--sparse')
    pool.virsh('vol-download', 'sparse', back, '--pool', 'images', '--sparse')
    assert run('cmp', source, back).returncode == 0
    for path in (back, pool.images / 'sparse'):
        assert path.stat().st_size == 64 * PIECE
        assert path.stat().st_blocks * 512 < 2 * PIECE
    pool.virsh('vol-delete', 'sparse', '--pool', 'images')


def test_upload_beyond_its_length(pool, images):
    source = pool.folder / 'long'
    source.write_bytes(bytes(100000))
    pool.virsh('vol-create-as', 'images', 'short', 4096)
    text = pool.virsh('vol-upload', 'short', source, '--pool', 'images', '--length', 4096, check=False)
    assert 'cannot send data to volume' in text or 'cannot close volume' in text
    assert 'Name' in pool.virsh('pool-list')
    pool.virsh('vol-delete', 'short', '--pool', 'images')


def test_aborted_download(pool, images):
    connection = pool.connect()
    volume = connection.storagePoolLookupByName('images').createXML(volume_xml('abort', 50 * PIECE), 0)
    stream = connection.newStream()
    volume.download(stream, 0, 0, 0)
    assert stream.recv(1000)
    stream.abort()
    assert connection.numOfStoragePools() == 1
    volume.delete(0)


def test_vanished_clients_leave_nothing(pool, images):
    connection = pool.connect()
    volume = connection.storagePoolLookupByName('images').createXML(volume_xml('gone', 50 * PIECE), 0)
    stream = connection.newStream()
    volume.download(stream, 0, 0, 0)
    del stream, volume
    connection.close()
    wait_for(lambda: open_files(pool).count(str(pool.images / 'gone')) == 0, 'the volume being closed')
    pool.virsh('vol-delete', 'gone', '--pool', 'images')


def test_upload_that_breaks_off(pool, images):
    """P8: Amid a packet: nothing of that one is written, as much of those before as the daemon had got to, and the volume is free."""
    volume = pool.connect().storagePoolLookupByName('images').createXML(volume_xml('half', PIECE, allocation=0))
    raw = Raw(pool.socket)
    raw.call(66)
    assert raw.open(pool.uri().split('?')[0]).status == OK
    serial = raw.send(208, string('images') + string('half') + string('') + bytes(20))
    assert raw.receive().status == OK
    raw.send(208, b'x' * 100000, type=STREAM, serial=serial, status=CONTINUE)
    raw.sock.sendall(struct.pack('>IIIiIII', 28 + 100000, REMOTE, 1, 208, STREAM, serial, CONTINUE) + b'y' * 1000)
    raw.sock.close()
    path = pool.images / 'half'
    wait_for(lambda: str(path) not in open_files(pool), 'the volume being closed')
    written, rest = path.read_bytes()[:100000].rstrip(b'\0'), path.read_bytes()[100000:]
    assert not written.strip(b'x') and not any(rest) and len(rest) == PIECE - 100000
    volume.delete()


def open_files(pool):
    folder = f'/proc/{pool.process.pid}/fd'
    found = []
    for name in os.listdir(folder):
        try:
            found.append(os.readlink(f'{folder}/{name}'))
        except FileNotFoundError:
            pass
    return found


SECRET = "<secret ephemeral='{}' private='{}'><usage type='volume'><volume>{}</volume></usage></secret>"


def test_secrets(pool):
    connection = pool.connect('secret')
    assert connection.getType() == 'secret'
    secret = connection.secretDefineXML(SECRET.format('no', 'no', '/x'), 0)
    folder = pool.config.parent / 'secrets'
    assert error_of(secret.value) == (66, f"Secret not found: secret '{secret.UUIDString()}' does not have a value")
    secret.setValue(b'a\0b', 0)
    assert secret.value(0) == b'a\0b'
    assert (folder / f'{secret.UUIDString()}.base64').read_text() == 'YQBi'
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    private = connection.secretDefineXML(SECRET.format('yes', 'yes', '/y'), 0)
    private.setValue(b'x', 0)
    assert error_of(private.value) == (65, 'Invalid secret: secret is private')
    assert not (folder / f'{private.UUIDString()}.xml').exists()
    assert connection.secretLookupByUsage(1, '/y').UUIDString() == private.UUIDString()
    assert error_of(connection.secretDefineXML, SECRET.format('no', 'no', '/x')) == (
        1, f'internal error: a secret with UUID {secret.UUIDString()} already defined for use with /x')
    assert [len(connection.listAllSecrets(flags)) for flags in (0, 1, 2, 4, 8)] == [2, 1, 1, 1, 1]
    assert error_of(connection.listAllStoragePools)[0] == libvirt.VIR_ERR_NO_SUPPORT
    less = private.XMLDesc().replace("private='yes'", "private='no'")
    assert error_of(connection.secretDefineXML, less) == (1, 'internal error: cannot change private flag on existing secret')
    secret.undefine()
    private.undefine()
    assert not list(folder.iterdir())


@pytest.mark.parametrize('wrong', [
    '<secret><zork/></secret>',
    "<secret zork='yes'/>",
    "<secret private='maybe'/>",
    '<secret><uuid>5</uuid></secret>',
    '<secret><uuid/></secret>',
    "<secret><usage type='zork'><name>x</name></usage></secret>",
    "<secret><usage type='tls'/></secret>",
    "<secret><usage type='tls'><name>x</name><zork/></usage></secret>",
    "<secret><usage type='tls'><name>x</name><volume>/y</volume></usage></secret>",
])
def test_secrets_are_validated(pool, wrong):
    connection = pool.connect('secret')
    assert error_of(connection.secretDefineXML, wrong, libvirt.VIR_SECRET_DEFINE_VALIDATE)[0] == libvirt.VIR_ERR_XML_INVALID_SCHEMA
    right = "<secret ephemeral='yes'><description>x</description><usage type='tls'><name>x</name></usage></secret>"
    connection.secretDefineXML(right, libvirt.VIR_SECRET_DEFINE_VALIDATE).undefine()


def test_secret_events(pool, event_loop):
    connection = pool.connect('secret')
    heard = []
    connection.secretEventRegisterAny(None, libvirt.VIR_SECRET_EVENT_ID_LIFECYCLE,
                                      lambda _c, one, event, detail, _o: heard.append((one.usageID(), event, detail)), None)
    connection.secretEventRegisterAny(None, libvirt.VIR_SECRET_EVENT_ID_VALUE_CHANGED,
                                      lambda _c, one, _o: heard.append((one.usageID(), 'value')), None)
    secret = connection.secretDefineXML(SECRET.format('no', 'no', '/heard'), 0)
    secret.setValue(b'x')
    secret.undefine()
    wait_for(lambda: len(heard) >= 3, 'the events')
    assert heard == [('/heard', libvirt.VIR_SECRET_EVENT_DEFINED, 0), ('/heard', 'value'), ('/heard', libvirt.VIR_SECRET_EVENT_UNDEFINED, 0)]


def test_secrets_survive_a_restart(tmp_path):
    one = PoolDaemon(tmp_path).start()
    secret = one.connect('secret').secretDefineXML(SECRET.format('no', 'no', '/x'), 0)
    secret.setValue(b'value', 0)
    one.kill()
    one.start()
    assert one.connect('secret').secretLookupByUUID(secret.UUID()).value(0) == b'value'
    one.stop()


def test_secrets_by_virsh(pool):
    def virsh(*words):
        return run('virsh', '-c', pool.uri('secret'), *words).stdout

    path = pool.folder / 'secret.xml'
    path.write_text(SECRET.format('no', 'no', '/z'))
    uuid = virsh('secret-define', path).split()[1]
    (pool.folder / 'value').write_text('open sesame')
    virsh('secret-set-value', uuid, '--file', pool.folder / 'value', '--plain')
    assert virsh('secret-get-value', uuid, '--plain').strip() == 'open sesame'
    assert uuid in virsh('secret-list')
    virsh('secret-undefine', uuid)
    assert uuid not in virsh('secret-list')
