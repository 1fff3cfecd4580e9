# SPDX-License-Identifier: LGPL-2.1-or-later
"""gen/types.h and gen/types.c: the C types, and the tables by which they are parsed, written, copied and freed."""
import re
import textwrap

import naming
from model import Alternate, Array, Builtin, Enum, Struct

NONE = 'SCHEMA_NONE'


def pointer_to(item):
    return f'struct {item.c_name} *'


def slot_type(item):
    """C type of a member or element, with the space or star before its name."""
    if isinstance(item, Builtin):
        return item.c_type
    return f'enum {item.c_name} ' if isinstance(item, Enum) else pointer_to(item)


def has_flag(member):
    """Whether an optional member needs a flag to say that it is there."""
    return member.optional and (isinstance(member.type, Enum) or isinstance(member.type, Builtin)
                                and '*' not in member.type.c_type)


def in_order(types):
    """Structs after those that they hold by value: the branches of unions."""
    done = []

    def visit(item):
        if item in done:
            return
        if isinstance(item, Struct):
            for case in item.variants()[1]:
                visit(case.type)
        done.append(item)

    for item in types:
        visit(item)
    return done


def member_lines(members):
    for member in members:
        if has_flag(member):
            yield f'    bool has_{member.c_name};'
        yield f'    {slot_type(member.type)}{member.c_name};'


def struct_lines(struct):
    _, cases = struct.variants()
    yield f'struct {struct.c_name} {{'
    yield from member_lines(struct.all_members())
    filled = [case for case in cases if not case.type.is_empty()]
    if filled:
        yield '    union {'
        for case in filled:
            yield f'        struct {case.type.c_name} {case.c_name};'
        yield '    } u;'
    if struct.is_empty():
        yield '    char unused_;'
    yield '};'


def alternate_lines(alternate):
    yield f'enum {alternate.c_name}_kind {{'
    for member in alternate.members:
        yield f'    {naming.constant(alternate.name + "Kind", member.name)},'
    yield '};'
    yield ''
    yield f'struct {alternate.c_name} {{'
    yield f'    enum {alternate.c_name}_kind kind;'
    yield '    union {'
    for member in alternate.members:
        if member.type.name != 'null':
            yield f'        {slot_type(member.type)}{member.c_name};'
    yield '    } u;'
    yield '};'


def enum_lines(enum):
    yield f'enum {enum.c_name} {{'
    for value in enum.values:
        yield f'    {naming.constant(enum.name, value.name)},'
    yield f'    {naming.constant(enum.name, "")}_MAX'
    yield '};'


def array_lines(array):
    element = slot_type(array.element)
    yield f'struct {array.c_name} {{'
    yield '    size_t count;'
    yield f'    {element}*items;'
    yield '};'


LINES = [(Enum, enum_lines), (Struct, struct_lines), (Alternate, alternate_lines), (Array, array_lines)]


def header(schema, name):
    types = [item for item in schema.types.values() if not isinstance(item, Builtin)]
    yield '/* Generated from the schema. The types of the interface; what can be done with them: schema/schema.h. */'
    yield '#pragma once'
    yield ''
    yield '#include "schema/table.h"'
    for item in types:
        if isinstance(item, Enum):
            yield ''
            yield from enum_lines(item)
    yield ''
    for item in types:
        if not isinstance(item, Enum):
            yield f'struct {item.c_name};'
    for item in in_order(types):
        for cls, lines in LINES:
            if isinstance(item, cls) and cls is not Enum:
                yield ''
                yield from lines(item)
    yield ''
    for item in types:
        yield f'SCHEMA_DECLARE{"_ENUM" if isinstance(item, Enum) else ""}({item.c_name})'


class Pool:
    """Strings one after another, each once, found by their offset."""

    def __init__(self):
        self.offsets, self.size, self.items = {}, 0, []

    def add(self, text):
        if text not in self.offsets:
            self.offsets[text] = self.size
            self.size += len(text.encode('utf-8')) + 1
            self.items.append(text)
        return self.offsets[text]


def explanation(text):
    """A document.Text as help shows it: paragraphs on a line each, names in quotes."""
    if not text:
        return ''
    lines = ['- ' + words if kind == 'item' else words for kind, words in text.blocks()]
    return re.sub(r'@([\w.-]*\w)', r"'\1'", '\n'.join(lines))


