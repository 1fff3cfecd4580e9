# SPDX-License-Identifier: LGPL-2.1-or-later
"""qcow2 images that are made by the program that Ashlar's tools stand in for, and changed byte by byte."""
import struct

from harness import need, run

COPIED = 1 << 63
COMPRESSED = 1 << 62
KIB = 1 << 10

# Where the header's fields are, and how wide they are.
FIELDS = {
    'magic': (0, 4), 'version': (4, 4), 'backing_file_offset': (8, 8), 'backing_file_size': (16, 4),
    'cluster_bits': (20, 4), 'size': (24, 8), 'crypt_method': (32, 4), 'l1_size': (36, 4), 'l1_table_offset': (40, 8),
    'refcount_table_offset': (48, 8), 'refcount_table_clusters': (56, 4), 'nb_snapshots': (60, 4),
    'snapshots_offset': (64, 8), 'incompatible_features': (72, 8), 'compatible_features': (80, 8),
    'autoclear_features': (88, 8), 'refcount_order': (96, 4), 'header_length': (100, 4), 'compression_type': (104, 1),
}
FORMATS = {1: '>B', 2: '>H', 4: '>I', 8: '>Q'}


def make(path, size='1M', options='cluster_size=64k', writes=('write -P 1 0 256k',), snapshots=0, bitmaps=0):
    """A new image, with something in it; each snapshot and bitmap is followed by a write."""
    run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', '-o', options, path, size)
    for write in writes:
        run(need('qemu-io'), '-f', 'qcow2', '-c', write, path)
    for index in range(snapshots):
        run(need('qemu-img'), 'snapshot', '-c', f's{index}', path)
        run(need('qemu-io'), '-f', 'qcow2', '-c', f'write -P 9 {64 * index}k 64k', path)
    for index in range(bitmaps):
        run(need('qemu-img'), 'bitmap', '--add', path, f'b{index}')
        run(need('qemu-io'), '-f', 'qcow2', '-c', f'write -P 9 {64 * index}k 64k', path)


class Qcow2:
    """An image file under the knife. Use as a context manager; header fields are items: image['size'] = 0."""

    def __init__(self, path):
        self.file = open(path, 'r+b')
        self.cluster = 1 << self['cluster_bits']

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        self.file.close()

    def read(self, offset, count):
        self.file.seek(offset)
        return self.file.read(count).ljust(count, b'\0')

    def write(self, offset, data):
        self.file.seek(offset)
        self.file.write(data)

    def get(self, offset, width=8):
        return struct.unpack(FORMATS[width], self.read(offset, width))[0]

    def put(self, offset, value, width=8):
        self.write(offset, struct.pack(FORMATS[width], value))

    def __getitem__(self, field):
        return self.get(*FIELDS[field])

    def __setitem__(self, field, value):
        offset, width = FIELDS[field]
        self.put(offset, value, width)

    @property
    def l1(self):
        return self['l1_table_offset']

    @property
    def l2(self):
        """The first L2 table."""
        return self.get(self.l1) & 0x00fffffffffffe00

    @property
    def refcount_table(self):
        return self['refcount_table_offset']

    @property
    def refcount_block(self):
        """The first refcount block."""
        return self.get(self.refcount_table) & ~511

    @property
    def snapshots(self):
        return self['snapshots_offset']

    def set_refcount(self, cluster, count):
        """Of a cluster in the first refcount block, 16 bits wide."""
        self.put(self.refcount_block + 2 * cluster, count, 2)

    def extension(self, wanted):
        """Where the data of a header extension begins."""
        offset = self['header_length']
        while True:
            kind, length = self.get(offset, 4), self.get(offset + 4, 4)
            if kind == wanted:
                return offset + 8
            assert kind, f'no extension {wanted:#x}'
            offset += 8 + (length + 7) // 8 * 8

    @property
    def bitmaps(self):
        """Where the data of the bitmaps extension begins."""
        return self.extension(0x23852875)

    @property
    def bitmap_directory(self):
        return self.get(self.bitmaps + 16)

    def truncate(self, size):
        self.file.truncate(size)
