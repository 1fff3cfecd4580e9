# SPDX-License-Identifier: LGPL-2.1-or-later
"""NBD over TLS, with the clients that people use."""
import contextlib
import ctypes
import os
import pwd
import socket
import subprocess

import pytest

import tls_files
from harness import Daemon, background, need, raw_image, run, wait_for

SIZE = 1 << 20


@pytest.fixture(scope='module')
def certificates(tmp_path_factory):
    return tls_files.make_certificates(tmp_path_factory.mktemp('tls') / 'ok')


def x509(folder, *extra, name='tls0'):
    return ','.join([f'tls-creds-x509,id={name},endpoint=server,dir={folder}', *extra])


class Server:
    """A daemon with one export on a Unix socket, behind these credentials."""

    def __init__(self, tmp_path, creds, *objects, authz=None, export=''):
        self.path = tmp_path / 'nbd.sock'
        self.image = raw_image(tmp_path / 'image', SIZE)
        server = f'addr.type=unix,addr.path={self.path},tls-creds=tls0' + (f',tls-authz={authz}' if authz else '')
        arguments = [word for spec in (creds, *objects) for word in ('--object', spec)]
        self.daemon = Daemon(tmp_path, *arguments, '--blockdev', f'driver=file,node-name=n,filename={self.image}',
                             '--nbd-server', server, '--export', 'type=nbd,id=e,node-name=n,name=,writable=on' + export)

    def __enter__(self):
        self.daemon.__enter__()
        return self

    def __exit__(self, *reason):
        return self.daemon.__exit__(*reason)

    def expect_reason(self, text):
        wait_for(lambda: text in self.daemon.stderr, f'"{text}" on stderr')

    def still_serves(self, folder):
        assert qemu_img(self, folder).returncode == 0


def qemu_img(server, folder, kind='x509', host_name='localhost', **extra):
    """qemu-img as a client with the credentials of the folder; None: without TLS."""
    options = f'driver=nbd,path={server.path}'
    words = [need('qemu-img'), 'info']
    if kind:
        more = ''.join(f',{key.replace("_", "-")}={value}' for key, value in extra.items())
        words += ['--object', f'tls-creds-{kind},id=c,endpoint=client,dir={folder}{more}']
        options += ',tls-creds=c'
    if kind == 'x509':
        options += f',tls-hostname={host_name}'
    return run(*words, '--image-opts', options, check=False)


def test_qemu_img_and_nbdinfo(tmp_path, certificates):
    with Server(tmp_path, x509(certificates)) as server:
        assert '1 MiB' in qemu_img(server, certificates).stdout
        uri = f'nbds+unix://localhost/?socket={server.path}&tls-certificates={certificates}'
        assert run(need('nbdinfo'), '--size', uri).stdout.strip() == str(SIZE)


def test_data_both_ways(tmp_path, certificates):
    """A whole image written and read back by libnbd's copy tool."""
    source = tmp_path / 'source'
    source.write_bytes(os.urandom(SIZE))
    with Server(tmp_path, x509(certificates)) as server:
        uri = f'nbds+unix://localhost/?socket={server.path}&tls-certificates={certificates}'
        run(need('nbdcopy'), '--flush', source, uri)
        run(need('nbdcopy'), uri, tmp_path / 'back')
    assert (tmp_path / 'back').read_bytes() == source.read_bytes() == server.image.read_bytes()


def test_in_an_iothread(tmp_path, certificates):
    """The session is made on the main loop, and goes on in the thread of the export."""
    source = tmp_path / 'source'
    source.write_bytes(os.urandom(SIZE))
    with Server(tmp_path, x509(certificates), 'iothread,id=io0', export=',iothread=io0') as server:
        uri = f'nbds+unix://localhost/?socket={server.path}&tls-certificates={certificates}'
        run(need('nbdcopy'), '--connections=4', '--requests=16', '--flush', source, uri)
        run(need('nbdcopy'), '--connections=4', '--requests=16', uri, tmp_path / 'back')
    assert (tmp_path / 'back').read_bytes() == source.read_bytes()


def test_tls_1_2(tmp_path, certificates):
    with Server(tmp_path, x509(certificates, 'priority=NORMAL:-VERS-ALL:+VERS-TLS1.2')) as server:
        server.still_serves(certificates)


def test_client_without_tls(tmp_path, certificates):
    with Server(tmp_path, x509(certificates)) as server:
        done = qemu_img(server, None, kind=None)
        assert done.returncode and 'TLS' in done.stderr
        server.still_serves(certificates)


