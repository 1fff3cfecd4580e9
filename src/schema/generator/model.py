# SPDX-License-Identifier: LGPL-2.1-or-later
"""The schema as objects, checked: every name resolves, every definition makes sense and is documented."""
import re

from notation import Doc, SchemaError

BUILTINS = {  # name: (C type, table, JSON type in introspection)
    'str': ('char *', 'schema_string', 'string'), 'int': ('int64_t', 'schema_int64', 'int'),
    'number': ('double', 'schema_number', 'number'), 'bool': ('bool', 'schema_bool', 'boolean'),
    'size': ('uint64_t', 'schema_size', 'int'), 'any': ('struct json *', 'schema_any', 'value'),
    'null': (None, 'schema_null_type', 'null'),
    **{f'{sign}int{bits}': (f'{sign}int{bits}_t', f'schema_{sign}int{bits}', 'int')
       for sign in ('', 'u') for bits in (8, 16, 32, 64)},
}

KEYS = {  # kind: (required, optional) keys beside the kind's own
    'enum': ({'data'}, {'features', 'if'}),
    'struct': ({'data'}, {'base', 'features', 'if'}),
    'union': ({'base', 'discriminator', 'data'}, {'features', 'if'}),
    'alternate': ({'data'}, {'features', 'if'}),
    'command': (set(), {'data', 'returns', 'boxed', 'allow-oob', 'allow-preconfig', 'coroutine', 'features', 'if'}),
    'event': (set(), {'data', 'boxed', 'features', 'if'}),
}

C_WORDS = set('''auto break case char const continue default do double else enum extern float for goto if inline int long
    register return short signed sizeof static struct switch typedef union unsigned void volatile while bool asm typeof
    unix linux errno stdin stdout stderr'''.split())


def c_name(name):
    """A member's name in C."""
    name = re.sub(r'[-.]', '_', name)
    if name[0].isdigit():
        name = '_' + name
    return name + '_' if name in C_WORDS else name


def snake(name):
    """CamelCase, or a command's or event's name, in snake_case."""
    name = re.sub(r'[-.]', '_', name)
    name = re.sub(r'([a-z0-9])([A-Z])', r'\1_\2', name)
    return re.sub(r'([A-Z])([A-Z][a-z])', r'\1_\2', name).lower()


class Member:
    def __init__(self, name, spec, doc, where):
        self.optional = name.startswith('*')
        self.name = name.lstrip('*')
        spec = spec if isinstance(spec, dict) else {'type': spec}
        self.type = spec['type']
        self.features = feature_names(spec.get('features', []))
        self.doc = doc
        self.where = where

    @property
    def c_name(self):
        return c_name(self.name)


class Value:
    def __init__(self, spec, doc):
        spec = spec if isinstance(spec, dict) else {'name': spec}
        self.name = spec['name']
        self.features = feature_names(spec.get('features', []))
        self.doc = doc


def feature_names(features):
    return [feature['name'] if isinstance(feature, dict) else feature for feature in features]


class Definition:
    def __init__(self, expression, heading):
        body = expression.body
        kinds = [kind for kind in KEYS if kind in body]
        if len(kinds) != 1:
            raise SchemaError(f'{expression.where}: expected one of {", ".join(KEYS)}')
        self.kind = kinds[0]
        self.name = body[self.kind]
        self.where = expression.where
        self.body = body
        self.heading = heading
        self.doc = expression.doc
        self.features = feature_names(body.get('features', []))
        required, optional = KEYS[self.kind]
        for key in required - body.keys():
            raise SchemaError(f'{self.where}: {self.name} lacks {key!r}')
        for key in body.keys() - required - optional - {self.kind}:
            raise SchemaError(f'{self.where}: {self.name} has the unknown key {key!r}')
        self.c_name = snake(self.name)
        self.values = [Value(spec, self.doc_of_name(spec['name'] if isinstance(spec, dict) else spec))
                       for spec in body['data']] if self.kind == 'enum' else []
        data = body.get('data')
        self.members = [Member(name, spec, self.doc_of_name(name.lstrip('*')), self.where) for name, spec in data.items()] \
            if isinstance(data, dict) and self.kind != 'union' else []

    def doc_of_name(self, name):
        return Doc.plain(self.doc.members[name]) if self.doc and name in self.doc.members else None

    @property
    def struct_name(self):
        """Of the C struct that holds its members."""
        return {'command': f'{self.c_name}_arg', 'event': f'{self.c_name}_event'}.get(self.kind, self.c_name)


