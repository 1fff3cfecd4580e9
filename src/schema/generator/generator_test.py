# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests of the generator: what it makes of good schemas, and what it says of bad ones."""
import json
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import commands_emitter  # noqa: E402
import introspect_emitter  # noqa: E402
import manual_emitter  # noqa: E402
import naming  # noqa: E402
import types_emitter  # noqa: E402
from model import Schema  # noqa: E402
from notation import SchemaError  # noqa: E402


class SchemaCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def schema(self, text, strict=True, **files):
        """The schema `text`, in main.json; `files` are others beside it."""
        for name, other in files.items():
            (self.folder / f'{name}.json').write_text(other)
        (self.folder / 'main.json').write_text(text)
        return Schema(self.folder / 'main.json', strict=strict)

    def fails(self, text, expected, strict=False, **files):
        with self.assertRaises(SchemaError) as caught:
            self.schema(text, strict, **files)
        self.assertEqual(str(caught.exception).replace(f'{self.folder}/', ''), expected)


class Notation(SchemaCase):
    def test_syntax(self):
        self.fails("{ 'enum': 'A' 'data': [] }", "main.json:1: expected ',', found 'data'")
        self.fails("\n{ 'enum': 'A',\n  'data': [ ! ] }", "main.json:3: stray character '!'")
        self.fails("{ 'enum': 'A', 'enum': 'B' }", "main.json:1: key 'enum' is there twice")
        self.fails("{ 'enum': [ 'a' ", "main.json:1: expected ',', found end of file")
        self.fails("{ 'enum': } ", 'main.json:1: expected a value, found }')
        self.fails("[]", "main.json:1: expected '{', found [")
        self.fails("{ 'enum': 'a\\'b' }", "main.json:1: escapes are not part of the notation: 'a\\'b'")

    def test_comment_blocks(self):
        self.fails("##\n# @A:\n#\n# Text.\n{ 'enum': 'A', 'data': [] }",
                   "main.json:1: comment block does not end with '##'")
        self.fails("##\n#@A:\n##\n{ 'enum': 'A', 'data': [] }", "main.json:2: a line of a comment block starts with '# '")
        self.fails("##\n# Text.\n##\n{ 'enum': 'A', 'data': [] }", "main.json:2: a comment block starts with '# @NAME:'")
        self.fails("##\n# @A:\n##\n", 'main.json:1: comment block without a definition below it')
        self.fails("##\n# @A:\n#\n# @x: One.\n# @x: Two.\n##\n{ 'enum': 'A', 'data': ['x'] }",
                   "main.json:5: 'x' is described twice")
        self.fails("##\n# @A:\n#\n# Since: 1\n# Since: 2\n##\n{ 'enum': 'A', 'data': ['x'] }",
                   "main.json:5: there are two sections 'Since'")

    def test_include(self):
        schema = self.schema("{ 'include': 'a.json' }\n{ 'include': 'b.json' }", False,
                             a="{ 'include': 'b.json' }", b="{ 'enum': 'B', 'data': [] }")
        self.assertIn('B', schema.types)
        self.assertEqual([path.name for path in schema.files], ['main.json', 'a.json', 'b.json'])
        self.fails("\n{ 'include': 'c.json' }", "main.json:2: there is no file 'c.json'")
        self.fails("{ 'include': 'a.json', 'data': [] }", "main.json:1: expected { 'include': 'file' }")
        self.fails("{ 'include': 'a.json' }", "a.json:2: there is no type 'X'",
                   a="\n{ 'struct': 'A', 'data': { 'x': 'X' } }")