def test_client_without_certificate(tmp_path, certificates):
    bare = tls_files.copy(certificates, tmp_path / 'bare')
    (bare / 'client-cert.pem').unlink()
    with Server(tmp_path, x509(certificates)) as server:
        assert qemu_img(server, bare).returncode
        server.expect_reason('Verify failed: No certificate was found')
        server.still_serves(certificates)


def test_client_certificate_not_asked_for(tmp_path, certificates):
    bare = tls_files.copy(certificates, tmp_path / 'bare')
    (bare / 'client-cert.pem').unlink()
    with Server(tmp_path, x509(certificates, 'verify-peer=off')) as server:
        server.still_serves(bare)


def test_expired_client(tmp_path, certificates):
    old = tls_files.copy(certificates, tmp_path / 'old')
    tls_files.make_certificate(old, 'client', tls_files.CLIENT + tls_files.PAST)
    with Server(tmp_path, x509(certificates)) as server:
        assert qemu_img(server, old, sanity_check='off').returncode
        server.expect_reason(f"The certificate has expired: '{tls_files.CLIENT_NAME}'")
        server.still_serves(certificates)


def test_client_of_another_authority(tmp_path, certificates):
    stranger = tls_files.copy(certificates, tmp_path / 'stranger')
    other = tls_files.make_authority(tmp_path / 'other')
    tls_files.make_certificate(stranger, 'client', tls_files.CLIENT + tls_files.VALID, authority=other)
    with Server(tmp_path, x509(certificates)) as server:
        assert qemu_img(server, stranger, sanity_check='off').returncode
        server.expect_reason("The certificate hasn't got a known issuer")
        server.still_serves(certificates)


def test_client_finds_wrong_host(tmp_path, certificates):
    with Server(tmp_path, x509(certificates)) as server:
        done = qemu_img(server, certificates, host_name='example.org')
        assert done.returncode and 'example.org' in done.stderr
        server.still_serves(certificates)


def test_authz(tmp_path, certificates):
    allow = f'authz-simple,id=us,identity={tls_files.CLIENT_NAME.replace(",", ",,")}'
    with Server(tmp_path, x509(certificates), allow, authz='us') as server:
        server.still_serves(certificates)
        server.daemon.qmp.command('qom-set', path='us', property='identity', value='CN=somebody else')
        assert qemu_img(server, certificates).returncode
        server.expect_reason(f"TLS x509 authz check for {tls_files.CLIENT_NAME} is denied by 'us'")
        server.daemon.qmp.command('qom-set', path='us', property='identity', value=tls_files.CLIENT_NAME)
        server.still_serves(certificates)


def test_authz_list_file(tmp_path, certificates):
    rules = tmp_path / 'rules'
    rules.write_text('{"rules": [{"match": "O=Masons,*", "policy": "allow", "format": "glob"}]}')
    with Server(tmp_path, x509(certificates), f'authz-listfile,id=list,filename={rules}', authz='list') as server:
        server.still_serves(certificates)
        rules.write_text('{"rules": []}')
        assert qemu_img(server, certificates).returncode
        server.expect_reason("is denied by 'list'")
        rules.write_text('{"policy": "allow"')
        assert qemu_img(server, certificates).returncode
        server.expect_reason(f"Authorization list '{rules}': ")
        rules.write_text('{"policy": "allow"}')
        server.still_serves(certificates)


def test_authz_object_missing(tmp_path, certificates):
    with Server(tmp_path, x509(certificates), authz='nobody') as server:
        assert qemu_img(server, certificates).returncode
        server.expect_reason('Cannot find QAuthZ object ID nobody')


def test_psk(tmp_path):
    keys = tls_files.make_psk(tmp_path / 'psk', 'alice', 'bob')
    with Server(tmp_path, f'tls-creds-psk,id=tls0,endpoint=server,dir={keys}') as server:
        assert qemu_img(server, keys, kind='psk', username='alice').returncode == 0
        uri = f'nbds+unix://bob@localhost/?socket={server.path}&tls-psk-file={keys}/keys.psk'
        assert run(need('nbdinfo'), '--size', uri).stdout.strip() == str(SIZE)
        # Users come and go without a restart.
        run('psktool', '-u', 'carol', '-p', keys / 'keys.psk')
        assert qemu_img(server, keys, kind='psk', username='carol').returncode == 0