class Tables:
    """The rows of the tables, made in the order of the types."""

    def __init__(self, schema):
        self.strings, self.nodes, self.members, self.cases = Pool(), [], [], []
        self.docs, self.node_docs, self.member_docs = Pool(), [], []
        self.types = list(schema.types.values())
        self.index = {item.name: number for number, item in enumerate(self.types)}
        for item in self.types:
            self.nodes.append(self.node(item))
            self.node_docs.append(self.docs.add(explanation(item.document.body if item.document else None)))

    def node(self, item):
        fields = {'name': self.strings.add(item.name)}
        if isinstance(item, Builtin):
            fields['kind'] = f'SCHEMA_{item.kind}'
        elif isinstance(item, Enum):
            fields |= {'kind': 'SCHEMA_ENUM'} | self.rows([self.value(value) for value in item.values], item.values)
        elif isinstance(item, Array):
            fields |= {'kind': 'SCHEMA_ARRAY', 'size': f'sizeof({slot_type(item.element).rstrip()})',
                       'first': self.index[item.element.name]}
        elif isinstance(item, Alternate):
            fields |= {'kind': 'SCHEMA_ALTERNATE', 'size': f'sizeof(struct {item.c_name})',
                       'u_offset': f'offsetof(struct {item.c_name}, u)'}
            fields |= self.rows([self.branch(item, member) for member in item.members], item.members)
        else:
            fields |= self.struct(item)
        fields.setdefault('tag', NONE)
        return fields

    def rows(self, rows, documented):
        first = len(self.members)
        self.members += rows
        self.member_docs += [self.docs.add(explanation(item.document)) for item in documented]
        return {'first': first, 'count': len(rows)}

    @staticmethod
    def flags(item, optional=False):
        names = ['SCHEMA_OPTIONAL'] if optional else []
        names += [f'SCHEMA_{name.upper()}' for name in item.features if name in ('deprecated', 'unstable')]
        return ' | '.join(names) or '0'

    def value(self, value):
        return {'name': self.strings.add(value.name), 'flags': self.flags(value)}

    def branch(self, alternate, member):
        return {'name': self.strings.add(member.name), 'type': self.index[member.type.name],
                'offset': f'offsetof(struct {alternate.c_name}, u)', 'has_offset': NONE, 'flags': self.flags(member)}

    def member(self, struct, member):
        has = f'offsetof(struct {struct.c_name}, has_{member.c_name})' if has_flag(member) else NONE
        return {'name': self.strings.add(member.name), 'type': self.index[member.type.name],
                'offset': f'offsetof(struct {struct.c_name}, {member.c_name})', 'has_offset': has,
                'flags': self.flags(member, member.optional)}

    def struct(self, struct):
        tag, cases = struct.variants()
        members = struct.all_members()
        fields = {'kind': 'SCHEMA_STRUCT', 'size': f'sizeof(struct {struct.c_name})'}
        fields |= self.rows([self.member(struct, member) for member in members], members)
        filled = [case for case in cases if not case.type.is_empty()]
        if tag:
            enum = next(member for member in members if member.name == tag)
            fields['tag'] = members.index(enum)
            values = [value.name for value in enum.type.values]
            fields |= {'first_case': len(self.cases), 'case_count': len(filled)}
            if filled:
                fields['u_offset'] = f'offsetof(struct {struct.c_name}, u)'
            self.cases += [{'value': values.index(case.name), 'type': self.index[case.type.name]} for case in filled]
        return fields


def initializer(fields):
    return '{' + ', '.join(f'.{key} = {value}' for key, value in fields.items()) + '}'


def source(schema, name):
    tables = Tables(schema)
    yield '/* Generated from the schema. */'
    yield f'#include "{name}"'
    yield ''
    for kind, rows in (('node', tables.nodes), ('member', tables.members), ('case', tables.cases)):
        yield f'static const struct schema_{kind} {kind}s[] = {{'
        yield from (f'    {initializer(row)},' for row in rows or [{}])
        yield '};'
        yield ''
    for pool, array in ((tables.strings, 'strings'), (tables.docs, 'docs')):
        yield f'static const char {array}[] ='
        yield from (f'    {naming.string(text)} "\\0"' for text in pool.items)
        yield '    "";'
        yield ''
    for offsets, array in ((tables.node_docs, 'node_docs'), (tables.member_docs, 'member_docs')):
        yield f'static const uint32_t {array}[] = {{'
        yield from textwrap.wrap(', '.join(str(offset) for offset in offsets or [0]), 110)
        yield '};'
        yield ''
    yield 'static const struct schema_tables tables = {'
    yield f'    .node_count = {len(tables.nodes)},'
    yield '    .nodes = nodes, .members = members, .cases = cases, .strings = strings,'
    yield '    .docs = docs, .node_docs = node_docs, .member_docs = member_docs};'
    yield ''
    for number, item in enumerate(tables.types):
        if not isinstance(item, Builtin):
            yield f'const struct schema_type {item.c_name}_type = {{.tables = &tables, .node = {number}}};'
    yield ''
    yield f'_Static_assert({len(tables.types)} < SCHEMA_NONE, "nodes fit their index");'
    yield f'_Static_assert({len(tables.members)} < SCHEMA_NONE, "members fit their index");'
