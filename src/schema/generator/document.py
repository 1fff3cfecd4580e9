# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a comment block says: title of a chapter, or the documentation of a definition."""
import re

from notation import SchemaError

NAME = r'[A-Za-z0-9_][A-Za-z0-9_.-]*'
SECTION = re.compile(r'(Returns|Errors|Features|Since|Notes?|Examples?)(::?)(?: +(.*))?$')


class Text:
    """Paragraphs, lists and literal blocks as lines without their common indentation."""

    def __init__(self, place, first=''):
        self.place = place
        self.lines = [first] if first else []

    def paragraphs(self):
        """Lists of lines; in each, the first line's indentation is gone."""
        result, current = [], []
        for line in self.lines + ['']:
            if line:
                current.append(line)
            elif current:
                result.append(current)
                current = []
        return result

    def blocks(self):
        """(kind, text) with kind 'text', 'item' or 'literal'; text is one line but for a literal block."""
        result = []
        for paragraph in self.paragraphs():
            for line in paragraph:
                stripped = line.strip()
                indent = len(line) - len(line.lstrip())
                if stripped.startswith('- '):
                    result.append(['item', stripped[2:], indent])
                elif line is paragraph[0]:
                    kind = 'literal' if stripped[0] in '{[' or stripped[:2] in ('->', '<-') else 'text'
                    result.append([kind, stripped, indent])
                elif result[-1][0] == 'literal':
                    result[-1][1] += '\n' + ' ' * max(0, indent - result[-1][2]) + stripped
                else:
                    result[-1][1] += ' ' + stripped
        return [(kind, text) for kind, text, _ in result]

    def plain(self):
        """Everything in one line."""
        return ' '.join(text for _, text in self.blocks())

    def __bool__(self):
        return any(self.lines)


class Document:
    """The documentation of one definition."""

    def __init__(self, block):
        self.place = block.place
        self.name = None
        self.body = Text(block.place)
        self.members, self.features = {}, {}
        self.returns = self.errors = self.since = None
        self.examples, self.notes = [], []
        self.current, self.listing = self.body, self.members
        for line, place in block.lines:
            self.add(line, place)
        for text in [self.body, *self.members.values(), *self.features.values(), *self.examples, *self.notes,
                     self.returns, self.errors]:
            if text is not None:
                dedent(text)
        if self.since is not None:
            self.since = self.since.plain()

    def add(self, line, place):
        if self.name is None:
            match = re.match(rf'@({NAME}):$', line)
            if not match:
                raise SchemaError(place, "a comment block starts with '# @NAME:'")
            self.name = match.group(1)
            return
        match = re.match(rf'@({NAME}):(?: +(.*))?$', line)
        if match:
            self.add_named(match.group(1), match.group(2) or '', place)
            return
        match = SECTION.match(line)
        if match:
            self.add_section(match.group(1), match.group(3) or '', place)
        else:
            self.add_line(line, place)

    def add_named(self, name, text, place):
        if name in self.listing:
            raise SchemaError(place, f"'{name}' is described twice")
        self.current = self.listing[name] = Text(place, text)

    def add_section(self, name, text, place):
        self.listing = self.features if name == 'Features' else self.members
        self.current = Text(place, text)
        if name in ('Returns', 'Errors', 'Since'):
            if getattr(self, name.lower()) is not None:
                raise SchemaError(place, f"there are two sections '{name}'")
            setattr(self, name.lower(), self.current)
        elif name.startswith('Note'):
            self.notes.append(self.current)
        elif name.startswith('Example'):
            self.examples.append(self.current)

    def add_line(self, line, place):
        section = self.current is not self.body
        if section and line and not line.startswith(' ') and self.current.lines and not self.current.lines[-1]:
            # Text at the margin after an empty line belongs to the definition again.
            self.current = self.body
            self.body.lines.append('')
        self.current.lines.append(line)


def dedent(text):
    """Takes off the indentation that all lines but the first (which may stand after a name) have in common."""
    while text.lines and not text.lines[-1]:
        text.lines.pop()
    while text.lines and not text.lines[0]:
        text.lines.pop(0)
    rest = [len(line) - len(line.lstrip()) for line in text.lines if line.startswith(' ')]
    width = min(rest, default=0)
    text.lines = [line[width:] if line.startswith(' ') else line for line in text.lines]


class Title:
    """Start of a chapter (level 1) or section (level 2) of the manual, with a text of its own."""

    def __init__(self, block):
        self.place = block.place
        lines = [line for line, _ in block.lines]
        while lines and not lines[0]:
            lines.pop(0)
        marks, self.title = lines[0].split(' ', 1)
        self.level = len(marks)
        self.body = Text(block.place)
        self.body.lines = lines[1:]
        dedent(self.body)