class Schema:
    def __init__(self, expressions):
        self.definitions = {}
        heading = None
        for expression in expressions:
            if isinstance(expression, Doc):
                heading = expression.heading[1]
                continue
            definition = Definition(expression, heading)
            if definition.name in self.definitions or definition.name in BUILTINS:
                raise SchemaError(f'{definition.where}: {definition.name} is defined twice')
            self.definitions[definition.name] = definition
        for definition in self.definitions.values():
            self._check(definition)

    def of_kind(self, *kinds):
        return [definition for definition in self.definitions.values() if definition.kind in kinds]

    def kind_of(self, name):
        """'builtin', 'array', or the kind of the definition."""
        if isinstance(name, list):
            return 'array'
        return 'builtin' if name in BUILTINS else self.definitions[name].kind

    def base_members(self, definition):
        """Members that a struct or union has by its base, outermost base first."""
        base = definition.body.get('base')
        if base is None:
            return []
        if isinstance(base, dict):
            return [Member(name, spec, definition.doc_of_name(name.lstrip('*')), definition.where)
                    for name, spec in base.items()]
        return self.all_members(self.definitions[base])

    def all_members(self, definition):
        return self.base_members(definition) + definition.members

    def variants(self, union):
        """(case, definition) of each branch, and the branches' union if the base is none."""
        data = union.body['data']
        return [(case, self.definitions[spec['type'] if isinstance(spec, dict) else spec]) for case, spec in data.items()]

    def tag(self, union):
        return next(member for member in self.base_members(union) if member.name == union.body['discriminator'])

    def arrays(self):
        """Element types of all arrays, sorted."""
        found = set()
        for definition in self.definitions.values():
            members = self.all_members(definition) if definition.kind != 'alternate' else definition.members
            types = [member.type for member in members] + [definition.body.get('returns')]
            found.update(spec[0] for spec in types if isinstance(spec, list))
        return sorted(found)

    def _resolve(self, spec, definition, kinds=None):
        name = spec[0] if isinstance(spec, list) else spec
        if name not in BUILTINS and name not in self.definitions:
            raise SchemaError(f'{definition.where}: {definition.name} uses {name}, which is not defined')
        if kinds and self.kind_of(spec) not in kinds:
            raise SchemaError(f'{definition.where}: {definition.name}: {name} is no {" or ".join(kinds)}')

    def _check(self, definition):
        base, data = definition.body.get('base'), definition.body.get('data')
        if isinstance(base, str):
            self._resolve(base, definition, ('struct', 'union'))
        if definition.kind == 'union':
            self._check_union(definition)
        elif isinstance(data, str):
            self._resolve(data, definition, ('struct', 'union', 'alternate'))
        if 'returns' in definition.body:
            self._resolve(definition.body['returns'], definition)
        members = self.all_members(definition) if definition.kind not in ('alternate',) else definition.members
        names = [member.name for member in members]
        for member in members:
            self._resolve(member.type, definition)
            if names.count(member.name) > 1:
                raise SchemaError(f'{definition.where}: {definition.name} has {member.name!r} twice')
        self._check_documented(definition)

    def _check_union(self, definition):
        members = {member.name: member for member in self.base_members(definition)}
        tag = members.get(definition.body['discriminator'])
        if tag is None or isinstance(tag.type, list) or self.kind_of(tag.type) != 'enum' or tag.optional:
            raise SchemaError(f'{definition.where}: {definition.name}: the discriminator is a mandatory enum of the base')
        values = {value.name for value in self.definitions[tag.type].values}
        for case, spec in definition.body['data'].items():
            if case not in values:
                raise SchemaError(f'{definition.where}: {definition.name}: {case!r} is no value of {tag.type}')
            self._resolve(spec['type'] if isinstance(spec, dict) else spec, definition, ('struct', 'union'))

    def _check_documented(self, definition):
        doc = definition.doc
        if not doc or doc.symbol != definition.name:
            raise SchemaError(f'{definition.where}: {definition.name} is not documented')
        names = {member.name for member in definition.members} | {value.name for value in definition.values}
        if definition.kind in ('struct', 'union') and isinstance(definition.body.get('base'), dict):
            names |= {name.lstrip('*') for name in definition.body['base']}
        for name in names - doc.members.keys():
            raise SchemaError(f'{doc.where}: {definition.name}: @{name} is not documented')
        for name in doc.members.keys() - names:
            raise SchemaError(f'{doc.where}: {definition.name}: @{name} is documented, but not there')
