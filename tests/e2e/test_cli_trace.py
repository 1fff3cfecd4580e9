# SPDX-License-Identifier: LGPL-2.1-or-later
"""--trace: which points are on, and where their lines go."""
import re
import subprocess

import pytest

from harness import need, program, run, storaged_fails

LINE = re.compile(r'\d+@\d+\.\d{6}:(\w+) .*')


def points():
    return run(program('ashlar-storaged'), '--trace', 'help').stdout.splitlines()


def traced(daemon, path, *options):
    """Names of the points whose lines one `query-version` leaves in the file."""
    one = daemon(*options)
    one.qmp.command('query-version')
    one.stop()
    lines = path.read_text().splitlines()
    matches = [LINE.fullmatch(line) for line in lines]
    assert all(matches), lines
    return {match.group(1) for match in matches}


@pytest.mark.parametrize('options', [['--trace', 'help'], ['-T', 'help'], ['-Thelp'], ['--trace', 'enable=help'],
                                     ['--trace', 'help,file=/nonexistent/log']])
def test_trace_help(options):
    names = run(program('ashlar-storaged'), *options).stdout.splitlines()
    assert 'qmp_command_run' in names
    assert names == sorted(set(names))
    assert all(re.fullmatch(r'[a-z0-9]+_\w+', name) for name in names)


def test_trace_file_and_pattern(daemon, tmp_path):
    log = tmp_path / 'log'
    names = traced(daemon, log, '--trace', f'enable=qmp_*,file={log}')
    assert 'qmp_command_run' in names
    assert all(name.startswith('qmp_') for name in names)


def test_trace_order_of_options(daemon, tmp_path):
    log = tmp_path / 'log'
    names = traced(daemon, log, '-T', f'qmp_*,file={log}', '-T', '-qmp_session_*')
    assert 'qmp_command_run' in names
    assert not names & {'qmp_session_begin', 'qmp_session_end'}


def test_trace_events_file(daemon, tmp_path):
    log, events = tmp_path / 'log', tmp_path / 'events'
    events.write_text('# what to watch\n\nqmp_session_*\n-qmp_session_end\n')
    assert traced(daemon, log, '--trace', f'events={events},file={log}') == {'qmp_session_begin'}


def test_trace_to_standard_error(daemon):
    one = daemon('--trace', 'qmp_command_run')
    one.qmp.command('query-version')
    one.stop()
    assert re.search(r'^\d+@\d+\.\d{6}:qmp_command_run query-version oob 0$', one.stderr, re.M)


def test_trace_off_says_nothing(daemon):
    one = daemon()
    one.qmp.command('query-version')
    one.stop()
    assert one.stderr == ''


def test_trace_unknown_name_is_a_warning(daemon, tmp_path):
    one = daemon('--trace', 'foo', '--trace', 'foo*')
    one.stop()
    assert one.stderr == "ashlar-storaged: warning: --trace foo: trace point 'foo' does not exist\n"


def test_trace_events_file_missing():
    assert storaged_fails('--trace', 'events=/nonexistent/e').startswith('--trace events=/nonexistent/e: ')


def test_trace_points_are_probes():
    """Each point is a USDT probe with a semaphore."""
    notes = subprocess.run([need('readelf'), '--notes', '--wide', program('ashlar-storaged')], capture_output=True, text=True,
                           check=True).stdout
    probes = set(re.findall(r'Provider: ashlar\s+Name: (\w+)\s+Location: \w+, Base: \w+, Semaphore: 0x0*[1-9a-f]', notes))
    assert probes == set(points())
