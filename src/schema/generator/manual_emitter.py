# SPDX-License-Identifier: LGPL-2.1-or-later
"""The reference manual of the interface: as a man page, and as Markdown."""
import re

from document import Title
from model import Alternate, Array, Builtin, Entity, Enum, Struct

NAME = 'ashlar-storaged-qmp-ref'
SUMMARY = 'commands, events and types of the storage daemon'
INTRODUCTION = [
    'The storage daemon is controlled over QMP: a client sends commands as JSON objects, {"execute": NAME, "arguments": '
    '{...}}, and gets for each {"return": VALUE} or {"error": {"class": CLASS, "desc": TEXT}}. Events arrive by '
    'themselves, as {"event": NAME, "data": {...}, "timestamp": {...}}.',
    'The types below are what options on the command line take, too: members become keys with dots between the levels, '
    'as in "driver=file,cache.direct=on"; elements of arrays are numbered from 0.',
]
KIND_NAMES = [(Enum, 'enumeration'), (Alternate, 'alternate'), (Struct, 'object')]


def type_text(item):
    """A type as the manual names it."""
    if isinstance(item, Array):
        return f'array of {type_text(item.element)}'
    if isinstance(item, Builtin):
        return {'str': 'string', 'bool': 'boolean', 'any': 'any value'}.get(item.name, item.name)
    return item.name


class Manual:
    """Walks through the schema and tells a renderer what to write."""

    def __init__(self, schema, page):
        self.schema, self.page = schema, page

    def write(self):
        self.page.start()
        parts = self.schema.parts
        for part, following in zip(parts, parts[1:] + [None]):
            if not isinstance(part, Title):
                self.definition(part)
            elif part.body or not isinstance(following, Title) or following.level > part.level:
                self.page.chapter(part)
        self.page.end()
        return self.page.lines

    def definition(self, part):
        if isinstance(part, Entity):
            kind = 'command' if part.name in self.schema.commands else 'event'
        else:
            kind = next(name for cls, name in KIND_NAMES if isinstance(part, cls))
        self.page.definition(part.name, kind)
        document = part.document
        if not document:
            return
        self.page.text(document.body)
        for note in document.notes:
            self.page.text(note)
        self.members(part)
        self.features(part, document)
        if isinstance(part, Entity) and part.returns:
            self.page.label('Returns', type_text(part.returns))
            self.page.text(document.returns)
        if document.errors:
            self.page.label('Errors')
            self.page.text(document.errors)
        for example in document.examples:
            self.page.label('Example')
            self.page.text(example)
        if document.since:
            self.page.since(document.since)

    def members(self, part):
        if isinstance(part, Enum):
            self.page.label('Values')
            for value in part.values:
                self.entry(value, None)
        elif isinstance(part, Alternate):
            self.page.label('Alternatives')
            for member in part.members:
                self.page.entry(type_text(member.type), None, False, self.remarks(member), member.document)
        elif isinstance(part, Struct):
            self.struct_members(part, 'Members')
        elif part.arg:
            label = 'Arguments' if part.name in self.schema.commands else 'Data'
            if part.arg.implicit:
                self.struct_members(part.arg, label)
            else:
                self.page.label(label)
                self.page.reference(f'The members of {part.arg.name}')

    def struct_members(self, struct, label):
        tag, cases = (struct.tag, struct.cases)
        if struct.members or struct.base or cases:
            self.page.label(label)
        if struct.base:
            self.page.reference(f'The members of {struct.base.name}')
        for member in struct.members:
            self.entry(member, member.type)
        for case in cases:
            self.page.reference(f'The members of {case.type.name} when {tag} is \'{case.name}\'')

    @staticmethod
    def remarks(item):
        return [name for name in item.features if name in ('deprecated', 'unstable')]

    def entry(self, item, item_type):
        self.page.entry(item.name, type_text(item_type) if item_type else None, getattr(item, 'optional', False),
                        self.remarks(item), item.document)

    def features(self, part, document):
        if document.features:
            self.page.label('Features')
        for name, text in document.features.items():
            self.page.entry(name, None, False, [], text)


