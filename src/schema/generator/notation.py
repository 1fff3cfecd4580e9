# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reading schema files: expressions, and the comment blocks that document them."""
import ast
import pathlib
import re


class SchemaError(Exception):
    """Something wrong in a schema file, with its place."""


class Doc:
    """A documentation block: general text, text of members and features, and tagged sections such as Returns."""

    TAGS = ('Returns', 'Errors', 'Since', 'Features', 'Example', 'Note', 'Notes', 'TODO')

    def __init__(self, lines, where):
        self.where = where
        self.symbol = None
        self.text, self.members, self.features, self.sections = [], {}, {}, {}
        self.heading = None
        self._parse(lines)

    def _parse(self, lines):
        current, in_features = self.text, False
        for line in lines:
            heading = re.match(r'(=+) (.*)', line)
            named = re.match(r'@([\w.-]+):(?: +(.*))?$', line)
            tagged = re.match(r'(%s)::?(?: +(.*))?$' % '|'.join(self.TAGS), line)
            if heading:
                self.heading = (len(heading.group(1)), heading.group(2))
            elif named and self.symbol is None and not self.text and named.group(2) is None:
                self.symbol = named.group(1)
            elif named:
                table = self.features if in_features else self.members
                if named.group(1) in table:
                    raise SchemaError(f'{self.where}: @{named.group(1)} is documented twice')
                current = table[named.group(1)] = [named.group(2) or '']
            elif tagged:
                in_features = tagged.group(1) == 'Features'
                current = self.sections.setdefault(tagged.group(1), [])
                if tagged.group(2):
                    current.append(tagged.group(2))
            else:
                current.append(line.strip() if not line.startswith('     ') else line)

    @staticmethod
    def plain(lines):
        return ' '.join(' '.join(lines).split())


class Expression:
    def __init__(self, body, doc, where):
        self.body, self.doc, self.where = body, doc, where


def _strip_comment(line):
    """The line without a comment; a '#' inside quotes stays."""
    return re.match(r"""((?:[^#'"]|'[^']*'|"[^"]*")*)""", line).group(1)


def _read_literal(text, where):
    text = re.sub(r'\btrue\b', 'True', re.sub(r'\bfalse\b', 'False', text))
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError) as failure:
        raise SchemaError(f'{where}: {failure}') from failure


def _pairs_unique(text, where):
    """Python's dict syntax forgives repeated keys; the schema must not."""
    for node in ast.walk(ast.parse(re.sub(r'\b(true|false)\b', 'None', text), mode='eval')):
        if isinstance(node, ast.Dict):
            keys = [key.value for key in node.keys]
            for key in keys:
                if keys.count(key) > 1:
                    raise SchemaError(f'{where}: key {key!r} is there twice')


def read_file(path, seen=None):
    """All expressions of a file and of those that it includes, and headings, in order."""
    path = pathlib.Path(path)
    seen = set() if seen is None else seen
    if path.resolve() in seen:
        return
    seen.add(path.resolve())
    doc, comment, text, start = None, None, '', 0
    for number, line in enumerate(path.read_text().splitlines(), 1):
        where = f'{path}:{number}'
        if not text and line.strip() == '##':
            if comment is None:
                comment, start = [], number
            else:
                doc, comment = Doc(comment, f'{path}:{start}'), None
                if doc.heading:
                    yield doc
                    doc = None
            continue
        if comment is not None:
            if not line.startswith('#'):
                raise SchemaError(f'{where}: a documentation block ends with ##')
            comment.append(line[2:] if line.startswith('# ') else line[1:])
            continue
        line = _strip_comment(line)
        if not text:
            if not line.strip():
                continue
            start = number
        text += line + '\n'
        if text.count('{') + text.count('[') > text.count('}') + text.count(']'):
            continue
        _pairs_unique(text.strip(), f'{path}:{start}')
        body = _read_literal(text.strip(), f'{path}:{start}')
        text = ''
        if 'include' in body:
            yield from read_file(path.parent / body['include'], seen)
        else:
            yield Expression(body, doc, f'{path}:{start}')
        doc = None
    if text or comment is not None:
        raise SchemaError(f'{path}: ends in the middle of what began at line {start}')
