# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who may do what: groups and modes of sockets, polkit for connections and for single objects, SASL."""
import os
import re
import struct
import subprocess

import libvirt
import pytest

import fake_polkit
from harness import PATIENCE_S, run, wait_for
from pool_daemon import error_of, pool_xml, volume_xml
from pool_raw import Raw, words
from test_pool_luks import define_secret
from test_pool_rpc_clients import event_loop, open_files  # pylint: disable=unused-import

MIB = 1 << 20
NOBODY = 65534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason='needs clients of several users')

DENIED = libvirt.VIR_ERR_ACCESS_DENIED


@pytest.fixture
def polkit(tmp_path):
    tmp_path.chmod(0o755)
    with fake_polkit.running(tmp_path) as fake:
        yield fake


def start(pool, *lines):
    path = pool.config.parent / 'virtstoraged.conf'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(lines) + '\n')
    return pool.start()


def as_nobody(pool, *words, socket=None):
    """What virsh says to a user who is nobody in particular."""
    uri = pool.uri().replace(str(pool.socket), str(socket or pool.socket))
    done = run('setpriv', '--reuid', NOBODY, '--regid', NOBODY, '--clear-groups', 'virsh', '-c', uri, *words, check=False)
    return re.sub(r'\n+', '\n', done.stdout + done.stderr)


def sockets(pool):
    return sum(name.startswith('socket:') for name in open_files(pool))


# --- connections ---

def test_polkit_lets_in(pool_daemon, polkit):
    start(pool_daemon, 'auth_unix_rw = "polkit"', 'auth_unix_ro = "polkit"')
    assert pool_daemon.socket.stat().st_mode & 0o777 == 0o777
    pool_daemon.virsh('pool-list')  # root is not asked about
    assert polkit.questions() == []
    assert 'authentication failed: access denied by policy' in as_nobody(pool_daemon, 'pool-list')
    question = polkit.questions()[-1]
    assert (question['kind'], question['action'], question['details'], question['flags']) == (
        'unix-process', 'org.libvirt.unix.manage', {}, 1)
    assert question['subject']['uid'] == NOBODY and question['subject']['start-time'] > 0 and question['subject']['pid'] > 0
    for answer, text in (('challenge', "authentication unavailable: no polkit agent available to authenticate action "
                                       "'org.libvirt.unix.manage'"),
                         ('dismissed', 'authentication cancelled: user cancelled authentication process')):
        polkit.set([['org.libvirt.unix.manage', {}, answer]])
        assert text in as_nobody(pool_daemon, 'pool-list')
    polkit.set([['org.libvirt.unix.manage', {}, 'yes']])
    assert 'Name' in as_nobody(pool_daemon, 'pool-list')
    read_only = pool_daemon.socket.with_name('virtstoraged-sock-ro')
    assert 'access denied by policy' in as_nobody(pool_daemon, 'pool-list', socket=read_only)
    assert polkit.questions()[-1]['action'] == 'org.libvirt.unix.monitor'
    polkit.set([['org.libvirt.unix.monitor', {}, 'yes']])
    assert 'Name' in as_nobody(pool_daemon, 'pool-list', socket=read_only)


def test_waiting_for_a_person_keeps_no_worker(pool_daemon, polkit, tmp_path):
    """Polkit has a window on somebody's screen; and that one cannot have two."""
    tmp_path.chmod(0o755)
    start(pool_daemon, 'auth_unix_rw = "polkit"', 'min_workers = 1', 'max_workers = 1', 'prio_workers = 0')
    polkit.set([['*', {}, 'never']])
    os.seteuid(NOBODY)
    try:
        raw = Raw(pool_daemon.socket)
    finally:
        os.seteuid(0)
    first = raw.send(70)
    wait_for(polkit.questions, 'the question')
    while_asking = sockets(pool_daemon)
    second = raw.send(70)
    answer = raw.receive()
    assert answer.serial == second != first
    assert answer.error()[2] == "authentication failed: polkit is being asked about 'org.libvirt.unix.manage' already"
    assert 'Name' in pool_daemon.virsh('pool-list')
    # Who goes away takes the question along: the connection on which it was asked ends, by which polkit knows.
    raw.sock.close()
    wait_for(lambda: sockets(pool_daemon) <= while_asking - 2, 'the end of the question')


