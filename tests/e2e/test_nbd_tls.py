# SPDX-License-Identifier: LGPL-2.1-or-later
"""NBD over TLS: certificates, pre-shared keys, anonymous; authorisation; and clients that break off (N7, N8)."""
import os
import ssl
import struct

import nbd as libnbd
import pytest

import nbd_raw as nbd
from harness import QmpError, need, run, wait_for
from nbd_raw import NbdRaw, OptionError
from nbd_serving import MIB, Served, free_port, pattern, sparse_image

KEY = '6c9dd7bd6ec4e0e14a2fb7d34e5d6bc9c9d4a0c2dfc6cbf1a07f8e9a4f1b2c3d'


def certificate(folder, name, template, ca=None):
    """A key and a certificate, signed by `ca` or by itself."""
    (folder / f'{name}.template').write_text(template)
    run(need('certtool'), '--generate-privkey', '--key-type=ecdsa', '--outfile', folder / f'{name}-key.pem')
    how = ['--generate-certificate', '--load-ca-certificate', folder / f'{ca}-cert.pem',
           '--load-ca-privkey', folder / f'{ca}-key.pem'] if ca else ['--generate-self-signed']
    run(need('certtool'), *how, '--template', folder / f'{name}.template', '--load-privkey', folder / f'{name}-key.pem',
        '--outfile', folder / f'{name}-cert.pem')


@pytest.fixture(scope='session')
def pki(tmp_path_factory):
    """ca, a server's and two clients' certificates, one that has expired, and one of a stranger; the server's folder."""
    folder = tmp_path_factory.mktemp('pki')
    certificate(folder, 'ca', 'cn = "test ca"\nca\ncert_signing_key\n')
    certificate(folder, 'other-ca', 'cn = "other ca"\nca\ncert_signing_key\n')
    certificate(folder, 'server', 'cn = "localhost"\ndns_name = "localhost"\nip_address = "127.0.0.1"\ntls_www_server\n'
                                  'signing_key\nencryption_key\n', 'ca')
    client = 'cn = "{}"\ntls_www_client\nsigning_key\nencryption_key\n'
    for name in ('alice', 'bob'):
        certificate(folder, name, client.format(name), 'ca')
    certificate(folder, 'expired', client.format('alice') + 'activation_date = "2001-01-01 00:00:00"\n'
                                   'expiration_date = "2002-01-01 00:00:00"\n', 'ca')
    certificate(folder, 'stranger', client.format('alice'), 'other-ca')
    for name in ('server', 'alice', 'bob', 'expired', 'stranger'):
        own = folder / name
        own.mkdir()
        (own / 'ca-cert.pem').write_bytes((folder / 'ca-cert.pem').read_bytes())
        kind = 'server' if name == 'server' else 'client'
        for part in ('cert', 'key'):
            (own / f'{kind}-{part}.pem').write_bytes((folder / f'{name}-{part}.pem').read_bytes())
    return folder


@pytest.fixture
def image(tmp_path):
    return sparse_image(tmp_path / 'disk.img', 4 * MIB, (0, pattern(3 * MIB)))


@pytest.fixture
def x509(daemon, tmp_path, image, pki):
    return Served(daemon, tmp_path, image=image, server=',tls-creds=tls', first=[
        '--object', f'tls-creds-x509,id=tls,endpoint=server,dir={pki}/server,verify-peer=on'])


@pytest.fixture
def psk(daemon, tmp_path, image):
    folder = tmp_path / 'psk'
    folder.mkdir()
    (folder / 'keys.psk').write_text(f'alice:{KEY}\nbob:{KEY[::-1]}\n')
    return Served(daemon, tmp_path, image=image, server=',tls-creds=tls', first=[
        '--object', f'tls-creds-psk,id=tls,endpoint=server,dir={folder}'])


def tls_client(served, identity=None, key_file=None, pki=None, path=None):
    """A handle of libnbd that insists on TLS, connected."""
    handle = libnbd.NBD()
    handle.set_tls(libnbd.TLS_REQUIRE)
    handle.set_export_name('x')
    if key_file:
        handle.set_tls_psk_file(str(key_file))
        handle.set_tls_username(identity)
    else:
        handle.set_tls_certificates(str(pki / identity))
        handle.set_tls_verify_peer(False)
    handle.connect_unix(str(path or served.path))
    return handle


def exercise(handle, served):
    content = served.content()
    assert handle.get_tls_negotiated()
    assert handle.pread(len(content), 0) == content
    data = pattern(MIB, 3)
    handle.pwrite(data, 100)
    handle.flush()
    assert handle.pread(MIB, 100) == data
    handle.shutdown()
    assert served.content()[100:100 + MIB] == data


def test_x509(x509, pki):
    exercise(tls_client(x509, 'alice', pki=pki), x509)


