# SPDX-License-Identifier: LGPL-2.1-or-later
"""gen/commands.*: what the handlers look like, and the table by which they are found. gen/events.*: how to send events."""
from emit_types import HEAD
from model import BUILTINS, snake


def argument_struct(schema, definition):
    """The struct of a command's arguments or an event's data; None where there is none."""
    data = definition.body.get('data')
    if isinstance(data, str):
        return snake(data)
    return definition.struct_name if data else None


def return_parameter(types, definition):
    spec = definition.body.get('returns')
    return None if spec is None else f'{types.slot(spec)}*ret'


def prototype(schema, types, definition):
    argument = argument_struct(schema, definition)
    parameters = ['struct daemon *daemon']
    if argument:
        parameters.append(f'const struct {argument} *arg')
    if return_parameter(types, definition):
        parameters.append(return_parameter(types, definition))
    return f'bool CO_FN co_qmp_{definition.c_name}({", ".join(parameters)}, struct error **err)'


def commands_header(schema, types):
    parts = [HEAD, '''#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "gen/types.h"

struct daemon;

/*
 * The handlers, written by hand in src/qmp/commands/. Each runs as a coroutine on the main loop; `arg` is borrowed; *ret is
 * owned by the caller and set on success.
 */
''']
    parts += [prototype(schema, types, definition) + ';\n' for definition in schema.of_kind('command')]
    return ''.join(parts)


def write_return(types, spec):
    """Statements that make `*ret` of `result`, and free that."""
    if isinstance(spec, list) or spec not in BUILTINS and types.schema.kind_of(spec) != 'enum':
        name = types.array_name(spec[0]) if isinstance(spec, list) else snake(spec)
        return f'    *ret = {name}_write(result);\n    {name}_free(result);\n'
    if spec == 'str':
        return '    *ret = json_string(result);\n    g_free(result);\n'
    if spec == 'any':
        return '    *ret = result;\n'
    make = {'bool': 'json_bool', 'number': 'json_double'}.get(spec, 'json_uint' if spec.startswith(('u', 's')) else 'json_int')
    if spec not in BUILTINS:
        return f'    *ret = json_string({snake(spec)}_name(result));\n'
    return f'    *ret = {make}(result);\n'


def marshal(schema, types, definition):
    name, argument, spec = definition.c_name, argument_struct(schema, definition), definition.body.get('returns')
    call = ['daemon']
    lines = []
    if argument:
        lines.append(f'    AUTO({argument}) arg = {argument}_parse(args, err);\n')
        call.append('arg')
    if spec is not None:
        lines.append(f'    {types.slot(spec)}result{" = NULL" if types.slot(spec).endswith("*") else ""};\n')
        call.append('&result')
    lines.append('\n')
    refuse = '!arg || ' if argument else '!qmp_command_takes_none(args, err) || '
    lines.append(f'    if ({refuse}!co_qmp_{name}({", ".join(call)}, err))\n        return false;\n')
    lines.append(write_return(types, spec) if spec is not None else '    *ret = json_object();\n')
    return (f'static bool CO_FN co_run_{name}(struct daemon *daemon, const struct json *args, struct json **ret, '
            f'struct error **err)\n{{\n{"".join(lines)}    return true;\n}}\n\n')


def flags(definition):
    """Initialisers of the flags that are set."""
    found = ['.allow_oob = true'] if definition.body.get('allow-oob') else []
    found += [f'.{feature} = true' for feature in definition.features if feature in ('deprecated', 'unstable')]
    return ''.join(', ' + flag for flag in found)


def commands_source(schema, types):
    commands = sorted(schema.of_kind('command'), key=lambda definition: definition.name.encode())
    parts = [HEAD, '#include "gen/commands.h"\n\n#include "qmp/command.h"\n#include "schema/json.h"\n\n']
    parts += [marshal(schema, types, definition) for definition in commands]
    rows = [f'    {{.name = "{definition.name}", .co_run = co_run_{definition.c_name}{flags(definition)}}},\n'
            for definition in commands]
    parts += ['const struct qmp_command qmp_commands[] = {\n', *rows, '    {.name = NULL},\n};\n',
              f'const size_t qmp_command_count = {len(commands)};\n']
    return ''.join(parts)


def event_prototype(schema, definition):
    argument = argument_struct(schema, definition)
    data = f', const struct {argument} *data' if argument else ''
    return f'void event_send_{definition.c_name}(struct event_sink *sink{data})'


def events_header(schema):
    parts = [HEAD, '#pragma once\n\n#include "gen/types.h"\n\nstruct event_sink;\n\n/* Each sends an event; `data` is borrowed. */\n']
    parts += [event_prototype(schema, definition) + ';\n' for definition in schema.of_kind('event')]
    return ''.join(parts)


def events_source(schema):
    parts = [HEAD, '#include "gen/events.h"\n\n#include "schema/event.h"\n\n']
    for definition in schema.of_kind('event'):
        argument = argument_struct(schema, definition)
        data = f'{argument}_write(data)' if argument else 'NULL'
        parts.append(f'{event_prototype(schema, definition)}\n{{\n    sink->send(sink, "{definition.name}", {data});\n}}\n\n')
    return ''.join(parts)