class Definitions(SchemaCase):
    def test_kind(self):
        self.fails("{ 'data': {} }", 'main.json:1: expected one of enum, struct, union, alternate, command, event, found data')
        self.fails("{ 'enum': 'A', 'struct': 'B' }",
                   'main.json:1: expected one of enum, struct, union, alternate, command, event, found enum, struct')
        self.fails("{ 'enum': 'A',\n 'data': [],\n 'base': 'B' }", "main.json:3: enum has no key 'base'")

    def test_names(self):
        self.fails("{ 'enum': 'a', 'data': [] }", "main.json:1: type 'a': the name is not in CamelCase")
        self.fails("{ 'struct': 'A-B', 'data': {} }", "main.json:1: type 'A-B': the name is not in CamelCase")
        self.fails("{ 'command': 'a b' }", "main.json:1: command: bad name 'a b'")
        self.fails("{ 'enum': 'A', 'data': ['x', 'x'] }", "main.json:1: enum 'A': value 'x' is there twice")
        self.fails("{ 'enum': 'A', 'data': ['x y'] }", "main.json:1: enum 'A': bad value 'x y'")
        self.fails("{ 'struct': 'A', 'data': { '*': 'str' } }", "main.json:1: 'A': bad name ''")
        self.fails("{ 'enum': 'A', 'data': [] }\n{ 'struct': 'A', 'data': {} }", "main.json:2: 'A' is defined twice")
        self.fails("{ 'struct': 'Ab', 'data': {} }\n{ 'enum': 'AB', 'data': [] }", "main.json:2: 'Ab' and 'AB' are both ab in C")
        self.fails("{ 'struct': 'A', 'data': { 'a-b': 'str',\n 'a_b': 'str' } }",
                   "main.json:1: 'A': member 'a-b' clashes with another in C")
        self.fails("{ 'struct': 'A', 'data': { 'u': 'str' } }", "main.json:1: 'A': member 'u' clashes with another in C")

    def test_types(self):
        self.fails("{ 'struct': 'A',\n 'data': {\n 'x': 'B' } }", "main.json:3: there is no type 'B'")
        self.fails("{ 'struct': 'A', 'data': { 'x': ['B'] } }", "main.json:1: there is no type 'B'")
        self.fails("{ 'struct': 'A', 'data': { 'x': ['int', 'str'] } }", "main.json:1: an array is written ['Type']")
        self.fails("{ 'struct': 'A', 'data': { 'x': 'null' } }", "main.json:1: 'A': member 'x' can only be null")
        self.fails("{ 'struct': 'A', 'data': { 'x': { 'typ': 'int' } } }", "main.json:1: 'A': member 'x' has keys typ")
        self.fails("{ 'command': 'a', 'data': 'B' }", "main.json:1: there is no type 'B'")
        self.fails("{ 'command': 'a', 'data': 'int' }", "main.json:1: 'a': its data, 'int', is no struct or union")
        self.fails("{ 'command': 'a', 'returns': 'B' }", "main.json:1: there is no type 'B'")
        self.fails("{ 'command': 'a', 'data': ['int'] }", "main.json:1: 'a': 'data' is neither a type nor a dictionary")

    def test_shapes(self):
        self.fails("{ 'enum': 'A', 'data': {} }", "main.json:1: enum 'A' has no list 'data'")
        self.fails("{ 'enum': 'A', 'data': [ { 'if': 'X' } ] }", "main.json:1: enum 'A': bad value None")
        self.fails("{ 'struct': 'A' }", "main.json:1: 'A': 'data' is no dictionary")
        self.fails("{ 'alternate': 'A', 'data': ['str'] }", "main.json:1: 'A': 'data' is no dictionary")
        self.fails("{ 'enum': 'A', 'data': [], 'features': 'f' }", "main.json:1: 'features' is no list")
        self.fails("{ 'enum': 'A', 'data': [], 'features': [{}] }", 'main.json:1: bad feature None')
        self.fails("{ 'command': ['a'] }", "main.json:1: command: bad name ['a']")

    def test_base(self):
        self.fails("{ 'struct': 'A', 'base': 'str', 'data': {} }", "main.json:1: 'A': base 'str' is no struct")
        self.fails("{ 'struct': 'A', 'base': 'B', 'data': {} }\n{ 'struct': 'B', 'base': 'A', 'data': {} }",
                   "main.json:1: 'A' is its own base")
        self.fails("{ 'struct': 'A', 'data': { 'x': 'int' } }\n{ 'struct': 'B', 'base': 'A', 'data': { '*x': 'str' } }",
                   "main.json:2: 'B': member 'x' is there twice")

    def test_union(self):
        kinds = "{ 'enum': 'K', 'data': ['a', 'b'] }\n{ 'struct': 'S', 'data': { 'k': 'K', 'x': 'int' } }\n"
        union = "{ 'union': 'U', 'base': { '%s': '%s' }, 'discriminator': 'k', 'data': { '%s': '%s' } }"
        self.fails(kinds + union % ('k', 'int', 'a', 'S'), "main.json:3: 'U': 'k' is no mandatory enum")
        self.fails(kinds + union % ('*k', 'K', 'a', 'S'), "main.json:3: 'U': 'k' is no mandatory enum")
        self.fails(kinds + union % ('l', 'K', 'a', 'S'), "main.json:3: 'U': there is no member 'k' to discriminate by")
        self.fails(kinds + union % ('k', 'K', 'c', 'S'), "main.json:3: 'U': 'c' is no value of 'K'")
        self.fails(kinds + union % ('k', 'K', 'a', 'K'), "main.json:3: 'U': branch 'a' is no struct or union")
        self.fails(kinds + union % ('k', 'K', 'a', 'S'),
                   "main.json:3: 'U': branch 'a' has a member 'k', as all branches have")
        self.fails("{ 'union': 'U', 'data': {} }", "main.json:1: union 'U' has no 'base'")

    def test_alternate(self):
        head = "{ 'enum': 'E', 'data': ['a'] }\n{ 'alternate': 'A', 'data': { 'a': '%s', 'b': '%s' } }"
        for first, second in (('str', 'E'), ('int', 'number'), ('int', 'size'), ('str', 'any')):
            self.fails(head % (first, second), "main.json:2: 'A': branch 'b' cannot be told apart")
        self.assertEqual(len(self.schema(head % ('int', 'bool'), False).types['A'].members), 2)


