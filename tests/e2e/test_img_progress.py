# SPDX-License-Identifier: LGPL-2.1-or-later
"""What `ashlar-img -p` shows: a bar on a terminal, elsewhere the lines that scripts know."""
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

import pytest

from harness import PATIENCE_S, need, program, run

MIB = 1 << 20
LINE = r'    \(\d+\.\d\d/100%\)\r'
FRAME = re.compile(r'(\[(?P<bar>[#-]{8,30})\] )? *(?P<percent>\d+\.\d)%(  (?P<rate>[\d.]+ ([KMG]iB|B)/s))?'
                   r'(  (?P<time>[\d:]+ (left|in all)))?')


def qcow2(path, *backing):
    run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', *backing, path, *(() if backing else ('8M',)))
    run(need('qemu-io'), '-f', 'qcow2', '-c', 'write -P 1 0 4M', path)


def scene(folder):
    """Images for all commands; each is used once."""
    for name in 'one', 'two', 'base', 'other':
        qcow2(folder / name)
    qcow2(folder / 'top', '-b', 'base', '-F', 'qcow2')


# What is shown for a command: whether there is a rate.
COMMANDS = {
    'convert': (('convert', '-p', '-O', 'raw', 'one', 'copy'), True),
    'compare': (('compare', '-p', 'one', 'two'), True),
    'commit': (('commit', '-p', 'top'), True),
    'rebase': (('rebase', '-p', '-b', 'other', '-F', 'qcow2', 'top'), True),
    'amend': (('amend', '-p', '-o', 'compat=0.10', 'one'), False),
    'check': (('check', '-p', 'one'), False),
}


def all_of(terminal):
    """What is shown until nobody has the other end any more; closes it."""
    shown = b''
    while True:
        try:
            shown += os.read(terminal, 65536)
        except OSError:
            os.close(terminal)
            return shown


def on_terminal(folder, columns, *words):
    """Frames that a terminal of so many columns gets to see, and what the command says behind them."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('HHHH', 24, columns, 0, 0))
    with subprocess.Popen([program('ashlar-img'), *words], cwd=folder, stdin=subprocess.DEVNULL, stdout=theirs,
                          stderr=subprocess.PIPE) as process:
        os.close(theirs)
        shown = all_of(ours)
        errors = process.stderr.read().decode()
        status = process.wait(PATIENCE_S)
    text = shown.decode()
    bar, _, rest = text.partition('\r\n')
    # Each frame begins at the line's start, and leaves nothing of the one before.
    assert bar.startswith('\r') and bar.endswith('\x1b[K')
    frames = bar[1:-3].split('\x1b[K\r')
    return status, frames, rest.replace('\r\n', '\n'), errors


@pytest.mark.parametrize('name, columns', [*((name, 80) for name in COMMANDS), ('convert', 30), ('convert', 12),
                                           ('check', 0)])
def test_bar(tmp_path, name, columns):
    words, rated = COMMANDS[name]
    scene(tmp_path)
    status, frames, rest, errors = on_terminal(tmp_path, columns, *words)
    assert (status, errors) == (0, '')
    parts = [FRAME.fullmatch(frame) for frame in frames]
    assert all(parts), frames
    percents = [float(part['percent']) for part in parts]
    assert percents == sorted(percents)
    assert percents[0] == 0 and percents[-1] == 100
    width = columns or 80
    assert all(len(frame) < width for frame in frames)
    if width == 80:
        assert parts[0]['bar'] == '-' * 30 and parts[-1]['bar'] == '#' * 30
        assert parts[-1]['time'].endswith(' in all')
        assert bool(parts[-1]['rate']) == rated
    if width == 12:
        assert frames[-1] == '100.0%'
    # What else it has to say comes on lines of its own.
    assert '\x1b' not in rest and '\r' not in rest
    said = {'compare': 'Images are identical.\n', 'commit': 'Image committed.\n'}
    assert rest == said.get(name, '') or name == 'check' and rest.startswith('No errors were found on the image.\n')


def test_rate_and_time_left(tmp_path):
    # At 2 MiB a second there is some time to be left.
    (tmp_path / 'one').write_bytes(b'x' * (3 * MIB))
    status, frames, _, _ = on_terminal(tmp_path, 80, 'convert', '-p', '-m', '1', '-r', '2M', '-f', 'raw', 'one', 'copy')
    assert status == 0
    parts = [FRAME.fullmatch(frame) for frame in frames]
    assert all(part['rate'].endswith('/s') for part in parts[1:])
    halfway = [part for part in parts if 0 < float(part['percent']) < 100]
    assert halfway
    for part in halfway:
        assert part['time'].endswith(' left')
        assert set(part['bar']) == {'#', '-'}


def test_failure_ends_the_bar(tmp_path):
    scene(tmp_path)
    os.truncate(tmp_path / 'one', 5 * 65536)
    status, frames, rest, errors = on_terminal(tmp_path, 80, 'convert', '-p', '-O', 'raw', 'one', 'copy')
    assert status == 1
    assert FRAME.fullmatch(frames[-1]) and not frames[-1].startswith('[' + '#' * 30)
    assert rest == ''
    assert 'ashlar-img: ' in errors


def test_what_is_said_meanwhile_stands_alone(tmp_path):
    """On a terminal no message goes on in the bar's line."""
    (tmp_path / 'one').write_bytes(b'x' * (6 * MIB))
    (tmp_path / 'two').write_bytes(b'x' * (5 * MIB) + b'y' * (2 * MIB))
    ours, theirs = pty.openpty()
    with subprocess.Popen([program('ashlar-img'), 'compare', '-p', '-f', 'raw', '-F', 'raw', 'one', 'two'], cwd=tmp_path,
                          stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = all_of(ours)
        assert process.wait(PATIENCE_S) == 1
    assert re.search(rb'(^|\r\x1b\[K)Content mismatch at offset 5242880!\r\n$', shown), shown


def test_quiet_shows_no_bar(tmp_path):
    scene(tmp_path)
    ours, theirs = pty.openpty()
    subprocess.run([program('ashlar-img'), 'convert', '-q', '-p', '-O', 'raw', 'one', 'copy'], cwd=tmp_path, check=True,
                   stdout=theirs, timeout=PATIENCE_S)
    os.set_blocking(ours, False)
    with pytest.raises(BlockingIOError):
        os.read(ours, 1)
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize('name', sorted(COMMANDS.keys() - {'check'}))
def test_lines_for_scripts(tmp_path, name):
    """The first line, the last one, and what comes behind are those of the program that scripts were made for."""
    words, _ = COMMANDS[name]
    shown = []
    for tool in need('qemu-img'), program('ashlar-img'):
        folder = tmp_path / str(len(shown))
        folder.mkdir()
        scene(folder)
        text = subprocess.check_output([str(tool), *words], cwd=folder).decode()
        lines = re.match(f'({LINE})+', text)
        assert lines, text
        shown.append((lines[0].split('\r')[0], lines[0].split('\r')[-2], text[lines.end():]))
    assert shown[0] == shown[1]