def test_x509_on_an_iothread(daemon, tmp_path, image, pki):
    """The handshake on the main loop, the requests on another."""
    served = Served(daemon, tmp_path, image=image, server=',tls-creds=tls', export='writable=on,iothread=thread0', first=[
        '--object', f'tls-creds-x509,id=tls,endpoint=server,dir={pki}/server,verify-peer=on', '--object', 'iothread,id=thread0'])
    handles = [tls_client(served, 'alice', pki=pki) for _ in range(4)]
    for handle in handles:
        assert handle.pread(4096, 0) == served.content()[:4096]
    for handle in handles:
        exercise(handle, served)


@pytest.mark.parametrize('identity', ['expired', 'stranger'])
def test_bad_certificates(x509, pki, identity):
    """N8: that client is dropped, with the reason logged."""
    with pytest.raises(libnbd.Error):
        tls_client(x509, identity, pki=pki).pread(1, 0)
    wait_for(lambda: f'NBD client (process {os.getpid()}) dropped' in x509.daemon.stderr, 'the reason')
    exercise(tls_client(x509, 'bob', pki=pki), x509)


def test_x509_authorisation(daemon, tmp_path, image, pki):
    served = Served(daemon, tmp_path, image=image, server=',tls-creds=tls,tls-authz=who', first=[
        '--object', f'tls-creds-x509,id=tls,endpoint=server,dir={pki}/server,verify-peer=on',
        '--object', 'authz-simple,id=who,identity=CN=alice'])
    with pytest.raises(libnbd.Error):
        tls_client(served, 'bob', pki=pki).pread(1, 0)
    exercise(tls_client(served, 'alice', pki=pki), served)


def test_psk(psk, tmp_path):
    exercise(tls_client(psk, 'alice', tmp_path / 'psk' / 'keys.psk'), psk)


def test_wrong_psk(psk, tmp_path):
    """N8."""
    (tmp_path / 'wrong.psk').write_text(f'alice:{KEY[::-1]}\nmallory:{KEY}\n')
    for identity in ('alice', 'mallory'):
        with pytest.raises(libnbd.Error):
            tls_client(psk, identity, tmp_path / 'wrong.psk').pread(1, 0)
    exercise(tls_client(psk, 'bob', tmp_path / 'psk' / 'keys.psk'), psk)


def test_anonymous(daemon, tmp_path, image):
    served = Served(daemon, tmp_path, image=image, server=',tls-creds=tls', first=['--object', 'tls-creds-anon,id=tls,endpoint=server'])
    options = f'driver=nbd,server.type=unix,server.path={served.path},export=x,tls-creds=client'
    done = run(need('qemu-io'), '--object', 'tls-creds-anon,id=client,endpoint=client', '--image-opts', options,
               '-c', 'write -P 0x5a 64k 64k', '-c', 'read -P 0x5a 64k 64k', '-c', 'flush')
    assert 'wrote 65536/65536' in done.stdout
    assert served.content()[65536:131072] == b'\x5a' * 65536


def test_qemu_over_tcp_with_x509(x509, pki):
    x509.qmp.command('nbd-server-stop')
    port = free_port()
    x509.qmp.command('nbd-server-start', addr={'type': 'inet', 'data': {'host': '127.0.0.1', 'port': str(port)}}, tls_creds='tls')
    x509.qmp.command('block-export-add', type='nbd', id='exp', node_name='disk', name='x')
    options = f'driver=nbd,host=127.0.0.1,port={port},export=x,tls-creds=client'
    objects = ['--object', f'tls-creds-x509,id=client,endpoint=client,dir={pki}/alice']
    info = run(need('qemu-img'), 'info', *objects, '--image-opts', options)
    assert '4 MiB' in info.stdout
    run(need('qemu-img'), 'compare', *objects, '--image-opts', f'driver=raw,file.driver=file,file.filename={x509.image}', options)


def test_tls_is_required(psk):
    """Nothing but STARTTLS and ABORT before TLS."""
    with psk.connect() as client:
        for option, data in ((nbd.OPT_LIST, b''), (nbd.OPT_INFO, NbdRaw.info_data('x')), (nbd.OPT_GO, NbdRaw.info_data('x')),
                             (nbd.OPT_STRUCTURED_REPLY, b''), (nbd.OPT_EXTENDED_HEADERS, b''), (77, b'data'),
                             (nbd.OPT_LIST_META_CONTEXT, NbdRaw.context_data('x', []))):
            with pytest.raises(OptionError) as error:
                client.option(option, data)
            assert error.value.code == nbd.REP_ERR_TLS_REQD
        client.option(nbd.OPT_ABORT)
        assert client.at_end()
    with psk.connect() as client:
        client.send_option(nbd.OPT_EXPORT_NAME, b'x')
        assert client.at_end()


def wrap(client, pki, identity='alice'):
    """STARTTLS and the handshake on a raw client."""
    assert client.option(nbd.OPT_STARTTLS) == []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(pki / identity / 'client-cert.pem', pki / identity / 'client-key.pem')
    client.sock = context.wrap_socket(client.sock)