def test_those_who_say_nothing_make_room(pool_daemon, polkit):
    """A user who takes all places of those who have not authenticated keeps nobody else out, and loses only what is wanted."""
    start(pool_daemon, 'auth_unix_rw = "polkit"', 'max_anonymous_clients = 3')
    os.seteuid(NOBODY)
    try:
        silent = [Raw(pool_daemon.socket) for _ in range(3)]
    finally:
        os.seteuid(0)
    assert 'Name' in pool_daemon.virsh('pool-list')
    assert silent[0].closed()
    for raw in silent[1:]:
        assert raw.call(66).body == words(1, 2)
    assert 'user 65534, says nothing while others wait' in pool_daemon.log.read_text()


def test_polkit_is_not_there(pool_daemon, tmp_path, monkeypatch):
    tmp_path.chmod(0o755)
    monkeypatch.setenv('DBUS_SYSTEM_BUS_ADDRESS', f'unix:path={tmp_path}/nobody')
    start(pool_daemon, 'auth_unix_rw = "polkit"', 'access_drivers = [ "polkit" ]')
    assert f"authentication failed: Failed to connect to '{tmp_path}/nobody'" in as_nobody(pool_daemon, 'pool-list')
    assert error_of(pool_daemon.connect().listAllStoragePools)[0] == libvirt.VIR_ERR_AUTH_FAILED


def test_group_and_modes(pool_daemon, tmp_path):
    tmp_path.chmod(0o755)
    start(pool_daemon, 'auth_unix_rw = "none"', 'unix_sock_group = "daemon"', 'unix_sock_rw_perms = "0770"',
          'unix_sock_ro_perms = "0700"', 'unix_sock_admin_perms = "0600"')
    sockets = {path.name.replace('virtstoraged-', ''): path.stat() for path in pool_daemon.socket.parent.glob('*sock*')}
    assert {name: (status.st_mode & 0o777, status.st_gid) for name, status in sockets.items()} == {
        'sock': (0o770, 1), 'sock-ro': (0o700, 1), 'admin-sock': (0o600, 1)}
    assert 'Permission denied' in as_nobody(pool_daemon, 'pool-list')
    done = run('setpriv', '--reuid', NOBODY, '--regid', NOBODY, '--groups', '1', 'virsh', '-c', pool_daemon.uri(), 'pool-list')
    assert 'Name' in done.stdout


def test_group_that_is_not_there(pool_daemon):
    with pytest.raises(AssertionError, match='has ended with 6'):
        start(pool_daemon, 'unix_sock_group = "zork"')
    assert "unix_sock_group: there is no group 'zork'" in pool_daemon.log.read_text()


# --- single objects ---

@pytest.fixture
def guarded(pool_daemon, polkit):
    """A daemon that asks polkit about everything; at first all is allowed."""
    polkit.set([['*', {}, 'yes']])
    start(pool_daemon, 'auth_unix_rw = "none"', 'access_drivers = [ "polkit" ]')
    return pool_daemon


