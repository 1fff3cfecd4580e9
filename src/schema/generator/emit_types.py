# SPDX-License-Identifier: LGPL-2.1-or-later
"""gen/types.h and gen/types.c: the C types, and the tables by which they are parsed, written, copied and freed."""
import re

from model import BUILTINS, c_name, snake

HEAD = '/* SPDX-License-Identifier: LGPL-2.1-or-later */\n/* Made from the schema by src/schema/generator. */\n'


def constant(enum_name, value):
    return f'{snake(enum_name)}_{re.sub(r"[-.]", "_", value)}'.upper()


class Types:
    def __init__(self, schema):
        self.schema = schema

    # Names in C.

    def array_name(self, element):
        return {'str': 'string_array'}.get(element, f'{snake(element)}_array')

    def slot(self, spec):
        """The C type of a member or item, ready to have a name appended; None where it takes no room."""
        if isinstance(spec, list):
            return f'struct {self.array_name(spec[0])} *'
        if spec in BUILTINS:
            text = BUILTINS[spec][0]
            return text if text is None or text.endswith('*') else text + ' '
        if self.schema.kind_of(spec) == 'enum':
            return f'enum {snake(spec)} '
        return f'struct {snake(spec)} *'

    def table(self, spec):
        """The expression for the address of a type's table."""
        if isinstance(spec, list):
            return f'&{self.array_name(spec[0])}_type'
        return f'&{BUILTINS[spec][1]}' if spec in BUILTINS else f'&{snake(spec)}_type'

    def has_flag(self, member):
        slot = self.slot(member.type)
        return member.optional and slot is not None and not slot.endswith('*')

    # Declarations.

    def member_lines(self, members, indent='    '):
        for member in members:
            slot = self.slot(member.type)
            if slot is None:
                continue
            if self.has_flag(member):
                yield f'{indent}bool has_{member.c_name};'
            yield f'{indent}{slot}{member.c_name};'

    def enum(self, definition):
        name = definition.c_name
        lines = [f'    {constant(definition.name, value.name)},' for value in definition.values]
        return '\n'.join([f'enum {name} {{', *lines, f'    {name.upper()}__MAX,', '};',
                          f'extern const struct schema_type {name}_type;',
                          f'const char *{name}_name(enum {name} value);',
                          f'int {name}_value(const char *name); /* -1: there is no such value */', '', ''])

    def functions(self, name):
        return '\n'.join([
            f'extern const struct schema_type {name}_type;',
            f'struct {name} *{name}_parse(const struct json *value, struct error **err) MUST_CHECK;',
            f'struct {name} *{name}_parse_keyval(const struct json *value, struct error **err) MUST_CHECK;',
            f'struct json *{name}_write(const struct {name} *value) MUST_CHECK;',
            f'struct {name} *{name}_clone(const struct {name} *value) MUST_CHECK;',
            f'void {name}_free(struct {name} *value);',
            f'AUTO_DEFINE({name}, struct {name} *, {name}_free)', '', ''])

    def struct(self, definition):
        name = definition.struct_name
        lines = list(self.member_lines(self.schema.all_members(definition)))
        if definition.kind == 'union':
            branches = [f'        struct {branch.c_name} {c_name(case)};' for case, branch in self.schema.variants(definition)]
            lines += ['    union {', *branches, '    } u;']
        return '\n'.join([f'struct {name} {{', *(lines or ['    char empty_;']), '};', self.functions(name)])

    def alternate(self, definition):
        name = definition.c_name
        kinds = [f'    {name.upper()}_KIND_{member.c_name.rstrip("_").upper()},' for member in definition.members]
        branches = list(self.member_lines(definition.members, '        '))
        return '\n'.join([f'enum {name}_kind {{', *kinds, '};', f'struct {name} {{', f'    enum {name}_kind kind;',
                          '    union {', *branches, '    } u;', '};', self.functions(name)])

    def array(self, element):
        name = self.array_name(element)
        return '\n'.join([f'struct {name} {{', '    size_t count;', f'    {self.slot(element)}*items;', '};', self.functions(name)])

    def ordered_structs(self):
        """Structs and unions so that each comes after those that it holds by value."""
        done = {}

        def visit(definition):
            if definition.name in done:
                return
            if definition.kind == 'union':
                for _, branch in self.schema.variants(definition):
                    visit(branch)
            done[definition.name] = definition
        for definition in self.schema.of_kind('struct', 'union'):
            visit(definition)
        return done.values()

    def inline_arguments(self):
        """Commands and events whose data is given in place: they get a struct of their own."""
        return [definition for definition in self.schema.of_kind('command', 'event')
                if isinstance(definition.body.get('data'), dict)]

    def header(self):
        schema = self.schema
        parts = [HEAD, '#pragma once\n\n#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\n\n'
                 '#include "base/cleanup.h"\n#include "base/compiler.h"\n\nstruct error;\nstruct json;\nstruct schema_type;\n']
        parts += [f'struct {definition.c_name};\n' for definition in schema.of_kind('struct', 'union', 'alternate')]
        parts += ['\n'] + [self.enum(definition) for definition in schema.of_kind('enum')]
        parts += [self.array(element) for element in schema.arrays()]
        parts += [self.struct(definition) for definition in self.ordered_structs()]
        parts += [self.alternate(definition) for definition in schema.of_kind('alternate')]
        parts += [self.struct(definition) for definition in self.inline_arguments()]
        return ''.join(parts)

    # Tables.

    def member_table(self, name, members, holder, path=''):
        rows = []
        for member in members:
            has = f'offsetof(struct {holder}, has_{member.c_name})' if self.has_flag(member) else '-1'
            place = f'offsetof(struct {holder}, {path}{member.c_name})' if self.slot(member.type) is not None else '0'
            rows.append(f'    {{"{member.name}", {self.table(member.type)}, {place}, {has}, {str(member.optional).lower()}}},')
        if not rows:
            return '', 'NULL'
        return '\n'.join([f'static const struct schema_member {name}_members[] = {{', *rows, '};', '']), f'{name}_members'

    def accessors(self, name):
        return f'''struct {name} *{name}_parse(const struct json *value, struct error **err)
{{
    return schema_parse(&{name}_type, value, err);
}}
struct {name} *{name}_parse_keyval(const struct json *value, struct error **err)
{{
    return schema_parse_keyval(&{name}_type, value, err);
}}
struct json *{name}_write(const struct {name} *value)
{{
    return schema_write(&{name}_type, value);
}}
struct {name} *{name}_clone(const struct {name} *value)
{{
    return schema_clone(&{name}_type, value);
}}
void {name}_free(struct {name} *value)
{{
    schema_free(&{name}_type, value);
}}
'''

    def enum_table(self, definition):
        name = definition.c_name
        names = ', '.join(f'"{value.name}"' for value in definition.values)
        return f'''static const char *const {name}_names[] = {{{names}}};
const struct schema_type {name}_type = {{
    .kind = SCHEMA_ENUM, .size = sizeof(enum {name}), .name = "{definition.name}", .names = {name}_names,
    .count = {len(definition.values)}, .tag = -1}};
const char *{name}_name(enum {name} value)
{{
    return schema_enum_name(&{name}_type, (int)value);
}}
int {name}_value(const char *name)
{{
    return schema_enum_value(&{name}_type, name);
}}
'''

    def struct_table(self, definition):
        schema, name = self.schema, definition.struct_name
        members = schema.all_members(definition)
        text, reference = self.member_table(name, members, name)
        fields = [f'.kind = SCHEMA_STRUCT', f'.size = sizeof(struct {name})', f'.name = "{definition.name}"',
                  f'.members = {reference}', f'.count = {len(members)}']
        if definition.kind == 'union':
            tag = schema.tag(definition)
            rows = [f'    {{&{branch.c_name}_type, offsetof(struct {name}, u.{c_name(case)}), {constant(tag.type, case)}}},'
                    for case, branch in schema.variants(definition)]
            text += '\n'.join([f'static const struct schema_variant {name}_variants[] = {{', *rows, '};', ''])
            index = [member.name for member in members].index(tag.name)
            fields += [f'.variants = {name}_variants', f'.variant_count = {len(rows)}', f'.tag = {index}']
        else:
            fields.append('.tag = -1')
        return text + f'const struct schema_type {name}_type = {{{", ".join(fields)}}};\n' + self.accessors(name)

    def alternate_table(self, definition):
        name = definition.c_name
        text, reference = self.member_table(name, definition.members, name, 'u.')
        return text + (f'const struct schema_type {name}_type = {{.kind = SCHEMA_ALTERNATE, .size = sizeof(struct {name}), '
                       f'.name = "{definition.name}", .members = {reference}, .count = {len(definition.members)}, .tag = -1}};\n'
                       ) + self.accessors(name)

    def array_table(self, element):
        name = self.array_name(element)
        return (f'const struct schema_type {name}_type = {{.kind = SCHEMA_ARRAY, .size = sizeof(struct {name}), '
                f'.name = "{element} array", .element = {self.table(element)}, .tag = -1}};\n') + self.accessors(name)

    def source(self):
        schema = self.schema
        parts = [HEAD, '#include "gen/types.h"\n\n#include "schema/json.h"\n#include "schema/schema.h"\n#include "schema/type.h"\n\n']
        parts += [self.enum_table(definition) for definition in schema.of_kind('enum')]
        parts += [self.struct_table(definition) for definition in self.ordered_structs()]
        parts += [self.struct_table(definition) for definition in self.inline_arguments()]
        parts += [self.alternate_table(definition) for definition in schema.of_kind('alternate')]
        parts += [self.array_table(element) for element in schema.arrays()]
        return ''.join(parts)