def test_nothing_of_before_tls_is_kept(x509, pki):
    """N7: what is negotiated inside counts, and STARTTLS works once."""
    with x509.connect() as client:
        wrap(client, pki)
        with pytest.raises(OptionError) as error:
            client.option(nbd.OPT_STARTTLS)
        assert error.value.code == nbd.REP_ERR_INVALID
        with pytest.raises(OptionError) as error:
            client.set_contexts('x', ['base:allocation'])
        assert error.value.code == nbd.REP_ERR_INVALID
        client.negotiate('structured')
        client.go('x')
        assert client.read(0, 100) == x509.content()[:100]


@pytest.mark.parametrize('behind', [struct.pack('>QII', nbd.IHAVEOPT, nbd.OPT_LIST, 0), b'\x16\x03\x01', b'\0'],
                         ids=['option', 'record', 'zero'])
def test_plaintext_behind_starttls(x509, pki, behind):
    """N7."""
    with x509.connect() as client:
        client.send(struct.pack('>QII', nbd.IHAVEOPT, nbd.OPT_STARTTLS, 0) + behind)
        client.sock.shutdown(1)
        rest = b''
        while not client_ended(client):
            rest += client.sock.recv(1)
        # At most the go-ahead and an alert of TLS; never a reply to what was smuggled in.
        assert struct.pack('>QI', nbd.REPLY_MAGIC, nbd.OPT_LIST) not in rest
    exercise(tls_client(x509, 'alice', pki=pki), x509)


def client_ended(client):
    try:
        return not client.sock.recv(1, 2)
    except ConnectionError:
        return True


def test_starttls_with_data(x509):
    with x509.connect() as client:
        with pytest.raises(OptionError) as error:
            client.option(nbd.OPT_STARTTLS, b'x')
        assert error.value.code == nbd.REP_ERR_INVALID


@pytest.mark.parametrize('garbage', [b'', b'\x16\x03\x01', b'GET / HTTP/1.1\r\n\r\n', bytes(1000), b'\x16\x03\x01\xff\xff' + bytes(300)],
                         ids=['nothing', 'half-a-header', 'http', 'zeroes', 'long-record'])
def test_tls_handshake_breaks_off(x509, pki, garbage):
    """N8."""
    before = x509.descriptors()
    with x509.connect() as client:
        assert client.option(nbd.OPT_STARTTLS) == []
        client.send(garbage)
    wait_for(lambda: x509.descriptors() <= before, 'the connection to be closed')
    exercise(tls_client(x509, 'alice', pki=pki), x509)


def test_tls_handshake_timeout(daemon, tmp_path, image, pki):
    served = Served(daemon, tmp_path, image=image, server=',tls-creds=tls,handshake-max-seconds=1', first=[
        '--object', f'tls-creds-x509,id=tls,endpoint=server,dir={pki}/server,verify-peer=on'])
    with served.connect() as client:
        assert client.option(nbd.OPT_STARTTLS) == []
        assert client_ended(client)


def test_removal_during_tls(x509, pki):
    """N8: the export, and the server, go while clients are in the TLS handshake and in use."""
    halfway = x509.connect()
    assert halfway.option(nbd.OPT_STARTTLS) == []
    busy = tls_client(x509, 'alice', pki=pki)
    assert busy.pread(1, 0)
    x509.qmp.command('block-export-del', id='exp', mode='hard')
    x509.qmp.event('BLOCK_EXPORT_DELETED')
    with pytest.raises(libnbd.Error):
        busy.pread(1, 0)
    x509.qmp.command('nbd-server-stop')
    assert client_ended(halfway)
    x509.qmp.command('object-del', id='tls')


def test_credentials_outlive_their_object(x509, pki):
    """As in the reference: their id is free, and the running server goes on with them."""
    x509.qmp.command('object-del', id='tls')
    exercise(tls_client(x509, 'alice', pki=pki), x509)
    x509.qmp.command('nbd-server-stop')
    with pytest.raises(QmpError, match="No TLS credentials with id 'tls'"):
        x509.qmp.command('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(x509.path)}}, tls_creds='tls')


def test_wrong_credentials(daemon, tmp_path, image, pki):
    served = Served(daemon, tmp_path, image=image, first=[
        '--object', f'tls-creds-x509,id=client,endpoint=client,dir={pki}/alice', '--object', 'secret,id=sec,data=x'])
    served.qmp.command('nbd-server-stop')
    address = {'type': 'unix', 'data': {'path': str(served.path)}}
    for name in ('nobody', 'client', 'sec'):
        with pytest.raises(QmpError) as error:
            served.qmp.command('nbd-server-start', addr=address, tls_creds=name)
        assert name in error.value.desc or 'endpoint' in error.value.desc
    served.qmp.command('nbd-server-start', addr=address)


def test_client_without_tls_finds_none(daemon, tmp_path):
    served = Served(daemon, tmp_path)
    with pytest.raises(libnbd.Error):
        tls_client(served, 'alice', key_file='/dev/null').pread(1, 0)
