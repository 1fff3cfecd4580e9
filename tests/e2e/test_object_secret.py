# SPDX-License-Identifier: LGPL-2.1-or-later
"""Secrets stay secret: in messages, in logs, in core dumps."""
import base64
import os
import pathlib
import re

import pytest

import tls_files
from harness import Daemon, QmpError, need, run

# Long enough to be found nowhere by chance.
PASSPHRASE = 'correct horse battery staple 7351'


def test_never_in_messages(tmp_path):
    """Every way in which a secret can be refused or used wrongly, with full tracing."""
    encoded = base64.b64encode(PASSPHRASE.encode()).decode()
    (tmp_path / 'pass').write_text(PASSPHRASE)
    complaints = []
    with Daemon(tmp_path, '--object', f'secret,id=fromfile,file={tmp_path}/pass', '-T', 'enable=*') as daemon:
        def add(**options):
            reply = daemon.qmp.execute('object-add', {'qom-type': 'secret', **options})
            if 'error' in reply:
                complaints.append(reply['error']['desc'])

        add(id='s', data=PASSPHRASE)
        add(id='s', data=PASSPHRASE)
        add(id='t', data=PASSPHRASE, format='base64')
        add(id='t', data=PASSPHRASE, file='/nowhere')
        add(id='t', data=PASSPHRASE, bogus=1)
        add(id='t', data=encoded, format='base64', keyid='s', iv=encoded)
        add(id='7', data=PASSPHRASE)
        assert len(complaints) == 6
        folder = tls_files.make_certificates(tmp_path / 'tls')
        run(need('certtool'), '--to-p8', '--load-privkey', folder / 'server-key.pem', '--password', 'another one',
            '--outfile', folder / 'server-key.pem.new')
        os.replace(folder / 'server-key.pem.new', folder / 'server-key.pem')
        with pytest.raises(QmpError) as caught:
            daemon.qmp.command('object-add', qom_type='tls-creds-x509', id='x', dir=str(folder), endpoint='server',
                               passwordid='s')
        complaints.append(caught.value.desc)
        stderr = daemon.stderr
    for text in (*complaints, stderr):
        assert PASSPHRASE not in text and encoded not in text


def test_passphrase_of_a_key(daemon, tmp_path):
    folder = tls_files.make_certificates(tmp_path / 'tls')
    run(need('certtool'), '--to-p8', '--load-privkey', folder / 'server-key.pem', '--password', PASSPHRASE,
        '--outfile', folder / 'new')
    os.replace(folder / 'new', folder / 'server-key.pem')
    storaged = daemon()
    storaged.qmp.command('object-add', qom_type='secret', id='s', data=PASSPHRASE)
    storaged.qmp.command('object-add', qom_type='tls-creds-x509', id='x', dir=str(folder), endpoint='server',
                         passwordid='s')
    storaged.qmp.command('object-del', id='s')


def pieces(memory, start, end, size=16 << 20, overlap=4096):
    """What lies there."""
    at = start
    while at < end:
        memory.seek(at)
        piece = memory.read(min(size, end - at))
        if not piece:
            return
        yield piece
        at += len(piece) - (overlap if len(piece) > overlap and at + len(piece) < end else 0)


def memory_with(pid, text):
    """The flags of each mapping that holds the text."""
    found = []
    entry = None
    for line in pathlib.Path(f'/proc/{pid}/smaps').read_text().splitlines():
        bounds = re.match(r'([0-9a-f]+)-([0-9a-f]+) (r)', line)
        if bounds:
            entry = (int(bounds.group(1), 16), int(bounds.group(2), 16))
        elif re.match(r'[0-9a-f]+-[0-9a-f]+ ', line):
            entry = None
        elif line.startswith('Rss:') and entry and (int(line.split()[1]) == 0 or entry[1] - entry[0] > 1 << 32):
            entry = None  # untouched, or a sanitizer's own
        elif line.startswith('VmFlags:') and entry:
            with open(f'/proc/{pid}/mem', 'rb') as memory:
                try:
                    if any(text in piece for piece in pieces(memory, *entry)):
                        found.append(line.split()[1:])
                except (OSError, ValueError):
                    continue  # vvar and the like
    return found


def test_not_in_core_dumps(tmp_path):
    """What was read from a file lies only in pages that are not dumped."""
    (tmp_path / 'pass').write_text(PASSPHRASE)
    with Daemon(tmp_path, '--object', f'secret,id=s,file={tmp_path}/pass') as daemon:
        flags = memory_with(daemon.pid, PASSPHRASE.encode())
        assert flags, 'the secret is nowhere'
        assert all('dd' in words for words in flags), flags
        daemon.qmp.command('object-del', id='s')
        assert not memory_with(daemon.pid, PASSPHRASE.encode())
