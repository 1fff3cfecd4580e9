# SPDX-License-Identifier: LGPL-2.1-or-later
"""Names in C for names of the schema."""
import re

# Words of C, and macros that compilers and the C library define in lower case.
TAKEN = set('''
    auto break case char const continue default do double else enum extern float for goto if inline int long register
    restrict return short signed sizeof static struct switch typedef union unsigned void volatile while
    bool true false asm typeof errno unix linux i386 stdin stdout stderr
'''.split())


def snake(name):
    """BlockdevOptionsFile -> blockdev_options_file, QCryptoTLSCreds -> q_crypto_tls_creds."""
    name = re.sub(r'([a-z0-9])([A-Z])', r'\1_\2', name)
    name = re.sub(r'([A-Z])([A-Z][a-z])', r'\1_\2', name)
    return name.replace('-', '_').replace('.', '_').lower()


def identifier(name):
    """The name of a member: node-name -> node_name, default -> default_."""
    name = name.replace('-', '_').replace('.', '_')
    if name in TAKEN:
        return name + '_'
    return '_' + name if name[0].isdigit() else name


def constant(type_name, value):
    """The constant of an enum's value: BlockdevDriver, host_device -> BLOCKDEV_DRIVER_HOST_DEVICE."""
    return f'{snake(type_name)}_{value}'.replace('-', '_').replace('.', '_').upper()


def string(text):
    """A C string literal, in ASCII: other bytes as octal escapes."""
    result = ''
    for byte in text.encode('utf-8'):
        character = chr(byte)
        if character in '"\\':
            result += '\\' + character
        elif character == '\n':
            result += '\\n'
        elif 32 <= byte < 127:
            result += character
        else:
            result += f'\\{byte:03o}'
    return '"' + result.replace('??', '?\\?') + '"'