class ManPage:
    """Renders for man(7)."""

    def __init__(self, version):
        self.version, self.lines = version, []

    @staticmethod
    def escape(text):
        text = text.replace('\\', '\\e').replace('-', '\\-')
        return re.sub(r"^([.'])", r'\\&\1', text)

    def prose(self, text):
        """Text in which @names are set in bold; the hyphens in words stay."""
        words = re.split(r'@([\w.-]*\w)', text.replace('\\', '\\e'))
        result = ''.join(f'\\fB{self.escape(word)}\\fR' if number % 2 else word for number, word in enumerate(words))
        return re.sub(r"^([.'])", r'\\&\1', result)

    def start(self):
        self.lines += ['.\\" Generated from the schema.',
                       f'.TH {NAME.upper()} 7 "" "Ashlar {self.version}" "Ashlar"',
                       '.nh', '.ad l', '.SH NAME', f'{NAME} \\- {SUMMARY}', '.SH DESCRIPTION']
        for paragraph in INTRODUCTION:
            self.lines += ['.PP', self.prose(paragraph)]

    def chapter(self, title):
        self.lines += [f'.{"SH" if title.level == 1 else "SS"} {self.quoted(title.title)}']
        self.text(title.body)

    def quoted(self, text):
        return '"' + self.escape(text).replace('"', '\\(dq') + '"'

    def definition(self, name, kind):
        self.lines += [f'.SS {self.quoted(f"{name} ({kind})")}']

    def text(self, text):
        for kind, words in text.blocks() if text else []:
            if kind == 'literal':
                self.lines += ['.PP', '.EX', *(self.escape(line) for line in words.split('\n')), '.EE']
            elif kind == 'item':
                self.lines += ['.IP \\(bu 2', self.prose(words)]
            else:
                self.lines += ['.PP', self.prose(words)]

    def label(self, text, detail=None):
        self.lines += ['.PP', f'\\fB{text}\\fR' + (f' ({self.escape(detail)})' if detail else '')]

    def entry(self, name, type_name, optional, remarks, document):
        details = ', '.join(([type_name] if type_name else []) + (['optional'] if optional else []) + remarks)
        self.lines += ['.TP', f'\\fB{self.escape(name)}\\fR' + (f' ({self.escape(details)})' if details else '')]
        blocks = document.blocks() if document else [('text', '')]
        for number, (_, words) in enumerate(blocks):
            self.lines += ['.br'] * (number > 0) + [self.prose(words) or '\\&']

    def reference(self, text):
        self.lines += ['.IP \\(bu 2', self.escape(text)]

    def since(self, text):
        self.lines += ['.PP', f'Since {self.escape(text)}']

    def end(self):
        self.lines += ['.SH "SEE ALSO"', '.BR ashlar\\-storaged (1)']


class Markdown:
    """Renders for readers on the web."""

    def __init__(self, version):
        self.version, self.lines = version, []

    @staticmethod
    def prose(text):
        return re.sub(r'@([\w.-]*\w)', r'`\1`', re.sub(r'([*_<>\[\]])', r'\\\1', text))

    def start(self):
        self.lines += [f'# {NAME}', '', f'Ashlar {self.version}: {SUMMARY}.', '']
        for paragraph in INTRODUCTION:
            self.lines += [self.prose(paragraph), '']

    def chapter(self, title):
        self.lines += [f'{"#" * (title.level + 1)} {title.title}', '']
        self.text(title.body)

    def definition(self, name, kind):
        self.lines += [f'### `{name}` ({kind})', '']

    def text(self, text):
        for kind, words in text.blocks() if text else []:
            if kind == 'literal':
                self.lines += ['```', *words.split('\n'), '```', '']
            else:
                self.lines += [('- ' if kind == 'item' else '') + self.prose(words), '']

    def label(self, text, detail=None):
        self.lines += [f'**{text}**' + (f' ({self.prose(detail)})' if detail else ''), '']

    def entry(self, name, type_name, optional, remarks, document):
        details = ', '.join(([type_name] if type_name else []) + (['optional'] if optional else []) + remarks)
        words = self.prose(document.plain()) if document else ''
        self.lines += [f'- `{name}`' + (f' ({self.prose(details)})' if details else '') + f': {words}', '']

    def reference(self, text):
        self.lines += [f'- {self.prose(text)}', '']

    def since(self, text):
        self.lines += [f'Since {text}', '']

    def end(self):
        while not self.lines[-1]:
            self.lines.pop()


def man_page(schema, _):
    return Manual(schema, ManPage(schema.version)).write()


def markdown(schema, _):
    return Manual(schema, Markdown(schema.version)).write()