class Documentation(SchemaCase):
    def test_missing(self):
        self.fails("{ 'enum': 'A', 'data': [] }", "main.json:1: 'A' is not documented", strict=True)
        self.fails("##\n# @A:\n##\n{ 'enum': 'A', 'data': [] }", "main.json:1: 'A' has no description", strict=True)
        self.fails("##\n# @A:\n#\n# Text.\n##\n{ 'enum': 'A', 'data': ['x'] }",
                   "main.json:1: 'A': member 'x' is not documented", strict=True)
        self.fails("##\n# @A:\n#\n# Text.\n##\n{ 'enum': 'A', 'data': [], 'features': ['f'] }",
                   "main.json:1: 'A': feature 'f' is not documented", strict=True)
        self.fails("##\n# @a:\n#\n# Text.\n##\n{ 'command': 'a', 'returns': 'int' }",
                   "main.json:1: 'a': what it returns is not documented", strict=True)

    def test_surplus(self):
        self.fails("##\n# @B:\n#\n# Text.\n##\n{ 'enum': 'A', 'data': [] }",
                   "main.json:1: comment block of 'B' stands above 'A'")
        self.fails("##\n# @A:\n#\n# Text.\n#\n# @x: One.\n##\n{ 'enum': 'A', 'data': [] }",
                   "main.json:6: 'A' has no member 'x'")
        self.fails("##\n# @A:\n#\n# Text.\n#\n# Features:\n#\n# @f: One.\n##\n{ 'enum': 'A', 'data': [] }",
                   "main.json:8: 'A' has no feature 'f'")

    def test_lenient(self):
        schema = self.schema("{ 'enum': 'A', 'data': ['x'] }", strict=False)
        self.assertEqual(len(schema.warnings), 1)

    def test_parts(self):
        schema = self.schema('''##
# = Title
##

##
# @a:
#
# First line,
# second line.
#
# - an item
#   of two lines
# - another
#
# @x: What it is
#     and is not (default: 5).
#
# Features:
#
# @unstable: Can change.
#
# Returns: A number.
#
# Errors:
#     - GenericError if not.
#
# Since: 9.1
##
{ 'command': 'a', 'data': { 'x': 'int' }, 'returns': 'int', 'features': ['unstable'] }
''')
        title, command = schema.parts
        self.assertEqual((title.level, title.title), (1, 'Title'))
        document = command.document
        self.assertEqual(document.body.blocks(), [('text', 'First line, second line.'), ('item', 'an item of two lines'),
                                                  ('item', 'another')])
        self.assertEqual(command.arg.members[0].document.plain(), 'What it is and is not (default: 5).')
        self.assertEqual(document.features['unstable'].plain(), 'Can change.')
        self.assertEqual(document.returns.plain(), 'A number.')
        self.assertEqual(document.errors.blocks(), [('item', 'GenericError if not.')])
        self.assertEqual(document.since, '9.1')


