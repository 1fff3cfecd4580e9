# SPDX-License-Identifier: LGPL-2.1-or-later
"""The rules of the house that a program can check.

usage: tidy.py TOP [BUILD]

Each rule is a function that yields (path, line, text) for what breaks it. Exceptions stand in exceptions.txt beside this
file, one a line: RULE PATH [NAME] # reason. An exception that is no longer needed is an error too, so the list only shrinks.
With BUILD, every header is compiled alone.
"""
import json
import pathlib
import re
import subprocess
import sys

LAYERS = ['base', 'loop', 'schema', 'crypto', 'object', 'chardev', 'block', 'driver', 'job', 'export', 'qmp', 'pool', 'cli', 'bin']
FILE_LINES_MAX = 1200
FUNCTION_LINES_MAX = 70

# System calls that only src/loop/ makes: a thing that waits, reads a clock, or asks for chance.
BANNED = {name: 'use the calls of loop/*.h' for name in '''
    read write pread pwrite preadv pwritev preadv2 pwritev2 readv writev recv recvfrom recvmsg send sendto sendmsg accept accept4
    connect bind listen poll ppoll select epoll_wait epoll_ctl sleep usleep nanosleep fsync fdatasync sync_file_range fallocate
    posix_fallocate ftruncate clock_gettime gettimeofday time getrandom rand random srand g_get_monotonic_time g_get_real_time
    g_usleep g_random_int io_uring_enter lseek copy_file_range'''.split()}
BANNED |= {name: 'is unsafe' for name in 'strcpy strcat sprintf vsprintf gets strtok alloca atoi atol'.split()}

SOURCES = re.compile(r'\.(c|h)$')


def tracked(top):
    names = subprocess.run(['git', '-C', top, 'ls-files', '-co', '--exclude-standard'], check=True, capture_output=True, text=True).stdout
    return [top / name for name in names.splitlines() if (top / name).is_file()]


def without_comments(text):
    """The code alone, with its lines kept in place; strings are emptied."""
    def blank(match):
        word = match.group(0)
        return '""' if word.startswith('"') else re.sub(r'[^\n]', ' ', word)
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', blank, text, flags=re.S)


def is_test(path):
    return bool(re.search(r'-(test|fuzz|bench)\.[ch]$', path.name)) or 'tests' in path.parts


class Tree:
    def __init__(self, top):
        self.top = top
        self.files = tracked(top)
        self.c_files = [path for path in self.files if SOURCES.search(path.name)]
        self.text = {path: path.read_text(errors='replace') for path in self.c_files}
        self.code = {path: without_comments(text) for path, text in self.text.items()}

    def layer(self, path):
        parts = path.relative_to(self.top).parts
        return parts[1] if parts[0] == 'src' and len(parts) > 2 else None


def rule_layers(tree):
    for path in tree.c_files:
        here = tree.layer(path)
        if here not in LAYERS:
            continue
        for number, line in enumerate(tree.text[path].splitlines(), 1):
            match = re.match(r'#include "([a-z]+)/', line)
            if match and match.group(1) in LAYERS and LAYERS.index(match.group(1)) > LAYERS.index(here):
                yield path, number, f'{here} may not use {match.group(1)}, which lies above it'


def rule_licence(tree):
    for path in tree.files:
        if path.suffix in ('.c', '.h', '.py', '.S') and 'SPDX-License-Identifier: LGPL-2.1-or-later' not in \
                '\n'.join(path.read_text(errors='replace').splitlines()[:2]):
            yield path, 1, 'the first line names the licence: SPDX-License-Identifier: LGPL-2.1-or-later'


def rule_banned(tree):
    pattern = re.compile(r'(?<![\w.>])(' + '|'.join(BANNED) + r')\s*\(')
    for path in tree.c_files:
        if tree.layer(path) in (None, 'loop') or is_test(path):
            continue
        for number, line in enumerate(tree.code[path].splitlines(), 1):
            for match in pattern.finditer(line):
                yield path, number, f'{match.group(1)}(): {BANNED[match.group(1)]}'


def rule_words(tree):
    pattern = re.compile(r'\b(TODO|FIXME|XXX|HACK|for now|not yet implemented|unimplemented|placeholder)\b')
    for path in tree.c_files:
        for number, line in enumerate(tree.text[path].splitlines(), 1):
            match = pattern.search(line)
            if match:
                yield path, number, f'"{match.group(1)}" stands for unfinished work'


def rule_typedef(tree):
    for path in tree.c_files:
        for number, line in enumerate(tree.code[path].splitlines(), 1):
            if re.match(r'\s*typedef\s+(struct|union|enum)\b', line):
                yield path, number, 'structs, unions and enums have no typedef'


def rule_suspends(tree):
    """A declaration in a header whose name says that it may suspend carries the CO_FN mark."""
    pattern = re.compile(r'^(?!.*\bCO_FN\b)(?!static inline)[a-z][\w \*]*?\b((?:co_|\w+_co_)\w+)\(', re.M)
    plain = {'co_active', 'co_entry', 'co_self', 'co_spawn', 'co_cancelled', 'co_wake', 'co_run'}
    prefixes = ('co_task_', 'co_mutex_', 'co_rwlock_', 'co_condition_', 'co_group_', 'co_deadline_')
    for path in tree.c_files:
        if path.suffix != '.h':
            continue
        code = tree.code[path]
        for match in pattern.finditer(code):
            name = match.group(1)
            if name not in plain and not name.startswith(prefixes):
                yield path, code.count('\n', 0, match.start()) + 1, f'{name}() may suspend by its name, but lacks CO_FN'


