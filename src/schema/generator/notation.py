# SPDX-License-Identifier: LGPL-2.1-or-later
"""The notation of schema files: expressions in single quotes, comments, and the comment blocks that document them."""
import collections
import pathlib
import re

TOKEN = re.compile(r"""
    (?P<space>[ \t\r]+)
  | (?P<newline>\n)
  | (?P<comment>\#[^\n]*)
  | (?P<string>'(?:[^'\\\n]|\\.)*')
  | (?P<word>true|false)\b
  | (?P<mark>[{}\[\]:,])
""", re.VERBOSE)


class SchemaError(Exception):
    """Something is wrong with a schema, at a place."""

    def __init__(self, place, text):
        super().__init__(f'{place}: {text}')


class Place:
    """A line of a schema file."""

    def __init__(self, path, line):
        self.path, self.line = path, line

    def __str__(self):
        return f'{self.path}:{self.line}'


class Block:
    """A comment block: its lines without the comment marks."""

    def __init__(self, place, lines):
        self.place, self.lines = place, lines


class Mapping(dict):
    """A dictionary that knows where it and its keys stand."""

    def __init__(self, place):
        super().__init__()
        self.place = place
        self.places = {}


class Expression:
    """A top-level dictionary with the comment block right above it (None: there is none)."""

    def __init__(self, value, block):
        self.value, self.block, self.place = value, block, value.place


class Tokens:
    """The tokens of a text, with comment blocks among them."""

    def __init__(self, path, text):
        self.path = path
        self.items = collections.deque()
        line, position, block = 1, 0, None
        while position < len(text):
            match = TOKEN.match(text, position)
            if not match:
                raise SchemaError(Place(path, line), f'stray character {text[position]!r}')
            kind, word = match.lastgroup, match.group()
            position = match.end()
            if kind == 'newline':
                line += 1
            elif kind == 'comment':
                block = self.comment(word, Place(path, line), block)
            elif kind != 'space':
                if block:
                    raise SchemaError(block.place, "comment block does not end with '##'")
                self.items.append((kind, word, Place(path, line)))
        if block:
            raise SchemaError(block.place, "comment block does not end with '##'")
        self.end = Place(path, line)

    def comment(self, word, place, block):
        if word.rstrip() == '##':
            if block is None:
                return Block(place, [])
            self.items.append(('block', block, block.place))
            return None
        if block is not None:
            if not re.match(r'#( |$)', word):
                raise SchemaError(place, "a line of a comment block starts with '# '")
            block.lines.append((word[2:].rstrip(), place))
        return block

    def peek(self):
        return self.items[0] if self.items else ('end', 'end of file', self.end)

    def next(self):
        return self.items.popleft() if self.items else ('end', 'end of file', self.end)

    def accept(self, word):
        if self.peek()[1] == word:
            self.next()
            return True
        return False

    def expect(self, word):
        _, found, place = self.next()
        if found != word:
            raise SchemaError(place, f"expected '{word}', found {found}")


def parse_string(tokens):
    kind, word, place = tokens.next()
    if kind != 'string':
        raise SchemaError(place, f'expected a string, found {word}')
    if '\\' in word:
        raise SchemaError(place, f'escapes are not part of the notation: {word}')
    return word[1:-1]


def parse_mapping(tokens):
    result = Mapping(tokens.peek()[2])
    tokens.expect('{')
    if tokens.accept('}'):
        return result
    while True:
        place = tokens.peek()[2]
        key = parse_string(tokens)
        if key in result:
            raise SchemaError(place, f"key '{key}' is there twice")
        tokens.expect(':')
        result[key] = parse_value(tokens)
        result.places[key] = place
        if tokens.accept('}'):
            return result
        tokens.expect(',')


def parse_list(tokens):
    result = []
    tokens.expect('[')
    if tokens.accept(']'):
        return result
    while True:
        result.append(parse_value(tokens))
        if tokens.accept(']'):
            return result
        tokens.expect(',')


def parse_value(tokens):
    kind, word, place = tokens.peek()
    if word == '{':
        return parse_mapping(tokens)
    if word == '[':
        return parse_list(tokens)
    if kind == 'word':
        tokens.next()
        return word == 'true'
    if kind == 'string':
        return parse_string(tokens)
    raise SchemaError(place, f'expected a value, found {word if kind != "block" else "a comment block"}')


def parse_text(path, text):
    """Yields Block (a chapter's title) and Expression objects in the order of the text."""
    tokens = Tokens(path, text)
    block = None
    while tokens.items:
        if tokens.peek()[0] == 'block':
            if block:
                yield block
            block = tokens.next()[1]
            if any(line.startswith('= ') or line.startswith('== ') for line, _ in block.lines):
                yield block
                block = None
        else:
            yield Expression(parse_mapping(tokens), block)
            block = None
    if block:
        yield block


def read(path):
    """All parts of the schema file `path` and of those that it includes, and the list of the files."""
    files, parts = [], []

    def add(path, place):
        if path in files:
            return
        if not path.is_file():
            raise SchemaError(place, f"there is no file '{path.name}'")
        files.append(path)
        for part in parse_text(path, path.read_text(encoding='utf-8')):
            if isinstance(part, Expression) and 'include' in part.value:
                if set(part.value) != {'include'} or not isinstance(part.value['include'], str):
                    raise SchemaError(part.place, "expected { 'include': 'file' }")
                add(path.parent / part.value['include'], part.place)
            else:
                parts.append(part)

    path = pathlib.Path(path)
    add(path, path)
    return parts, files
