# SPDX-License-Identifier: LGPL-2.1-or-later
"""What has been done to a disk, and whether it lasts: by the log of the blklogwrites driver, while it is being written."""
import struct

from harness import raw_image

FLUSH, FUA = 1, 2
SECTOR = 512


def add_logged(qmp, folder, node, name='logged'):
    """A node `name` on `node` that writes a log; the log's path."""
    path = raw_image(folder / f'{name}.log', 0)
    qmp.command('blockdev-add', driver='file', node_name=f'{name}-log', filename=str(path))
    qmp.command('blockdev-add', driver='blklogwrites', node_name=name, file=node, log=f'{name}-log', discard='unmap')
    return path


def flags_logged(path):
    """The flags of all that has been done, in order; also of what the log's header does not count yet."""
    data, at, found = path.read_bytes() + bytes(2 * SECTOR), SECTOR, []
    while True:
        _, sectors, flags, _ = struct.unpack_from('<QQQQ', data, at)
        if not sectors and not flags:
            return found
        found.append(flags)
        at += SECTOR * (1 + (0 if flags & ~(FLUSH | FUA) else sectors))


def lasts(flags):
    """Whether something with these flags, and what came behind it, is on the disk for good: made so by itself, or flushed."""
    return bool(flags[0] & FUA) or any(one & FLUSH for one in flags[1:])