def test_permissions_of_calls(guarded, polkit, tmp_path):
    """Which permission each procedure needs, of which object."""
    connection = guarded.connect()
    assert polkit.actions() == []
    pool = connection.storagePoolDefineXML(pool_xml('demo', guarded.images))
    assert polkit.actions() == ['storage-pool.write', 'storage-pool.save']
    for call, actions in (
            (lambda: pool.build(), ['storage-pool.format']),
            (lambda: pool.create(), ['storage-pool.start']),
            (lambda: pool.refresh(), ['storage-pool.refresh']),
            (lambda: pool.setAutostart(1), ['storage-pool.write']),
            (lambda: (pool.autostart(), pool.info(), pool.XMLDesc(), pool.isActive(), pool.isPersistent()), ['storage-pool.read'] * 5),
            (lambda: connection.listStoragePools(), ['connect.search-storage-pools', 'storage-pool.getattr'] * 2),
            (lambda: connection.numOfStoragePools(), ['connect.search-storage-pools', 'storage-pool.getattr']),
            (lambda: connection.listAllStoragePools(), ['connect.search-storage-pools', 'storage-pool.getattr']),
            (lambda: connection.storagePoolLookupByName('demo'), ['storage-pool.getattr']),
            (lambda: connection.storagePoolLookupByUUID(pool.UUID()), ['storage-pool.getattr']),
            (lambda: connection.storagePoolLookupByTargetPath(str(guarded.images)), ['storage-pool.getattr']),
            (lambda: connection.getStoragePoolCapabilities(), ['connect.read']),
            (lambda: connection.getCapabilities(), ['connect.read']),
            (lambda: connection.findStoragePoolSources('logical', None), ['connect.detect-storage-pools']),
            (lambda: pool.createXML(volume_xml('a', MIB)), ['storage-vol.create']),
            (lambda: pool.listVolumes(), ['storage-pool.search-storage-vols', 'storage-vol.getattr'] * 2),
            (lambda: pool.numOfVolumes(), ['storage-pool.search-storage-vols', 'storage-vol.getattr']),
            (lambda: pool.listAllVolumes(), ['storage-pool.search-storage-vols', 'storage-vol.getattr']),
            (lambda: pool.storageVolLookupByName('a'), ['storage-vol.getattr']),
            (lambda: connection.storageVolLookupByKey(f'{guarded.images}/a'), ['storage-vol.getattr']),
            (lambda: connection.storageVolLookupByPath(f'{guarded.images}/a'), ['storage-vol.getattr'])):
        call()
        assert polkit.actions() == actions
    volume = pool.storageVolLookupByName('a')
    polkit.actions()
    for call, actions in (
            (lambda: (volume.info(), volume.infoFlags(1), volume.XMLDesc(), volume.path()), ['storage-vol.read'] * 4),
            (lambda: volume.storagePoolLookupByVolume(), ['storage-pool.getattr']),
            (lambda: volume.resize(2 * MIB), ['storage-vol.resize']),
            (lambda: (volume.wipe(), volume.wipePattern(0)), ['storage-vol.format'] * 2),
            (lambda: pool.createXMLFrom(volume_xml('b', MIB), volume), ['storage-vol.create']),
            (lambda: guarded.virsh('vol-download', '--pool', 'demo', 'a', tmp_path / 'out'), None),
            (lambda: guarded.virsh('vol-upload', '--pool', 'demo', 'a', tmp_path / 'out'), None)):
        call()
        found = polkit.actions()
        assert found == actions or not actions and {'storage-vol.data-read', 'storage-vol.data-write'} & set(found)
    volume.delete()
    pool.destroy()
    pool.undefine()
    connection.storagePoolCreateXML(pool_xml('passing', guarded.images))
    assert polkit.actions() == ['storage-vol.delete', 'storage-pool.stop', 'storage-pool.delete', 'storage-pool.write',
                                'storage-pool.start']


def test_attributes_of_objects(guarded, polkit):
    connection = guarded.connect()
    pool = connection.storagePoolCreateXML(pool_xml('demo', guarded.images))
    volume = pool.createXML(volume_xml('a', MIB))
    volume.info()
    asked = {question['action'].split('api.')[1]: question for question in polkit.questions()}
    assert asked['storage-pool.start']['details']['pool_name'] == 'demo'
    assert asked['storage-vol.read']['details'] == {
        'connect_driver': 'storage', 'vol_pool_name': 'demo', 'vol_pool_uuid': pool.UUIDString(), 'vol_name': 'a',
        'vol_key': f'{guarded.images}/a'}
    subject = asked['storage-vol.read']['subject']
    assert (subject['pid'], subject['uid']) == (os.getpid(), 0) and subject['start-time'] > 0
    assert asked['storage-vol.read']['flags'] == 0  # rules decide, nobody is asked for a password
    secrets = guarded.connect('secret')
    define_secret(secrets, '/x', b'y').value()
    last = polkit.questions()[-1]
    assert last['action'] == 'org.libvirt.api.secret.read-secure' and last['details']['secret_usage_volume'] == '/x'
    secrets.listSecrets()
    polkit.set([['*.search-secrets', {}, 'yes']])
    assert secrets.listAllSecrets() == [] and secrets.listSecrets() == [] and secrets.numOfSecrets() == 0


