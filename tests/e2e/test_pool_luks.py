# SPDX-License-Identifier: LGPL-2.1-or-later
"""Encrypted volumes, with secrets that the daemon keeps itself."""
import libvirt
from harness import run
from pool_daemon import error_of, pool_xml, volume_xml

MIB = 1 << 20


def define_secret(connection, usage, value):
    secret = connection.secretDefineXML(f"<secret ephemeral='no' private='no'><usage type='volume'><volume>{usage}</volume>"
                                        '</usage></secret>')
    secret.setValue(value)
    return secret


def encrypted_xml(name, kind, secret):
    return (f"<volume><name>{name}</name><capacity unit='MiB'>4</capacity><target><format type='{kind}'/>"
            f"<encryption format='luks'>{secret}</encryption></target></volume>")


def test_life_of_an_encrypted_volume(pool_daemon, tmp_path):
    """Deriving keys takes seconds each time, so it is all in one."""
    connection = pool_daemon.start().connect()
    secrets = pool_daemon.connect('secret')
    pool = connection.storagePoolCreateXML(pool_xml('demo', pool_daemon.images), 0)
    path = pool_daemon.images / 'a.luks'
    secret = define_secret(secrets, path, b'open sesame')
    content = bytes(range(256)) * 4096
    plain = pool.createXML(volume_xml('plain.raw', 4 * MIB))
    with open(pool_daemon.images / 'plain.raw', 'r+b') as file:
        file.write(content)
    locked = pool.createXMLFrom(encrypted_xml('a.luks', 'raw', f"<secret type='passphrase' usage='{path}'/>"), plain)
    assert locked.info()[1] == 4 * MIB
    assert path.stat().st_size > 4 * MIB
    assert content[:4096] not in path.read_bytes()
    assert f"<secret type='passphrase' usage='{path}'/>" in locked.XMLDesc()
    pool.refresh()
    # What is known of the secret now is that it is kept for this path.
    assert f"<secret type='passphrase' uuid='{secret.UUIDString()}'/>" in locked.XMLDesc()
    key = tmp_path / 'key'
    key.write_bytes(b'open sesame')
    run('cryptsetup', 'open', '--test-passphrase', '--type', 'luks1', '--key-file', key, path)
    locked.resize(8 * MIB)
    assert locked.info()[1] == 8 * MIB


def test_luks_refused(pool_daemon):
    connection = pool_daemon.start().connect()
    pool = connection.storagePoolCreateXML(pool_xml('demo', pool_daemon.images), 0)
    text = "A single <secret type='passphrase'...> element is expected in encryption description"
    assert error_of(pool.createXML, encrypted_xml('a', 'raw', '')) == (libvirt.VIR_ERR_INVALID_ARG, f'invalid argument: {text}')
    code, message = error_of(pool.createXML, encrypted_xml('a', 'raw', "<secret type='passphrase' usage='/nowhere'/>"))
    assert code == libvirt.VIR_ERR_NO_SECRET and '/nowhere' in message
    assert pool.listVolumes() == [] and not list(pool_daemon.images.iterdir())
