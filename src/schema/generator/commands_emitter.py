# SPDX-License-Identifier: LGPL-2.1-or-later
"""gen/commands.h and gen/commands.c: handlers' declarations, and the table by which commands are dispatched."""
import naming
from model import Builtin, Enum
from types_emitter import slot_type


def handler_name(command):
    return f'co_qmp_{command.c_name}'


def is_raw(command):
    """Whether the handler makes JSON itself, because the schema says 'gen': false."""
    return command.value.get('gen') is False


def result_type(command):
    return 'struct json *' if is_raw(command) else slot_type(command.returns)


def prototype(command):
    arguments = ['struct daemon *daemon']
    if command.arg:
        arguments.append(f'const struct {command.arg.c_name} *arg')
    if command.returns:
        arguments.append(f'{result_type(command)}*ret')
    arguments.append('struct error **err')
    return f'bool CO_FN {handler_name(command)}({", ".join(arguments)})'


def header(schema, _):
    yield '/* Generated from the schema. The handlers of commands, which src/qmp/commands/ defines. */'
    yield '#pragma once'
    yield ''
    yield '#include <stdbool.h>'
    yield ''
    yield '#include "gen/types.h"'
    yield ''
    yield 'struct daemon;'
    for command in schema.commands.values():
        yield ''
        yield f'/* {command.name} */'
        yield prototype(command) + ';'


def write_result(command):
    """Lines that turn `value` into *ret, and release it."""
    item = command.returns
    if is_raw(command) or item.name == 'any':
        yield '    *ret = value;'
    elif isinstance(item, Enum):
        yield f'    *ret = json_string({item.c_name}_name(value));'
    elif isinstance(item, Builtin) and item.name == 'str':
        yield '    *ret = json_string(value);'
        yield '    g_free(value);'
    elif isinstance(item, Builtin):
        kind = {'bool': 'bool', 'number': 'double', 'size': 'uint'}.get(item.name, item.name.strip('0123456789'))
        yield f'    *ret = json_{kind}(value);'
    else:
        yield f'    *ret = {item.c_name}_write(value);'
        yield f'    {item.c_name}_free(value);'


def zero(command):
    kind = result_type(command)
    return 'NULL' if '*' in kind else '0'


def marshal(command):
    yield f'static bool CO_FN co_run_{command.c_name}(struct daemon *daemon, const struct json *args, struct json **ret,'
    yield '    struct error **err)'
    yield '{'
    if command.arg:
        yield f'    AUTO({command.arg.c_name}) arg = {command.arg.c_name}_parse(args, err);'
    if command.returns:
        yield f'    {result_type(command)}value = {zero(command)};'
    yield ''
    if command.arg:
        yield '    if (!arg)'
        yield '        return false;'
    else:
        yield '    if (!qmp_command_takes_none(args, err))'
        yield '        return false;'
    arguments = ['daemon'] + ['arg'] * bool(command.arg) + ['&value'] * bool(command.returns) + ['err']
    yield f'    if (!{handler_name(command)}({", ".join(arguments)}))'
    yield '        return false;'
    if command.returns:
        yield from write_result(command)
    else:
        yield '    *ret = json_object();'
    yield '    return true;'
    yield '}'
    yield ''


def flags(command):
    """Initialisers of the flags that are set."""
    found = ['.allow_oob = true'] if command.value.get('allow-oob') else []
    found += [f'.{name} = true' for name in command.features if name in ('deprecated', 'unstable')]
    return ''.join(', ' + flag for flag in found)


def source(schema, _):
    commands = sorted(schema.commands.values(), key=lambda command: command.name.encode())
    yield '/* Generated from the schema. */'
    yield '#include "gen/commands.h"'
    yield '#include "qmp/command.h"'
    yield ''
    for command in commands:
        yield from marshal(command)
    yield 'const struct qmp_command qmp_commands[] = {'
    for command in commands:
        yield f'    {{.name = {naming.string(command.name)}, .co_run = co_run_{command.c_name}{flags(command)}}},'
    yield '    {.name = NULL},'
    yield '};'
    yield ''
    yield f'const size_t qmp_command_count = {len(commands)};'


def event_prototype(event):
    arguments = ['struct event_sink *sink']
    if event.arg:
        arguments.append(f'const struct {event.arg.c_name} *data')
    return f'void event_send_{event.c_name}({", ".join(arguments)})'


def events_header(schema, _):
    yield '/* Generated from the schema. Each sends an event to the sink; on any thread, `data` is borrowed. */'
    yield '#pragma once'
    yield ''
    yield '#include "gen/types.h"'
    yield '#include "schema/event.h"'
    for event in schema.events.values():
        yield ''
        yield event_prototype(event) + ';'


def events_source(schema, _):
    yield '/* Generated from the schema. */'
    yield '#include "gen/events.h"'
    for event in schema.events.values():
        data = f'{event.arg.c_name}_write(data)' if event.arg else 'NULL'
        yield ''
        yield event_prototype(event)
        yield '{'
        yield f'    sink->send(sink, {naming.string(event.name)}, {data});'
        yield '}'