def test_psk_refused(tmp_path):
    keys = tls_files.make_psk(tmp_path / 'psk', 'alice')
    forged = tls_files.make_psk(tmp_path / 'forged', 'alice', 'eve')
    with Server(tmp_path, f'tls-creds-psk,id=tls0,endpoint=server,dir={keys}') as server:
        assert qemu_img(server, forged, kind='psk', username='eve').returncode
        server.expect_reason("username 'eve' is not in the PSK file")
        assert qemu_img(server, forged, kind='psk', username='alice').returncode
        server.expect_reason("the key of username 'alice' is another")
        assert qemu_img(server, keys, kind='psk', username='alice').returncode == 0


def handshake_as(sock, username, key):
    """What GnuTLS says of a handshake of ours, and of the first bytes after it, with any bytes as user name."""
    class Datum(ctypes.Structure):
        _fields_ = [('data', ctypes.c_char_p), ('size', ctypes.c_uint)]

    gnutls = ctypes.CDLL('libgnutls.so.30')
    gnutls.gnutls_record_recv.restype = ctypes.c_ssize_t
    creds, session = ctypes.c_void_p(), ctypes.c_void_p()
    assert gnutls.gnutls_psk_allocate_client_credentials(ctypes.byref(creds)) == 0
    assert gnutls.gnutls_psk_set_client_credentials2(creds, ctypes.byref(Datum(username, len(username))),
                                                     ctypes.byref(Datum(key, len(key))), 1) == 0
    assert gnutls.gnutls_init(ctypes.byref(session), 2) == 0
    assert gnutls.gnutls_priority_set_direct(session, b'NORMAL:+ECDHE-PSK:+PSK', None) == 0
    assert gnutls.gnutls_credentials_set(session, 4, creds) == 0
    gnutls.gnutls_transport_set_int2(session, sock.fileno(), sock.fileno())
    result = gnutls.gnutls_handshake(session)
    if result == 0:
        result = gnutls.gnutls_record_recv(session, ctypes.create_string_buffer(1), ctypes.c_size_t(1))
    gnutls.gnutls_deinit(session)
    gnutls.gnutls_psk_free_client_credentials(creds)
    return result


def test_psk_username_with_nul(tmp_path):
    """A name that only starts like one we know, from somebody who has that one's key."""
    keys = tls_files.make_psk(tmp_path / 'psk', 'alice')
    key = (keys / 'keys.psk').read_bytes().split(b':')[1].strip()
    with Server(tmp_path, f'tls-creds-psk,id=tls0,endpoint=server,dir={keys}', 'authz-simple,id=us,identity=alice',
                authz='us') as server:
        sock = start_tls(server)
        sock.setblocking(True)
        assert handshake_as(sock, b'alice\0eve', key) < 0
        server.expect_reason('The username of the TLS peer is not valid')
        assert qemu_img(server, keys, kind='psk', username='alice').returncode == 0


def test_psk_authz(tmp_path):
    keys = tls_files.make_psk(tmp_path / 'psk', 'alice', 'bob')
    with Server(tmp_path, f'tls-creds-psk,id=tls0,endpoint=server,dir={keys}', 'authz-simple,id=us,identity=alice',
                authz='us') as server:
        assert qemu_img(server, keys, kind='psk', username='alice').returncode == 0
        assert qemu_img(server, keys, kind='psk', username='bob').returncode
        server.expect_reason("TLS PSK authz check for bob is denied by 'us'")


def test_psk_pam(tmp_path):
    """PAM's account rules know the users of this machine."""
    user = pwd.getpwuid(os.getuid()).pw_name
    keys = tls_files.make_psk(tmp_path / 'psk', user, 'no-such-user')
    with Server(tmp_path, f'tls-creds-psk,id=tls0,endpoint=server,dir={keys}', 'authz-pam,id=pam,service=other',
                authz='pam') as server:
        assert qemu_img(server, keys, kind='psk', username='no-such-user').returncode
        server.expect_reason("TLS PSK authz check for no-such-user is denied by 'pam'")
        assert qemu_img(server, keys, kind='psk', username=user).returncode == 0


def test_anonymous(tmp_path):
    with Server(tmp_path, 'tls-creds-anon,id=tls0,endpoint=server') as server:
        assert qemu_img(server, tmp_path, kind='anon').returncode == 0


