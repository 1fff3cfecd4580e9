# SPDX-License-Identifier: LGPL-2.1-or-later
"""Certificates and shared keys for tests, made by certtool and psktool when the test runs."""
import pathlib
import shutil

from harness import run

VALID = 'expiration_days=2\n'
PAST = 'activation_date="2001-01-01 00:00:00"\nexpiration_date="2002-01-01 00:00:00"\n'
SERVER = 'cn=server\ndns_name=localhost\nip_address=127.0.0.1\ntls_www_server\nsigning_key\nencryption_key\n'
CLIENT = 'cn=client\norganization=Masons\ntls_www_client\nsigning_key\nencryption_key\n'
CLIENT_NAME = 'O=Masons,CN=client'


def make_key(path):
    run('certtool', '--generate-privkey', '--key-type=ecdsa', '--outfile', path)


def make_authority(folder):
    """A folder with an authority of its own."""
    folder = pathlib.Path(folder)
    folder.mkdir()
    template = folder / 'ca.template'
    template.write_text('cn=Test authority\nca\ncert_signing_key\n' + VALID)
    make_key(folder / 'ca-key.pem')
    run('certtool', '--generate-self-signed', '--load-privkey', folder / 'ca-key.pem', '--template', template,
        '--outfile', folder / 'ca-cert.pem')
    return folder


def make_certificate(folder, name, template_text, authority=None):
    """NAME-cert.pem and NAME-key.pem in the folder, by its own authority or that of another folder."""
    authority = authority or folder
    template = folder / f'{name}.template'
    template.write_text(template_text)
    make_key(folder / f'{name}-key.pem')
    run('certtool', '--generate-certificate', '--load-ca-certificate', authority / 'ca-cert.pem',
        '--load-ca-privkey', authority / 'ca-key.pem', '--load-privkey', folder / f'{name}-key.pem',
        '--template', template, '--outfile', folder / f'{name}-cert.pem')


def make_certificates(folder):
    """A folder with all that a server and a client need."""
    folder = make_authority(folder)
    make_certificate(folder, 'server', SERVER + VALID)
    make_certificate(folder, 'client', CLIENT + VALID)
    return folder


def copy(folder, new):
    shutil.copytree(folder, new)
    return new


def make_psk(folder, *users):
    """A folder with a keys.psk in which each user has a key of its own."""
    folder = pathlib.Path(folder)
    folder.mkdir()
    for user in users:
        run('psktool', '-u', user, '-p', folder / 'keys.psk')
    return folder