def test_one_pool_of_two(guarded, polkit, tmp_path):
    """Whoever has rights on one pool sees nothing of the other, by whatever name."""
    connection = guarded.connect()
    (tmp_path / 'other').mkdir()
    mine = connection.storagePoolCreateXML(pool_xml('mine', guarded.images))
    other = connection.storagePoolCreateXML(pool_xml('other', tmp_path / 'other'))
    secret = other.createXML(volume_xml('secret', MIB))
    polkit.set([['org.libvirt.api.connect.*', {}, 'yes'], ['org.libvirt.api.storage-pool.*', {'pool_name': 'mine'}, 'yes'],
                ['org.libvirt.api.storage-vol.*', {'vol_pool_name': 'mine', 'vol_name': 'a'}, 'yes']])
    assert [pool.name() for pool in connection.listAllStoragePools()] == ['mine'] == connection.listStoragePools()
    assert connection.numOfStoragePools() == 1
    for call in (lambda: connection.storagePoolLookupByName('other'), lambda: connection.storagePoolLookupByUUID(other.UUID()),
                 other.destroy, other.refresh, other.info, other.XMLDesc, other.listVolumes, secret.info, secret.XMLDesc,
                 lambda: secret.delete(), lambda: other.createXML(volume_xml('x', MIB)), lambda: mine.createXML(volume_xml('x', MIB)),
                 lambda: connection.storageVolLookupByPath(secret_path), lambda: connection.storagePoolDefineXML(pool_xml('x', '/x'))):
        secret_path = str(tmp_path / 'other' / 'secret')
        code, message = error_of(call)
        assert code == DENIED and message.startswith('access denied: org.libvirt.api.storage-'), message
    mine.createXML(volume_xml('a', MIB))
    (guarded.images / 'b').write_bytes(b'')
    mine.refresh()
    assert mine.listVolumes() == ['a'] and mine.numOfVolumes() == 1 and [one.name() for one in mine.listAllVolumes()] == ['a']
    polkit.set([])
    for call in connection.listAllStoragePools, connection.listStoragePools, connection.numOfStoragePools, mine.numOfVolumes:
        assert error_of(call)[0] == DENIED
    assert (tmp_path / 'other' / 'secret').exists() and other.UUIDString()


def test_events_are_for_those_who_may_know(guarded, polkit, event_loop):
    connection = guarded.connect()
    heard = []
    connection.storagePoolEventRegisterAny(None, libvirt.VIR_STORAGE_POOL_EVENT_ID_LIFECYCLE,
                                           lambda _c, pool, event, _d, _o: heard.append((pool.name(), event)), None)
    polkit.set([['*', {'pool_name': 'hidden'}, 'no'], ['*', {}, 'yes']])
    other = guarded.connect()
    for name in 'one', 'two', 'three':
        other.storagePoolDefineXML(pool_xml(name, f'/{name}'))
    polkit.set([['*.getattr', {'pool_name': 'hidden'}, 'no'], ['*', {}, 'yes']])
    other.storagePoolDefineXML(pool_xml('hidden', '/hidden'))
    other.storagePoolDefineXML(pool_xml('last', '/last'))
    wait_for(lambda: len(heard) >= 4, 'the events')
    assert heard == [(name, 0) for name in ('one', 'two', 'three', 'last')]


def test_polkit_is_started_again(guarded, polkit):
    """While there is no bus everything is refused; a new one is found."""
    connection = guarded.connect()
    connection.listAllStoragePools()
    polkit.stop()
    assert error_of(connection.listAllStoragePools)[0] == libvirt.VIR_ERR_AUTH_FAILED
    polkit.start()
    assert connection.listAllStoragePools() == []


# --- SASL ---

def saslpasswd(database, user, password):
    subprocess.run(['saslpasswd2', '-f', database, '-a', 'libvirt', '-u', os.uname().nodename, '-c', '-p', user],
                   input=password, text=True, check=True, timeout=PATIENCE_S)


