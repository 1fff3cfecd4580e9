# SPDX-License-Identifier: LGPL-2.1-or-later
"""What query-qmp-schema returns: as JSON, and as C."""
import json

import naming
from model import Alternate, Array, Builtin, Enum, Struct


class Introspection:
    """
    The entities that commands and events lead to. Types have numbers for names, so that nobody relies on what they are
    called; arrays are the element's name in brackets.
    """

    EMPTY = object()

    def __init__(self, schema):
        self.entities, self.names, self.queue = [], {}, []
        for entity in [*schema.commands.values(), *schema.events.values()]:
            self.entities.append(self.entity(entity, entity.name in schema.commands))
        for item in self.queue:
            self.entities.append(self.describe(item))

    def name(self, item):
        """The name under which a type appears; the type is described once it has been asked for."""
        # A member that took one kind of value for long and takes others since: who reads this may not know alternates there.
        if isinstance(item, Alternate) and item.shown_as:
            item = next(member.type for member in item.members if member.name == item.shown_as)
        if isinstance(item, Array):
            name = f'[{self.name(item.element)}]'
        else:
            name = item.introspect_name if isinstance(item, Builtin) else None
        key = name or id(item)
        if key not in self.names:
            self.names[key] = name or str(len([other for other in self.names.values() if other.isdigit()]))
            self.queue.append(item)
        return self.names[key]

    @staticmethod
    def with_features(result, item):
        if item.features:
            result['features'] = list(item.features)
        return result

    def entity(self, entity, is_command):
        result = {'name': entity.name, 'meta-type': 'command' if is_command else 'event',
                  'arg-type': self.name(entity.arg or self.EMPTY)}
        if is_command:
            result['ret-type'] = self.name(entity.returns or self.EMPTY)
            if entity.value.get('allow-oob'):
                result['allow-oob'] = True
        return self.with_features(result, entity)

    def describe(self, item):
        result = {'name': self.name(item)}
        if item is self.EMPTY:
            result |= {'meta-type': 'object', 'members': []}
        elif isinstance(item, Builtin):
            result |= {'meta-type': 'builtin', 'json-type': item.json_type}
        elif isinstance(item, Array):
            result |= {'meta-type': 'array', 'element-type': self.name(item.element)}
        elif isinstance(item, Enum):
            result |= {'meta-type': 'enum',
                       'members': [self.with_features({'name': value.name}, value) for value in item.values],
                       'values': [value.name for value in item.values]}
        elif isinstance(item, Alternate):
            result |= {'meta-type': 'alternate', 'members': [{'type': self.name(member.type)} for member in item.members]}
        else:
            result |= self.object(item)
        return result if item is self.EMPTY or isinstance(item, (Builtin, Array)) else self.with_features(result, item)

    def member(self, member):
        result = {'name': member.name, 'type': self.name(member.type)}
        if member.optional:
            result['default'] = None
        return self.with_features(result, member)

    def object(self, struct: Struct):
        members = struct.all_members()
        result = {'meta-type': 'object', 'members': [self.member(member) for member in members]}
        tag, cases = struct.variants()
        if tag:
            branches = {case.name: case.type for case in cases}
            values = next(member.type.values for member in members if member.name == tag)
            result['tag'] = tag
            result['variants'] = [{'case': value.name, 'type': self.name(branches.get(value.name, self.EMPTY))}
                                  for value in values]
        return result


def as_json(schema, _):
    yield '['
    entities = Introspection(schema).entities
    for entity in entities:
        yield json.dumps(entity) + (',' if entity is not entities[-1] else '')
    yield ']'


def header(_schema, _name):
    yield '/* Generated from the schema. */'
    yield '#pragma once'
    yield ''
    yield '#include <stddef.h>'
    yield ''
    yield '/* The text of what query-qmp-schema returns, JSON of `introspection_size` bytes. */'
    yield 'extern const char introspection[];'
    yield 'extern const size_t introspection_size;'


def source(schema, name):
    yield '/* Generated from the schema. */'
    yield f'#include "{name}"'
    yield ''
    yield 'const char introspection[] ='
    for line in as_json(schema, name):
        yield f'    {naming.string(line)}'
    yield '    "";'
    yield ''
    yield 'const size_t introspection_size = sizeof(introspection) - 1;'
