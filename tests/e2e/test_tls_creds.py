# SPDX-License-Identifier: LGPL-2.1-or-later
"""TLS credentials as objects: what is refused, in which words, and what it costs to have them not."""
import pathlib

import pytest

import tls_files
from harness import Daemon, QmpError, storaged_fails


@pytest.fixture(scope='module')
def certificates(tmp_path_factory):
    return tls_files.make_certificates(tmp_path_factory.mktemp('tls') / 'ok')


@pytest.fixture
def storaged(daemon):
    return daemon()


def refusal(storaged, **options):
    with pytest.raises(QmpError) as caught:
        storaged.qmp.command('object-add', id='o', **options)
    return caught.value.desc


def server(folder, **more):
    return {'qom_type': 'tls-creds-x509', 'endpoint': 'server', 'dir': str(folder), **more}


def test_files_missing(storaged, tmp_path, certificates):
    for name in ('ca-cert.pem', 'server-cert.pem', 'server-key.pem'):
        folder = tls_files.copy(certificates, tmp_path / f'without-{name}')
        (folder / name).unlink()
        assert refusal(storaged, **server(folder)) == \
            f'Unable to access credentials {folder}/{name}: No such file or directory'
    assert refusal(storaged, qom_type='tls-creds-x509') == "Missing 'dir' property value"


def test_expired(storaged, tmp_path, certificates):
    folder = tls_files.copy(certificates, tmp_path / 'old')
    tls_files.make_certificate(folder, 'server', tls_files.SERVER + tls_files.PAST)
    assert refusal(storaged, **server(folder)) == f'The server certificate {folder}/server-cert.pem has expired'
    storaged.qmp.command('object-add', id='unchecked', **server(folder, sanity_check=False))


def test_not_yet_valid(storaged, tmp_path, certificates):
    folder = tls_files.copy(certificates, tmp_path / 'early')
    tls_files.make_certificate(folder, 'server', tls_files.SERVER +
                               'activation_date="2400-01-01 00:00:00"\nexpiration_date="2401-01-01 00:00:00"\n')
    assert refusal(storaged, **server(folder)) == f'The server certificate {folder}/server-cert.pem is not yet active'


def test_basic_constraints(storaged, tmp_path, certificates):
    folder = tls_files.copy(certificates, tmp_path / 'ca')
    tls_files.make_certificate(folder, 'server', tls_files.SERVER + 'ca\n' + tls_files.VALID)
    assert refusal(storaged, **server(folder)) == \
        f'The certificate {folder}/server-cert.pem basic constraints show a CA, but we need one for a server'


def test_another_authority(storaged, tmp_path, certificates):
    folder = tls_files.copy(certificates, tmp_path / 'strange')
    other = tls_files.make_authority(tmp_path / 'other')
    tls_files.make_certificate(folder, 'server', tls_files.SERVER + tls_files.VALID, authority=other)
    assert refusal(storaged, **server(folder)) == \
        f'Our own certificate {folder}/server-cert.pem failed validation against {folder}/ca-cert.pem: ' \
        "The certificate hasn't got a known issuer"


def test_wrong_key(storaged, tmp_path, certificates):
    folder = tls_files.copy(certificates, tmp_path / 'mixed')
    tls_files.make_key(folder / 'server-key.pem')
    assert refusal(storaged, **server(folder)).startswith(
        f"Cannot load certificate '{folder}/server-cert.pem' & key '{folder}/server-key.pem': ")


def test_garbage(storaged, tmp_path, certificates):
    for name, text in (('ca-cert.pem', 'Unable to import CA certificate list'),
                       ('server-cert.pem', 'Unable to import server certificate'),
                       ('server-key.pem', 'Cannot load certificate'), ('ca-crl.pem', 'Cannot load CRL'),
                       ('dh-params.pem', 'Unable to load DH parameters from')):
        folder = tls_files.copy(certificates, tmp_path / f'garbage-{name}')
        (folder / name).write_bytes(b'\0garbage\xff')
        message = refusal(storaged, **server(folder))
        assert message.startswith(text) and f'{folder}/{name}' in message


def test_priority(storaged, certificates):
    assert refusal(storaged, **server(certificates, priority='NONSENSE')).startswith(
        'Unable to set TLS session priority NONSENSE: ')
    storaged.qmp.command('object-add', id='good', **server(certificates, priority='SECURE256'))


def test_wrong_end(storaged, tmp_path, certificates):
    storaged.qmp.command('object-add', qom_type='tls-creds-x509', id='client', endpoint='client', dir=str(certificates))
    storaged.qmp.command('object-add', qom_type='secret', id='secret', data='x')
    for creds, message in (('client', 'Expected TLS credentials for a server endpoint'),
                           ('secret', "Object with id 'secret' is not TLS credentials"),
                           ('nobody', "No TLS credentials with id 'nobody'")):
        with pytest.raises(QmpError) as caught:
            storaged.qmp.command('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(tmp_path / 'nbd')}},
                               tls_creds=creds)
        assert caught.value.desc == message


def test_command_line(certificates):
    message = storaged_fails('--object', f'tls-creds-x509,id=t,endpoint=server,dir={certificates}/none')
    assert f'Unable to access credentials {certificates}/none/ca-cert.pem: No such file or directory' in message


def test_module_missing(tmp_path):
    """Without the module the daemon runs, and says which package is missed."""
    with Daemon(tmp_path, env={'ASHLAR_MODULE_DIR': str(tmp_path)}) as daemon:
        message = refusal(daemon, qom_type='tls-creds-anon')
        assert 'ashlar-tls-gnutls.so' in message and 'libgnutls30' in message


def test_library_loads_on_demand(storaged):
    maps = pathlib.Path(f'/proc/{storaged.pid}/maps')
    assert 'gnutls' not in maps.read_text()
    storaged.qmp.command('object-add', qom_type='tls-creds-anon', id='anon')
    assert 'libgnutls' in maps.read_text()
