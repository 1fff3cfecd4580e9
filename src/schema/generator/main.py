# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes C code and documents of a schema.

KIND is one of types.h types.c events.h events.c commands.h commands.c introspect.h introspect.c schema.json (what
query-qmp-schema returns) manual.7 (a man page) manual.md. A file is written only when its text changes, so
that a build does no more than it must.
"""
import argparse
import pathlib
import sys

import commands_emitter
import introspect_emitter
import manual_emitter
import types_emitter
from model import Schema
from notation import SchemaError

EMITTERS = {
    'types.h': types_emitter.header,
    'types.c': types_emitter.source,
    'events.h': commands_emitter.events_header,
    'events.c': commands_emitter.events_source,
    'commands.h': commands_emitter.header,
    'commands.c': commands_emitter.source,
    'introspect.h': introspect_emitter.header,
    'introspect.c': introspect_emitter.source,
    'schema.json': introspect_emitter.as_json,
    'manual.7': manual_emitter.man_page,
    'manual.md': manual_emitter.markdown,
}


def header_of(outputs, kind, path):
    """How the file includes the header of the same kind: tests have headers of their own names."""
    header = outputs.get(kind[:-1] + 'h')
    return f'{header.parent.name}/{header.name}' if header else path.name


def write(path, lines):
    text = '\n'.join(lines) + '\n'
    if not path.exists() or path.read_text(encoding='utf-8') != text:
        path.write_text(text, encoding='utf-8')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--depfile', type=pathlib.Path)
    parser.add_argument('--lenient', action='store_true', help='missing documentation is reported, and no error')
    parser.add_argument('--version', default='', help='of the program, for the manual')
    parser.add_argument('schema', type=pathlib.Path)
    parser.add_argument('outputs', nargs='+', metavar='KIND=OUTPUT')
    args = parser.parse_args()
    outputs = {kind: pathlib.Path(path) for kind, path in (item.split('=', 1) for item in args.outputs)}
    try:
        schema = Schema(args.schema, strict=not args.lenient)
    except SchemaError as error:
        sys.exit(f'{error}')
    schema.version = args.version
    for warning in schema.warnings:
        print(f'{warning} (warning)', file=sys.stderr)
    for kind, path in outputs.items():
        write(path, EMITTERS[kind](schema, header_of(outputs, kind, path)))
    if args.depfile:
        first = next(iter(outputs.values()))
        args.depfile.write_text(f'{first}: {" ".join(str(path) for path in schema.files)}\n', encoding='utf-8')


main()