def test_anonymous_has_no_name_to_authorize(tmp_path):
    with Server(tmp_path, 'tls-creds-anon,id=tls0,endpoint=server', 'authz-simple,id=us,identity=alice',
                authz='us') as server:
        assert qemu_img(server, tmp_path, kind='anon').returncode
        server.expect_reason("no identity to be authorized by 'us'")


def start_tls(server):
    """A connection right behind the server's yes to STARTTLS."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    sock.connect(str(server.path))
    assert len(sock.recv(18, socket.MSG_WAITALL)) == 18
    sock.sendall(b'\0\0\0\3' + b'IHAVEOPT\0\0\0\5\0\0\0\0')
    assert sock.recv(20, socket.MSG_WAITALL)[12:16] == b'\0\0\0\1'
    return sock


def test_handshake_cut(tmp_path, certificates):
    """Clients that go away, or talk nonsense, in the middle of the handshake cost themselves only."""
    hello = bytes.fromhex('160301020001 0001fc0303'.replace(' ', ''))
    with Server(tmp_path, x509(certificates)) as server:
        for data in (b'', hello, b'IHAVEOPT\0\0\0\3\0\0\0\0', os.urandom(64)):
            sock = start_tls(server)
            sock.sendall(data)
            sock.close()
        wait_for(lambda: server.daemon.stderr.count('TLS handshake failed') == 4, 'four reasons')
        server.still_serves(certificates)


def test_export_and_server_go_during_handshake(tmp_path, certificates):
    with Server(tmp_path, x509(certificates)) as server:
        waiting = [start_tls(server) for _ in range(3)]
        waiting[1].sendall(bytes.fromhex('16030102000100'))
        server.daemon.qmp.command('block-export-del', id='e', mode='hard')
        server.daemon.qmp.event('BLOCK_EXPORT_DELETED')
        server.daemon.qmp.command('nbd-server-stop')
        for sock in waiting:
            assert sock.recv(100) == b''
            sock.close()
        server.daemon.qmp.command('query-version')


@contextlib.contextmanager
def gnutls_cli(server, certificates, version):
    """gnutls-cli in a session with the server; it speaks TCP only, and a relay does the first steps of NBD for it."""
    listener = socket.create_server(('127.0.0.1', 0))
    words = [need('gnutls-cli'), '--x509cafile', certificates / 'ca-cert.pem', '--x509certfile',
             certificates / 'client-cert.pem', '--x509keyfile', certificates / 'client-key.pem', '--priority',
             f'NORMAL:-VERS-ALL:+VERS-{version}', '--inline-commands', '--verify-hostname=localhost', '--logfile=/dev/null',
             '-p', listener.getsockname()[1], '127.0.0.1']
    with background(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
        near = listener.accept()[0]
        far = start_tls(server)
        with background(need('socat'), f'FD:{near.fileno()}', f'FD:{far.fileno()}',
                        pass_fds=[near.fileno(), far.fileno()]):
            for sock in (near, far, listener):
                sock.close()
            yield client


def test_renegotiation(tmp_path, certificates):
    """A client that wants new terms in mid-session is let go; the others don't notice."""
    with Server(tmp_path, x509(certificates)) as server:
        with gnutls_cli(server, certificates, 'TLS1.2') as client:
            client.stdin.write(b'^renegotiate^\n')
            client.stdin.flush()
            server.expect_reason('dropped during the handshake: reading option header: Protocol error')
        server.still_serves(certificates)


def test_change_of_keys(tmp_path, certificates):
    """TLS 1.3 lets both sides change keys, which goes unnoticed above."""
    with Server(tmp_path, x509(certificates)) as server:
        with gnutls_cli(server, certificates, 'TLS1.3') as client:
            client.stdin.write(b'^rekey^\n^rekey1^\nIHAVEOPT\0\0\0\3\0\0\0\0')
            client.stdin.flush()
            seen = b''
            while seen.count(b'\0\3\xe8\x89\x04\x55\x65\xa9') < 2:
                piece = os.read(client.stdout.fileno(), 4096)
                assert piece, server.daemon.stderr
                seen += piece
        assert 'Protocol error' not in server.daemon.stderr


def test_credentials_replaced_while_in_use(tmp_path, certificates):
    """object-del takes the name; what the server holds goes on."""
    with Server(tmp_path, x509(certificates)) as server:
        server.daemon.qmp.command('object-del', id='tls0')
        server.still_serves(certificates)
        server.daemon.qmp.command('object-add', qom_type='tls-creds-x509', id='tls0', endpoint='server',
                                  dir=str(certificates))
        server.still_serves(certificates)