def rule_length(tree):
    for path in tree.c_files:
        lines = tree.text[path].count('\n')
        if lines > FILE_LINES_MAX and not is_test(path):
            yield path, lines, f'{lines} lines: is this still one noun? (at most {FILE_LINES_MAX})'


def functions(code):
    """(name, first line, last line) of each function that is laid out as clang-format does it."""
    name, start = None, 0
    for number, line in enumerate(code.splitlines(), 1):
        if re.match(r'[A-Za-z_]', line) and '(' in line and not re.match(r'(struct|enum|union|static const struct)\b[^(]*=', line):
            match = re.search(r'(\w+)\s*\(', line)
            name, start = match.group(1), number
        elif line.startswith('}') and name:
            yield name, start, number
            name = None


def rule_function_length(tree):
    for path in tree.c_files:
        if is_test(path):
            continue
        for name, first, last in functions(tree.code[path]):
            if last - first + 1 > FUNCTION_LINES_MAX:
                yield path, first, f'{name} has {last - first + 1} lines (at most {FUNCTION_LINES_MAX})'


def rule_paths(tree):
    """The project speaks of itself alone."""
    pattern = re.compile(r'/work/|/root/|\bdeb\.debian\.org\b|registry\.npmjs')
    for path in tree.files:
        if path.name == 'tidy.py' or path.suffix in ('.png', '.bin'):
            continue
        for number, line in enumerate(path.read_text(errors='replace').splitlines(), 1):
            if pattern.search(line):
                yield path, number, 'names a path or host of somebody\'s machine'


def rule_fuzz_corpus(tree):
    for path in tree.c_files:
        if path.name.endswith('-fuzz.c'):
            names = path.stem + '-corpus', f'{path.parent.name}-{path.stem}-corpus'
            corpora = [path.with_name(name) for name in names]
            if not any(corpus.is_dir() and any(corpus.iterdir()) for corpus in corpora):
                yield path, 1, f'has no seed corpus in {names[0]}/ or {names[1]}/'


def rule_readme(tree):
    """Each folder of sources has a README with a line for each of its .c files."""
    for folder in sorted({path.parent for path in tree.c_files if tree.layer(path)}):
        readme = folder / 'README.md'
        text = readme.read_text() if readme.exists() else ''
        for path in tree.c_files:
            if path.parent == folder and path.suffix == '.c' and not is_test(path) and path.name not in text:
                yield readme, 1, f'says nothing of {path.name}'


def rule_bad_inputs(tree):
    """Each row of docs/bad-inputs.md has a test that names it."""
    page = tree.top / 'docs/bad-inputs.md'
    tests = [path for path in tree.files if path.suffix in ('.py', '.c') and (is_test(path) or 'e2e' in path.parts)]
    named = set().union(*(re.findall(r'\b[A-Z]\d+\b', path.read_text()) for path in tests))
    for number, line in enumerate(page.read_text().splitlines(), 1):
        row = re.match(r'\| ([A-Z]\d+) \|', line)
        if row and row[1] not in named:
            yield page, number, f'no test names {row[1]}'


def compile_flags(build):
    """Flags of one of the core's sources, from which any header must compile."""
    commands = json.loads((build / 'compile_commands.json').read_text())
    command = next(entry for entry in commands if entry['file'].endswith('base/error.c'))
    words = command['command'].split()
    flags = [word for word in words if word.startswith(('-I', '-D', '-std'))]
    return words[0] if words[0] != 'ccache' else words[1], flags, command['directory']


def rule_headers(tree, build):
    if not build:
        return
    compiler, flags, directory = compile_flags(build)
    headers = [path for path in tree.c_files if path.suffix == '.h' and tree.layer(path)]
    # All in one run first: one compiler call a header is only needed to find out which one fails.
    for path in headers:
        done = subprocess.run([compiler, *flags, '-Wall', '-Werror', '-fsyntax-only', '-xc', '-'], cwd=directory, text=True,
                              input=f'#include "{path.relative_to(tree.top / "src")}"\n', capture_output=True, check=False)
        if done.returncode:
            yield path, 1, 'does not compile alone: ' + done.stderr.strip().splitlines()[0]


def load_exceptions(path):
    entries = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        line = line.split('#')[0].split()
        if line:
            entries[tuple(line)] = False
    return entries


def excepted(entries, rule, path, text):
    for entry in entries:
        if entry[0] == rule and entry[1] == path and (len(entry) < 3 or re.search(rf'\b{re.escape(entry[2])}\b', text)):
            entries[entry] = True
            return True
    return False


def main():
    top = pathlib.Path(sys.argv[1]).resolve()
    build = pathlib.Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else None
    tree = Tree(top)
    entries = load_exceptions(pathlib.Path(__file__).with_name('exceptions.txt'))
    rules = {name[5:]: rule for name, rule in globals().items() if name.startswith('rule_')}
    bad = 0
    for name, rule in rules.items():
        for path, line, text in rule(tree, build) if name == 'headers' else rule(tree):
            where = str(path.relative_to(top))
            if not excepted(entries, name, where, text):
                print(f'{where}:{line}: {name}: {text}')
                bad += 1
    for entry, used in entries.items():
        if not used:
            print(f'tests/tidy/exceptions.txt: no longer needed: {" ".join(entry)}')
            bad += 1
    print(f'tidy: {len(rules)} rules, {len(tree.files)} files, {bad} complaints')
    return 1 if bad else 0


sys.exit(main())