class Names(unittest.TestCase):
    def test_snake(self):
        for name, expected in (('BlockdevOptionsFile', 'blockdev_options_file'), ('NbdServerOptions', 'nbd_server_options'),
                               ('QCryptoTLSCredsEndpoint', 'q_crypto_tls_creds_endpoint'),
                               ('QAuthZListRule', 'q_auth_z_list_rule'), ('IOThreadInfo', 'io_thread_info'),
                               ('block-export-del', 'block_export_del')):
            self.assertEqual(naming.snake(name), expected)

    def test_identifier(self):
        for name, expected in (('node-name', 'node_name'), ('default', 'default_'), ('unix', 'unix_'), ('2d', '_2d'),
                               ('x', 'x')):
            self.assertEqual(naming.identifier(name), expected)

    def test_constant(self):
        self.assertEqual(naming.constant('BlockdevDriver', 'host_device'), 'BLOCKDEV_DRIVER_HOST_DEVICE')
        self.assertEqual(naming.constant('X', 'aes-128'), 'X_AES_128')

    def test_string(self):
        self.assertEqual(naming.string('a"\\\n\x7fé'), '"a\\"\\\\\\n\\177\\303\\251"')


class Output(SchemaCase):
    TEXT = '''
{ 'enum': 'Kind', 'data': ['one', { 'name': 'two', 'features': ['deprecated'] }] }
{ 'struct': 'One', 'data': { 'x': 'int', '*names': ['str'] } }
{ 'union': 'Figure', 'base': { 'kind': 'Kind', '*flag': 'bool' }, 'discriminator': 'kind', 'data': { 'one': 'One' } }
{ 'alternate': 'Ref', 'data': { 'number': 'Figure', 'name': 'str' } }
{ 'struct': 'Unused', 'data': {} }
{ 'command': 'find', 'data': { 'ref': 'Ref', '*size': 'size' }, 'returns': ['Figure'], 'allow-oob': true }
{ 'command': 'add', 'data': 'Figure', 'boxed': true, 'features': ['unstable'] }
{ 'command': 'stop' }
{ 'event': 'FOUND_IT', 'data': { 'number': 'Figure' } }
{ 'event': 'OVER' }
'''

    def lines(self, emitter):
        return '\n'.join(emitter(self.schema(self.TEXT, False), 'x.h'))

    def test_types(self):
        text = self.lines(types_emitter.header)
        self.assertIn('enum kind {\n    KIND_ONE,\n    KIND_TWO,\n    KIND__MAX\n};', text)
        self.assertIn('struct one {\n    int64_t x;\n    struct string_array *names;\n};', text)
        self.assertIn('struct figure {\n    enum kind kind;\n    bool has_flag;\n    bool flag;\n    union {\n'
                      '        struct one one;\n    } u;\n};', text)
        self.assertIn('struct ref {\n    enum ref_kind kind;\n    union {\n        struct figure *number;\n'
                      '        char *name;\n    } u;\n};', text)
        self.assertIn('struct find_arg {\n    struct ref *ref;\n    bool has_size;\n    uint64_t size;\n};', text)
        self.assertIn('struct figure_array {\n    size_t count;\n    struct figure **items;\n};', text)
        self.assertIn('struct found_it_event {\n    struct figure *number;\n};', text)

    def test_commands(self):
        text = self.lines(commands_emitter.header)
        self.assertIn('bool CO_FN co_qmp_find(struct daemon *daemon, const struct find_arg *arg, struct figure_array **ret, '
                      'struct error **err);', text)
        self.assertIn('bool CO_FN co_qmp_add(struct daemon *daemon, const struct figure *arg, struct error **err);', text)
        self.assertIn('bool CO_FN co_qmp_stop(struct daemon *daemon, struct error **err);', text)
        table = self.lines(commands_emitter.source)
        self.assertLess(table.index('{.name = "add"'), table.index('{.name = "find"'))
        self.assertIn('{.name = "find", .co_run = co_run_find, .allow_oob = true}', table)
        self.assertIn('{.name = "add", .co_run = co_run_add, .unstable = true}', table)

    def test_events(self):
        text = self.lines(commands_emitter.events_header)
        self.assertIn('void event_send_found_it(struct event_sink *sink, const struct found_it_event *data);', text)
        self.assertIn('void event_send_over(struct event_sink *sink);', text)

    def test_introspection(self):
        entities = json.loads(self.lines(introspect_emitter.as_json))
        by_name = {entity['name']: entity for entity in entities}
        self.assertEqual(len(by_name), len(entities))
        find = by_name['find']
        self.assertTrue(find['allow-oob'])
        ref, size = by_name[find['arg-type']]['members']
        self.assertEqual(size, {'name': 'size', 'type': 'int', 'default': None})
        self.assertEqual(by_name[ref['type']]['meta-type'], 'alternate')
        number = by_name[by_name[find['ret-type']]['element-type']]
        self.assertEqual(find['ret-type'], f'[{number["name"]}]')
        self.assertEqual((number['tag'], [variant['case'] for variant in number['variants']]), ('kind', ['one', 'two']))
        self.assertEqual(by_name[number['variants'][1]['type']]['members'], [])
        self.assertEqual(by_name[number['members'][0]['type']]['members'],
                         [{'name': 'one'}, {'name': 'two', 'features': ['deprecated']}])
        self.assertEqual(by_name['stop']['arg-type'], by_name['stop']['ret-type'])
        self.assertEqual(by_name['add']['features'], ['unstable'])
        # Type names mean nothing, and what nobody uses does not appear.
        self.assertFalse([entity for entity in entities if entity['name'] in ('Figure', 'Unused', 'Kind')])
        self.assertEqual(len([entity for entity in entities if entity['meta-type'] == 'object']), 5)

    MANUAL = '''##
# = Empty
##

##
# = Moves
#
# About *moves*.
##

##
# @Way:
#
# A way.
#
# @up: .Up is \\up.
# @down: Not @up.
##
{ 'enum': 'Way', 'data': ['up', { 'name': 'down', 'features': ['deprecated'] }] }

##
# @move-it:
#
# Moves:
#
# - one,
# - or all.
#
# @way-to-go: 'Where' to.
# @times: How often (default: 1).
#
# Returns: How far.
#
# Errors:
#     - GenericError if it is stuck.
#
# Example::
#
#     { "execute": "move-it" }
#
# Since: 9.1
##
{ 'command': 'move-it', 'data': { 'way-to-go': 'Way', '*times': 'int' }, 'returns': ['number'] }
'''

    def manual(self, emitter):
        schema = self.schema(self.MANUAL)
        schema.version = '1.0'
        return list(emitter(schema, ''))

    def test_man_page(self):
        lines = self.manual(manual_emitter.man_page)
        text = '\n'.join(lines)
        for line in lines:
            self.assertRegex(line, r"^(\.(TH|SH|SS|PP|TP|IP|EX|EE|BR|br|nh|ad|\\\")( |$)|[^.'])")
        self.assertNotIn('Empty', text)
        self.assertIn('.SH "Moves"\n.PP\nAbout *moves*.\n.SS "Way (enumeration)"', text)
        self.assertIn('.TP\n\\fBup\\fR\n\\&.Up is \\eup.', text)
        self.assertIn('.TP\n\\fBdown\\fR (deprecated)\nNot \\fBup\\fR.', text)
        self.assertIn('.SS "move\\-it (command)"\n.PP\nMoves:\n.IP \\(bu 2\none,\n.IP \\(bu 2\nor all.', text)
        self.assertIn(".TP\n\\fBway\\-to\\-go\\fR (Way)\n\\&'Where' to.", text)
        self.assertIn('\\fBtimes\\fR (int, optional)', text)
        self.assertIn('\\fBReturns\\fR (array of number)\n.PP\nHow far.', text)
        self.assertIn('.EX\n{ "execute": "move\\-it" }\n.EE', text)
        self.assertIn('Since 9.1', text)

    def test_markdown(self):
        text = '\n'.join(self.manual(manual_emitter.markdown))
        self.assertIn('## Moves\n\nAbout \\*moves\\*.\n\n### `Way` (enumeration)', text)
        self.assertIn('- `down` (deprecated): Not `up`.', text)
        self.assertIn('**Returns** (array of number)\n\nHow far.', text)
        self.assertIn('```\n{ "execute": "move-it" }\n```', text)


if __name__ == '__main__':
    unittest.main()
