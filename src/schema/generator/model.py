# SPDX-License-Identifier: LGPL-2.1-or-later
"""The types, commands and events of a schema, resolved and checked."""
import re

import naming
from document import Document, Title
from notation import Expression, SchemaError, read

# name: (kind of schema/table.h, C type, name in introspection, JSON type)
BUILTINS = {
    'str': ('STRING', 'char *', 'str', 'string'),
    'bool': ('BOOL', 'bool ', 'bool', 'boolean'),
    'number': ('NUMBER', 'double ', 'number', 'number'),
    'any': ('ANY', 'struct json *', 'any', 'value'),
    'null': ('NULL', None, 'null', 'null'),
    'int': ('INT64', 'int64_t ', 'int', 'int'),
    'int8': ('INT8', 'int8_t ', 'int', 'int'),
    'int16': ('INT16', 'int16_t ', 'int', 'int'),
    'int32': ('INT32', 'int32_t ', 'int', 'int'),
    'int64': ('INT64', 'int64_t ', 'int', 'int'),
    'uint8': ('UINT8', 'uint8_t ', 'int', 'int'),
    'uint16': ('UINT16', 'uint16_t ', 'int', 'int'),
    'uint32': ('UINT32', 'uint32_t ', 'int', 'int'),
    'uint64': ('UINT64', 'uint64_t ', 'int', 'int'),
    'size': ('SIZE', 'uint64_t ', 'int', 'int'),
}
KEYS = {
    'enum': {'data'},
    'struct': {'data', 'base'},
    'union': {'data', 'base', 'discriminator'},
    'alternate': {'data', 'shown-as'},
    'command': {'data', 'returns', 'boxed', 'gen', 'allow-oob', 'allow-preconfig', 'coroutine', 'success-response'},
    'event': {'data', 'boxed'},
}
COMMON_KEYS = {'features', 'if'}
NAME = re.compile(r'[A-Za-z0-9_][A-Za-z0-9_.-]*$')


class Type:
    """What every type has: `name` in the schema, `c_name` in C."""
    features, document, place, implicit = (), None, None, False

    def __init__(self, name):
        self.name = name
        self.c_name = naming.snake(name)


class Builtin(Type):
    def __init__(self, name):
        super().__init__(name)
        self.kind, self.c_type, self.introspect_name, self.json_type = BUILTINS[name]


class Enum(Type):
    """`values`: list of Value."""


class Struct(Type):
    """
    A struct or union. `members` are its own, `base` (Struct, or None) gives the first ones. A union has `tag`, the name
    of a member, and `cases`: list of Case, those with members only.
    """
    base, tag, is_union = None, None, False

    def __init__(self, name):
        super().__init__(name)
        self.members, self.cases = [], []

    def all_members(self):
        return (self.base.all_members() if self.base else []) + self.members

    def variants(self):
        """(tag, cases) of this type or of the base that has them; (None, []): no union."""
        if self.tag:
            return self.tag, self.cases
        return self.base.variants() if self.base else (None, [])

    def is_empty(self):
        return not self.all_members() and not self.variants()[0]


class Alternate(Type):
    """`members`: list of Member, the branches."""


class Array(Type):
    def __init__(self, element):
        super().__init__(f'[{element.name}]')
        self.element = element
        self.c_name = {'str': 'string'}.get(element.name, element.c_name) + '_array'


class Value:
    def __init__(self, name, features, place):
        self.name, self.features, self.place = name, features, place
        self.document = None


class Member:
    """Member of a struct, or branch of an alternate."""

    def __init__(self, name, type_name, optional, features, place):
        self.name, self.type_name, self.optional, self.features, self.place = name, type_name, optional, features, place
        self.c_name = naming.identifier(name)
        self.type = self.document = None


class Case:
    def __init__(self, name, type_name, features, place):
        self.name, self.type_name, self.features, self.place = name, type_name, features, place
        self.c_name = naming.identifier(name)
        self.type = None


class Entity:
    """A command or an event; `arg` is a Struct or None."""

    def __init__(self, name, value):
        self.name, self.c_name, self.value = name, naming.snake(name), value
        self.arg = self.returns = self.document = None
        self.features = ()