class Sasl:
    """A daemon that asks for SASL, with users "ann" and "eve" in a database of the test's own."""

    def __init__(self, pool, folder):
        self.pool = pool
        self.folder = folder
        self.database = folder / 'sasldb'
        for user in 'ann', 'eve':
            saslpasswd(self.database, user, f'{user}-secret')

    def set_mechanisms(self, text):
        (self.folder / 'sasl2').mkdir(exist_ok=True)
        (self.folder / 'sasl2' / 'libvirt.conf').write_text(
            f'mech_list: {text}\npwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {self.database}\n')

    def virsh(self, user, password):
        """What virsh says to a user with that password."""
        secrets = self.folder / 'auth.conf'
        secrets.write_text(f'[credentials-test]\nauthname={user}\npassword={password}\n[auth-libvirt-localhost]\ncredentials=test\n'
                           f'[auth-libvirt-{os.uname().nodename}]\ncredentials=test\n')
        done = run('virsh', '-c', f'{self.pool.uri()}&authfile={secrets}', 'pool-list', '--all', check=False)
        return re.sub(r'\n+', '\n', done.stdout + done.stderr)


def answers(path):
    """Whether a daemon is there that may want to know who it talks to."""
    try:
        return Raw(path).call(66).status == 0
    except OSError:
        return False


@pytest.fixture
def sasl(pool_daemon, tmp_path, monkeypatch):
    one = Sasl(pool_daemon, tmp_path)
    one.set_mechanisms('SCRAM-SHA-256')
    monkeypatch.setenv('SASL_CONF_PATH', str(tmp_path / 'sasl2'))
    monkeypatch.setattr(pool_daemon, '_answers', lambda: answers(pool_daemon.socket))
    start(pool_daemon, 'auth_unix_rw = "sasl"', 'sasl_allowed_username_list = [ "an*" ]')
    return one


@pytest.mark.parametrize('mechanism', ['SCRAM-SHA-256', 'DIGEST-MD5', 'PLAIN'])
def test_sasl(sasl, mechanism):
    sasl.set_mechanisms(mechanism)
    assert 'Name' in sasl.virsh('ann', 'ann-secret')
    assert 'authentication failed' in sasl.virsh('ann', 'wrong')
    assert 'authentication failed' in sasl.virsh('nobody', 'ann-secret')
    assert 'authentication failed' in sasl.virsh('eve', 'eve-secret')  # who she is is known, but she may not
    assert 'is not in sasl_allowed_username_list' in sasl.pool.log.read_text()
    assert "ann-secret" not in sasl.pool.log.read_text()


def test_sasl_step_by_step(sasl):
    """Steps without a beginning, another mechanism, and calls before the end."""
    raw = Raw(sasl.pool.socket)
    mechanism = struct.pack('>I', 13) + b'SCRAM-SHA-256' + bytes(3)
    nothing = struct.pack('>II', 1, 0)
    chars = struct.pack('>II', 0, 3) + struct.pack('>III', *b'abc')
    assert raw.call(66).body == struct.pack('>II', 1, 1)
    assert 'authentication required' in raw.call(71).error()[2]
    for number, body in (69, chars), (68, mechanism + nothing), (70, b''):
        assert raw.call(number, body).status == 1
    assert raw.call(67).body[4:] == b'SCRAM-SHA-256' + bytes(3)
    assert raw.call(67).status == 1
    assert 'authentication failed' in raw.call(69, chars).error()[2]  # a step of nothing that has begun
    first = b'n,,n=ann,r=nonce'
    assert raw.call(68, mechanism + struct.pack('>II', 0, len(first)) + struct.pack(f'>{len(first)}I', *first)).status == 0
    assert 'authentication failed' in raw.call(68, mechanism + nothing).error()[2]  # begun already
    raw = Raw(sasl.pool.socket)
    assert raw.call(67).status == 0
    assert 'authentication failed' in raw.call(68, mechanism + chars).error()[2]
    assert raw.call(69, chars).status == 1
    assert raw.call(67).status == 0
    assert 'authentication required' in raw.call(71).error()[2]


def test_sasl_is_for_sockets_that_ask_for_it(guarded):
    raw = Raw(guarded.socket)
    assert raw.call(67).error()[2] == 'authentication failed: authentication failed'
    assert raw.call(66).body == struct.pack('>II', 1, 0)
