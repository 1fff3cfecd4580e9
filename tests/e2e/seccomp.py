# SPDX-License-Identifier: LGPL-2.1-or-later
"""System calls that a kernel, a container or a limit refuses: for a program under test, by a seccomp filter."""
import ctypes
import struct

# The numbers of these are the same on all architectures that we build for.
IO_URING_SETUP = 425
CLONE3 = 435

PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_ERRNO = 0x00050000
SECCOMP_RET_ALLOW = 0x7fff0000
BPF_LOAD_WORD = 0x20
BPF_JUMP_IF_EQUAL = 0x15
BPF_RETURN = 0x06


def refuse(number, error):
    """For Popen's preexec_fn: in the program that is started, this system call fails with this errno."""
    instructions = [(BPF_LOAD_WORD, 0, 0, 0), (BPF_JUMP_IF_EQUAL, 0, 1, number),
                    (BPF_RETURN, 0, 0, SECCOMP_RET_ERRNO | error), (BPF_RETURN, 0, 0, SECCOMP_RET_ALLOW)]
    code = ctypes.create_string_buffer(b''.join(struct.pack('=HBBI', *one) for one in instructions))
    program = ctypes.create_string_buffer(struct.pack('@HP', len(instructions), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)

    def install():
        assert code
        for arguments in (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0):
            if libc.prctl(*arguments) != 0:
                raise OSError(ctypes.get_errno(), 'prctl')

    return install