class Schema:
    """`parts`: Title, Type and Entity objects in the order of the files. `errors`: what is wrong."""

    def __init__(self, path, strict=True):
        self.types = {name: Builtin(name) for name in BUILTINS}
        self.arrays, self.commands, self.events, self.parts = {}, {}, {}, []
        self.warnings, self.strict = [], strict
        parts, self.files = read(path)
        for part in parts:
            if isinstance(part, Expression):
                self.define(part)
            elif part.lines[0][0].startswith('='):
                self.parts.append(Title(part))
            else:
                raise SchemaError(part.place, 'comment block without a definition below it')
        for part in list(self.parts):
            if isinstance(part, (Struct, Alternate, Entity)):
                self.resolve(part)
        for name in ('str', 'int'):
            self.array(self.types[name])
        for part in self.parts:
            self.check(part)
        self.check_c_names()

    # Making the objects.

    def define(self, expression):
        value, place = expression.value, expression.place
        kinds = [key for key in value if key in KEYS]
        if len(kinds) != 1:
            raise SchemaError(place, f'expected one of {", ".join(KEYS)}, found {", ".join(value) or "nothing"}')
        kind, name = kinds[0], value[kinds[0]]
        for key in value:
            if key not in KEYS[kind] | COMMON_KEYS | {kind}:
                raise SchemaError(value.places[key], f"{kind} has no key '{key}'")
        if not isinstance(name, str) or not NAME.match(name):
            raise SchemaError(place, f'{kind}: bad name {name!r}')
        if name in self.types or name in self.commands or name in self.events:
            raise SchemaError(place, f"'{name}' is defined twice")
        part = getattr(self, 'make_' + kind)(name, value)
        part.place, part.features = place, self.features(value, place)
        if expression.block:
            part.document = Document(expression.block)
        self.parts.append(part)

    @staticmethod
    def features(value, place):
        names = []
        if not isinstance(value.get('features', []), list):
            raise SchemaError(place, "'features' is no list")
        for feature in value.get('features', []):
            names.append(feature.get('name') if isinstance(feature, dict) else feature)
            if not isinstance(names[-1], str) or not NAME.match(names[-1]):
                raise SchemaError(place, f'bad feature {names[-1]!r}')
        return tuple(names)

    def type_name(self, name, value, place):
        if not re.match(r'[A-Z]', name) or not re.match(r'[A-Za-z0-9]+$', name):
            raise SchemaError(place, f"type '{name}': the name is not in CamelCase")
        return name

    def make_enum(self, name, value):
        enum = self.types[self.type_name(name, value, value.place)] = Enum(name)
        enum.values = []
        if not isinstance(value.get('data'), list):
            raise SchemaError(value.place, f"enum '{name}' has no list 'data'")
        for item in value['data']:
            item_name = item.get('name') if isinstance(item, dict) else item
            place = item.place if isinstance(item, dict) else value.place
            if not isinstance(item_name, str) or not NAME.match(item_name):
                raise SchemaError(place, f"enum '{name}': bad value {item_name!r}")
            if any(item_name == other.name for other in enum.values):
                raise SchemaError(place, f"enum '{name}': value '{item_name}' is there twice")
            enum.values.append(Value(item_name, self.features(item, place) if isinstance(item, dict) else (), place))
        return enum

    def make_members(self, owner, value, key='data', cls=Member):
        data, result = value.get(key), []
        if not isinstance(data, dict):
            raise SchemaError(value.place, f"'{owner}': '{key}' is no dictionary")
        for key, item in data.items():
            place = data.places[key]
            name, optional = key.lstrip('*'), key.startswith('*')
            type_name, features = item, ()
            if isinstance(item, dict):
                if not set(item) <= {'type', 'features', 'if'} or 'type' not in item:
                    raise SchemaError(place, f"'{owner}': member '{name}' has keys {', '.join(item)}")
                type_name, features = item['type'], self.features(item, place)
            if not NAME.match(name):
                raise SchemaError(place, f"'{owner}': bad name {name!r}")
            if cls is Case:
                result.append(Case(name, type_name, features, place))
            else:
                result.append(Member(name, type_name, optional, features, place))
        return result

    def make_struct(self, name, value):
        struct = Struct(self.type_name(name, value, value.place))
        struct.members = self.make_members(name, value)
        struct.base_name = value.get('base')
        self.types[name] = struct
        return struct

    def make_union(self, name, value):
        for key in ('base', 'discriminator', 'data'):
            if key not in value:
                raise SchemaError(value.place, f"union '{name}' has no '{key}'")
        union = Struct(self.type_name(name, value, value.place))
        union.is_union, union.base_name, union.tag = True, None, value['discriminator']
        if isinstance(value['base'], dict):
            union.members = self.make_members(name, value, 'base')
        else:
            union.base_name = value['base']
        union.cases = self.make_members(name, value, cls=Case)
        self.types[name] = union
        return union

    def make_alternate(self, name, value):
        alternate = Alternate(self.type_name(name, value, value.place))
        alternate.members = self.make_members(name, value)
        alternate.shown_as = value.get('shown-as')
        if alternate.shown_as and alternate.shown_as not in [member.name for member in alternate.members]:
            raise SchemaError(value.place, f"alternate '{name}' has no branch '{alternate.shown_as}'")
        self.types[name] = alternate
        return alternate

    def make_entity(self, name, value, table):
        entity = table[name] = Entity(name, value)
        data = value.get('data')
        if isinstance(data, dict) and not value.get('boxed'):
            if data:
                arg = entity.arg = Struct(name + ('-arg' if table is self.commands else '-event'))
                arg.c_name = naming.snake(name.lower()) + ('_arg' if table is self.commands else '_event')
                arg.implicit, arg.place, arg.base_name = True, value.place, None
                arg.members = self.make_members(name, value)
                self.types[arg.name] = arg
        elif data is not None and not isinstance(data, str):
            raise SchemaError(value.place, f"'{name}': 'data' is neither a type nor a dictionary")
        return entity

    def make_command(self, name, value):
        return self.make_entity(name, value, self.commands)

    def make_event(self, name, value):
        event = self.make_entity(name, value, self.events)
        event.c_name = naming.snake(name.lower())
        return event

    # Finding what names mean.

    def array(self, element):
        if element.name not in self.arrays:
            array = self.arrays[element.name] = Array(element)
            self.types[array.name] = array
        return self.arrays[element.name]

    def find(self, name, place):
        if isinstance(name, list):
            if len(name) != 1 or not isinstance(name[0], str):
                raise SchemaError(place, "an array is written ['Type']")
            return self.array(self.find(name[0], place))
        if not isinstance(name, str) or name not in self.types:
            raise SchemaError(place, f"there is no type '{name}'")
        return self.types[name]

    def resolve(self, part):
        if isinstance(part, Entity):
            self.resolve_entity(part)
            return
        for member in part.members:
            member.type = self.find(member.type_name, member.place)
            if isinstance(part, Struct) and member.type.name == 'null':
                raise SchemaError(member.place, f"'{part.name}': member '{member.name}' can only be null")
        if isinstance(part, Struct):
            if part.base_name:
                part.base = self.find(part.base_name, part.place)
                if not isinstance(part.base, Struct):
                    raise SchemaError(part.place, f"'{part.name}': base '{part.base_name}' is no struct")
            for case in part.cases:
                case.type = self.find(case.type_name, case.place)
                if not isinstance(case.type, Struct):
                    raise SchemaError(case.place, f"'{part.name}': branch '{case.name}' is no struct or union")

    def resolve_entity(self, entity):
        value = entity.value
        if entity.arg:
            self.resolve(entity.arg)
        elif isinstance(value.get('data'), str):
            entity.arg = self.find(value['data'], entity.place)
            if not isinstance(entity.arg, Struct):
                raise SchemaError(entity.place, f"'{entity.name}': its data, '{value['data']}', is no struct or union")
        if 'returns' in value:
            returns = value['returns']
            if value.get('gen') is False and isinstance(returns, list):
                # Nobody makes one in C, where its name may be taken.
                entity.returns = Array(self.find(returns[0], entity.place))
            else:
                entity.returns = self.find(returns, entity.place)

    # Checks of the whole.

    def check(self, part):
        if isinstance(part, Title):
            return
        if isinstance(part, Struct):
            self.check_struct(part)
        elif isinstance(part, Alternate):
            self.check_alternate(part)
        elif isinstance(part, Entity) and part.arg and part.arg.implicit:
            self.check_struct(part.arg)
        self.check_document(part)

    def check_c_names(self):
        taken = {}
        for item in self.types.values():
            if isinstance(item, Builtin):
                continue
            other = taken.setdefault(item.c_name, item)
            if other is not item:
                raise SchemaError(item.place or other.place, f"'{other.name}' and '{item.name}' are both {item.c_name} in C")

    def check_struct(self, struct):
        self.check_ancestors(struct)
        names = [member.name for member in struct.all_members()]
        c_names = [member.c_name for member in struct.all_members()]
        for name in names:
            if names.count(name) > 1:
                raise SchemaError(struct.place, f"'{struct.name}': member '{name}' is there twice")
        for member in struct.all_members():
            if c_names.count(member.c_name) > 1 or member.c_name == 'u' or member.c_name.startswith('has_'):
                raise SchemaError(struct.place, f"'{struct.name}': member '{member.name}' clashes with another in C")
        if struct.is_union:
            self.check_union(struct, names)

    @staticmethod
    def check_ancestors(struct):
        seen = [struct]
        while seen[-1].base:
            if seen[-1].base in seen:
                raise SchemaError(struct.place, f"'{struct.name}' is its own base")
            seen.append(seen[-1].base)

    def check_union(self, union, names):
        tag = next((member for member in union.all_members() if member.name == union.tag), None)
        if tag is None:
            raise SchemaError(union.place, f"'{union.name}': there is no member '{union.tag}' to discriminate by")
        if not isinstance(tag.type, Enum) or tag.optional:
            raise SchemaError(union.place, f"'{union.name}': '{union.tag}' is no mandatory enum")
        if union.base and union.base.variants()[0]:
            raise SchemaError(union.place, f"'{union.name}': its base '{union.base.name}' has branches already")
        for case in union.cases:
            if case.name not in [value.name for value in tag.type.values]:
                raise SchemaError(case.place, f"'{union.name}': '{case.name}' is no value of '{tag.type.name}'")
            for member in case.type.all_members():
                if member.name in names:
                    raise SchemaError(case.place, f"'{union.name}': branch '{case.name}' has a member '{member.name}', "
                                      'as all branches have')

    def check_alternate(self, alternate):
        kinds = {}
        for member in alternate.members:
            if member.optional:
                raise SchemaError(member.place, f"'{alternate.name}': a branch cannot be optional")
            kind = json_kind(member.type)
            if kind in kinds or kind == 'value' or isinstance(member.type, Alternate):
                raise SchemaError(member.place, f"'{alternate.name}': branch '{member.name}' cannot be told apart")
            kinds[kind] = member

    def check_document(self, part):
        document = part.document
        if document is None:
            self.complain(part.place, f"'{part.name}' is not documented")
            return
        if document.name != part.name:
            raise SchemaError(document.place, f"comment block of '{document.name}' stands above '{part.name}'")
        if not document.body:
            self.complain(document.place, f"'{part.name}' has no description")
        if isinstance(part, Enum):
            described = part.values
        elif isinstance(part, Entity):
            described = part.arg.members if part.arg and part.arg.implicit else []
        else:
            described = part.members
        self.attach(part.name, described, document.members, document.place, 'member')
        features = [Value(name, (), part.place) for name in part.features]
        known = {value.name for value in features}
        for name, text in document.features.items():
            if name not in known and not any(name in item.features for item in described):
                raise SchemaError(text.place, f"'{part.name}' has no feature '{name}'")
        for value in features:
            if value.name not in document.features:
                self.complain(document.place, f"'{part.name}': feature '{value.name}' is not documented")
        if isinstance(part, Entity) and part.returns and not document.returns:
            self.complain(document.place, f"'{part.name}': what it returns is not documented")

    def attach(self, name, items, texts, place, what):
        for item in items:
            item.document = texts.get(item.name)
            if not item.document:
                self.complain(place, f"'{name}': {what} '{item.name}' is not documented")
        known = {item.name for item in items}
        for described, text in texts.items():
            if described not in known:
                raise SchemaError(text.place, f"'{name}' has no {what} '{described}'")

    def complain(self, place, text):
        if self.strict:
            raise SchemaError(place, text)
        self.warnings.append(f'{place}: {text}')


def json_kind(member_type):
    """The kind of JSON value that an alternate's branch of this type takes."""
    if isinstance(member_type, Builtin):
        return 'number' if member_type.json_type == 'int' else member_type.json_type
    return {Enum: 'string', Array: 'array', Struct: 'object', Alternate: 'value'}[type(member_type)]
