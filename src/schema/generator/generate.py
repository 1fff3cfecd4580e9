# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes C of the schema.

usage: generate.py SCHEMA.json OUTPUT-FOLDER

Writes types.h, types.c, commands.h, commands.c, events.h and events.c.
"""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import emit_commands  # noqa: E402
from emit_types import Types  # noqa: E402
from model import Schema  # noqa: E402
from notation import SchemaError, read_file  # noqa: E402


def main():
    source, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    try:
        schema = Schema(list(read_file(source)))
    except SchemaError as failure:
        sys.exit(f'{failure}')
    types = Types(schema)
    outputs = {
        'types.h': types.header(), 'types.c': types.source(),
        'commands.h': emit_commands.commands_header(schema, types), 'commands.c': emit_commands.commands_source(schema, types),
        'events.h': emit_commands.events_header(schema), 'events.c': emit_commands.events_source(schema),
    }
    for name, text in outputs.items():
        (folder / name).write_text(text)


main()
