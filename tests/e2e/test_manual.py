# SPDX-License-Identifier: LGPL-2.1-or-later
"""The manual pages say of options what the programs say of them by --help: neither has one that the other lacks."""
import re

import pytest

from harness import TOP, program, run

OPTION = re.compile(r'(?<![\w-])(--[a-z][a-z-]*|-[A-Za-z])(?![\w-])')


def of_page(page, section, level='SH'):
    """The options that the tags of a section name."""
    text = (TOP / 'docs' / page).read_text(encoding='utf-8')
    part = re.search(rf'^\.{level} {section}\n(.*?)(?=^\.S[H{"S" if level == "SS" else ""}] |\Z)', text, re.M | re.S)[1]
    tags = '\n'.join(re.findall(r'^\.TP\n(.*)\n', part, re.M))
    return set(OPTION.findall(re.sub(r'\\f.', '', tags).replace('\\-', '-')))


def of_help(text):
    """The options that stand in the left column, before the first gap."""
    lines = (re.split(r' {2,}', line.strip())[0] for line in text.splitlines() if line.startswith('  -'))
    return {option for line in lines for option in OPTION.findall(line)}


@pytest.mark.parametrize('tool, page', [('ashlar-io', 'ashlar-io.1'), ('ashlar-nbd', 'ashlar-nbd.1'),
                                        ('ashlar-storaged', 'ashlar-storaged.1'), ('ashlar-poold', 'ashlar-poold.8')])
def test_page_and_help(tool, page):
    done = run(program(tool), '--help')
    told = of_help(done.stdout + done.stderr)
    assert {'-h', '--help', '-V', '--version'} <= told
    assert of_page(page, 'OPTIONS') == told


def img_commands():
    text = (TOP / 'docs' / 'ashlar-img.1').read_text(encoding='utf-8')
    return re.findall(r'^\.SS (\w+)$', text, re.M)


def test_page_has_all_image_commands():
    text = run(program('ashlar-img'), '--help').stdout
    assert of_page('ashlar-img.1', 'STANDARD OPTIONS') == of_help(text)
    assert set(img_commands()) == set(re.findall(r'^  ([a-z]+) \[', text, re.M))


@pytest.mark.parametrize('command', img_commands())
def test_page_and_help_of_an_image_command(command):
    told = of_help(run(program('ashlar-img'), command, '--help').stdout)
    assert told
    assert of_page('ashlar-img.1', command, 'SS') == told


def test_page_and_help_of_pool_commands():
    text = run(program('ashlar'), 'pool', '--help').stdout
    commands = re.findall(r'^  ([a-z]+) ', text, re.M)
    assert set(commands) == {'list', 'tree', 'export', 'unexport'}
    told = of_help(run(program('ashlar'), '--help').stdout).union(
        *(of_help(run(program('ashlar'), 'pool', command, '--help').stdout) for command in commands))
    assert of_page('ashlar.1', 'OPTIONS') == told
