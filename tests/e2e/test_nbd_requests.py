# SPDX-License-Identifier: LGPL-2.1-or-later
"""Requests of the NBD transmission phase, in all three modes of replies; N10-N12, N14."""
import struct

import pytest

import nbd_raw as nbd
from nbd_raw import RequestError
from nbd_serving import MIB, Served, pattern, sparse_image
from write_log import FLUSH, add_logged, flags_logged, lasts

MODES = ('simple', 'structured', 'extended')


@pytest.fixture
def served(daemon, tmp_path):
    """1 MiB of data, 3 MiB of hole; discard=unmap so that trim is worth something."""
    image = sparse_image(tmp_path / 'disk.img', 4 * MIB, (0, pattern(MIB)))
    return Served(daemon, tmp_path, image=image, blockdev=',discard=unmap',
                  extra=['--export', 'nbd,id=ro,node-name=disk,name=ro'])


def error_of(call, *arguments, **kwargs):
    with pytest.raises(RequestError) as error:
        call(*arguments, **kwargs)
    return error.value.code


@pytest.mark.parametrize('mode', MODES)
def test_read_and_write(served, mode):
    with served.open(mode=mode) as client:
        content = bytearray(served.content())
        for number, (offset, size) in enumerate([(0, 1), (1, 511), (4095, 2), (4096, 4096), (12345, 54321), (65536, 3 * MIB),
                                                 (4 * MIB - 1, 1), (0, 4 * MIB)]):
            data = pattern(size, number)
            client.write(offset, data)
            content[offset:offset + size] = data
            start = max(0, offset - 10)
            assert client.read(start, offset + size - start) == content[start:offset + size]
        client.request(nbd.CMD_FLUSH)
        assert served.content() == content
        client.disconnect()


@pytest.mark.parametrize('mode', MODES)
def test_fua(served, mode):
    with served.open(mode=mode) as client:
        client.write(100, b'durable', flags=nbd.CMD_FLAG_FUA)
        client.request(nbd.CMD_WRITE_ZEROES, 4096, 4096, nbd.CMD_FLAG_FUA)
        client.request(nbd.CMD_TRIM, 8192, 4096, nbd.CMD_FLAG_FUA)
        client.request(nbd.CMD_FLUSH, flags=nbd.CMD_FLAG_FUA)
        assert client.read(100, 7, nbd.CMD_FLAG_FUA) == b'durable'
        assert client.read(4096, 4096) == bytes(4096)


def test_fua_lasts(served, tmp_path):
    """What asks for it is on the disk before the reply, by the log of what was done; nothing else is made to last."""
    log = add_logged(served.qmp, tmp_path, 'disk')
    served.qmp.command('block-export-add', type='nbd', id='e', node_name='logged', name='logged', writable=True)
    with served.open('logged') as client:
        for kind in nbd.CMD_WRITE, nbd.CMD_WRITE_ZEROES, nbd.CMD_TRIM:
            payload = {'payload': bytes(range(256)) * 16} if kind == nbd.CMD_WRITE else {}
            for flags in 0, nbd.CMD_FLAG_FUA:
                before = len(flags_logged(log))
                client.request(kind, 8192, 4096, flags, **payload)
                assert lasts(flags_logged(log)[before:]) == bool(flags), (kind, flags)
        client.write(0, b'not yet')
        before = len(flags_logged(log))
        client.request(nbd.CMD_FLUSH)
        assert flags_logged(log)[before] & FLUSH


@pytest.mark.parametrize('mode', ('structured', 'extended'))
def test_holes_in_reads(served, mode):
    with served.open(mode=mode) as client:
        content = served.content()
        for offset, size, parts in ((MIB - 4096, 8192, [(MIB - 4096, 4096, False), (MIB, 4096, True)]),
                                    (2 * MIB, MIB, [(2 * MIB, MIB, True)]),
                                    (MIB + 1, 1, [(MIB + 1, 1, True)]),
                                    (0, 512, [(0, 512, False)])):
            data, found = client.assemble(client.request(nbd.CMD_READ, offset, size), offset, size)
            assert data == content[offset:offset + size]
            assert found == parts
            data, found = client.assemble(client.request(nbd.CMD_READ, offset, size, nbd.CMD_FLAG_DF), offset, size)
            assert data == content[offset:offset + size]
            assert found == [(offset, size, False)]


def test_many_small_holes_in_a_read(served):
    """Zeroes and data in turn: correct, in a bounded number of chunks."""
    with served.open() as client:
        for at in range(0, 4 * MIB, 8192):
            client.write(at, pattern(4096))
            client.request(nbd.CMD_WRITE_ZEROES, at + 4096, 4096)
        content = served.content()
        for offset, size in ((0, 64 << 10), (0, 4 * MIB), (4096, 4 * MIB - 4096), (777, MIB)):
            chunks = client.request(nbd.CMD_READ, offset, size)
            assert len(chunks) <= 65
            assert client.assemble(chunks, offset, size)[0] == content[offset:offset + size]


@pytest.mark.parametrize('mode', MODES)
def test_write_zeroes(served, mode):
    with served.open(mode=mode) as client:
        client.request(nbd.CMD_WRITE_ZEROES, 65536, 65536)
        client.request(nbd.CMD_WRITE_ZEROES, 65536 * 3, 65536, nbd.CMD_FLAG_NO_HOLE)
        client.request(nbd.CMD_WRITE_ZEROES, 65536 * 5 + 10, 100)
        expected = bytearray(pattern(MIB)) + bytes(3 * MIB)
        for offset, size in ((65536, 65536), (65536 * 3, 65536), (65536 * 5 + 10, 100)):
            expected[offset:offset + size] = bytes(size)
        assert client.read(0, 4 * MIB) == expected
        assert served.content() == expected


def test_write_zeroes_allocation(served):
    with served.open(contexts=['base:allocation']) as client:
        client.request(nbd.CMD_WRITE_ZEROES, 0, 65536)
        client.request(nbd.CMD_WRITE_ZEROES, 2 * MIB, 65536, nbd.CMD_FLAG_NO_HOLE)
        assert client.block_status(0, 65536) == {0: [(65536, 3)]}
        before = served.image.stat().st_blocks
        client.request(nbd.CMD_WRITE_ZEROES, 3 * MIB, 65536, nbd.CMD_FLAG_NO_HOLE)
        assert served.image.stat().st_blocks >= before + 65536 // 512


def test_fast_zero(served):
    """It works, or says at once that it is not faster; never anything else, and then nothing has changed."""
    with served.open() as client:
        for flags in (0, nbd.CMD_FLAG_NO_HOLE):
            before = client.read(0, 65536)
            try:
                client.request(nbd.CMD_WRITE_ZEROES, 0, 65536, nbd.CMD_FLAG_FAST_ZERO | flags)
                assert client.read(0, 65536) == bytes(65536)
            except RequestError as error:
                assert error.code == nbd.ENOTSUP
                assert client.read(0, 65536) == before


def test_trim(served):
    with served.open(contexts=['base:allocation']) as client:
        client.request(nbd.CMD_TRIM, 0, 65536)
        assert client.block_status(0, 65536) == {0: [(65536, 3)]}
        assert client.read(0, 65536) == bytes(65536)
        client.request(nbd.CMD_TRIM, 0, 4 * MIB)
        assert served.image.stat().st_blocks < 64


@pytest.mark.parametrize('mode', MODES)
def test_cache(served, mode):
    with served.open(mode=mode) as client:
        client.request(nbd.CMD_CACHE, 0, MIB)
        client.request(nbd.CMD_CACHE, 4 * MIB - 1, 1)
        assert error_of(client.request, nbd.CMD_CACHE, 4 * MIB, 1) == nbd.EINVAL


@pytest.mark.parametrize('mode', ('structured', 'extended'))
def test_block_status(served, mode):
    with served.open(mode=mode, contexts=['base:allocation']) as client:
        assert client.block_status(0, 4 * MIB) == {0: [(MIB, 0), (3 * MIB, 3)]}
        assert client.block_status(0, 4 * MIB, nbd.CMD_FLAG_REQ_ONE) == {0: [(MIB, 0)]}
        assert client.block_status(MIB - 512, 512) == {0: [(512, 0)]}
        assert client.block_status(MIB + 7, 9) == {0: [(9, 3)]}
        # N10
        assert error_of(client.block_status, 0, 4 * MIB + 1) == nbd.EINVAL
        assert error_of(client.block_status, 0, (1 << 32) - 1) == nbd.EINVAL
        assert error_of(client.block_status, 0, 0) == nbd.EINVAL
        if mode == 'extended':
            assert error_of(client.block_status, 0, 1 << 63) == nbd.EINVAL
            assert error_of(client.block_status, 1 << 63, 1 << 63) == nbd.EINVAL
        assert client.block_status(0, MIB) == {0: [(MIB, 0)]}


def test_block_status_of_huge_export(daemon, tmp_path):
    """N10: extents longer than 32 bits can say are cut in compact replies, and whole in extended ones."""
    image = sparse_image(tmp_path / 'huge.img', 1 << 43)
    served = Served(daemon, tmp_path, image=image, blockdev=',discard=unmap')
    longest = (1 << 32) - 1
    with served.open(mode='structured', contexts=['base:allocation']) as client:
        assert client.block_status(0, longest) == {0: [(longest, 3)]}
        assert client.block_status((1 << 43) - longest, longest) == {0: [(longest, 3)]}
    with served.open(mode='extended', contexts=['base:allocation']) as client:
        assert client.block_status(0, 1 << 43) == {0: [(1 << 43, 3)]}
        assert error_of(client.block_status, 1, 1 << 43) == nbd.EINVAL
        client.request(nbd.CMD_TRIM, 0, 1 << 42)
        client.request(nbd.CMD_WRITE_ZEROES, 1 << 42, 1 << 42)
        assert client.block_status(0, 1 << 43) == {0: [(1 << 43, 3)]}


def test_block_status_fragments(daemon, tmp_path):
    """More extents than one reply may have: the client goes on from where the reply ends."""
    count = 12000
    image = sparse_image(tmp_path / 'disk.img', count * 8192, *((at * 8192, b'x') for at in range(count)))
    served = Served(daemon, tmp_path, image=image)
    for mode, size in (('structured', 8), ('extended', 16)):
        with served.open(mode=mode, contexts=['base:allocation']) as client:
            extents, replies = [], 0
            while sum(extent[0] for extent in extents) < count * 8192:
                at = sum(extent[0] for extent in extents)
                found = client.block_status(at, count * 8192 - at)[0]
                assert len(found) * size <= 65536
                extents += found
                replies += 1
            assert extents == [(4096, 0), (4096, 3)] * count
            assert replies >= 2


def test_several_contexts(daemon, tmp_path):
    image = sparse_image(tmp_path / 'disk.img', 4 * MIB, (0, pattern(MIB)))
    served = Served(daemon, tmp_path, image=image, export='allocation-depth=on')
    both = ['base:allocation', 'qemu:allocation-depth']
    for mode in ('structured', 'extended'):
        with served.open(mode=mode, contexts=both) as client:
            assert client.contexts == {'base:allocation': 0, 'qemu:allocation-depth': 1}
            assert client.block_status(0, 4 * MIB) == {0: [(MIB, 0), (3 * MIB, 3)], 1: [(4 * MIB, 1)]}
        with served.open(mode=mode, contexts=both[1:]) as client:
            assert client.block_status(0, 4 * MIB) == {1: [(4 * MIB, 1)]}


def test_status_keeps_to_the_block_size(daemon, tmp_path):
    """Extents are whole blocks, of which one counts as dirty when a part of it is; who has not asked for blocks hears all."""
    served = Served(daemon, tmp_path)
    qmp = served.qmp
    qmp.command('block-export-del', id='exp')
    qmp.command('blockdev-add', driver='blkdebug', node_name='large', image='disk', align=4096)
    qmp.command('block-dirty-bitmap-add', node='disk', name='b', granularity=512)
    qmp.command('block-export-add', type='nbd', id='fine', node_name='disk', name='fine', writable=True)
    qmp.command('block-export-add', type='nbd', id='e', node_name='large', name='e', writable=True,
                bitmaps=[{'node': 'disk', 'name': 'b'}])
    contexts = ['qemu:dirty-bitmap:b', 'base:allocation']
    with served.open('fine') as client:
        client.write(3 * 4096 + 512, b'x' * 512)
        client.write(9 * 4096 + 1024, b'x' * 4096)
    with served.open('e', contexts=contexts) as client:
        bitmap = client.contexts['qemu:dirty-bitmap:b']
        assert client.block_status(0, 5 * 4096)[bitmap] == [(3 * 4096 + 512, 0), (512, 1), (3072 + 4096, 0)]
    with served.connect() as client:
        client.negotiate('structured')
        client.set_contexts('e', contexts)
        client.go('e', [nbd.INFO_BLOCK_SIZE])
        assert client.block_size[0] == 4096
        assert client.block_status(0, MIB)[bitmap] == [(3 * 4096, 0), (4096, 1), (5 * 4096, 0), (8192, 1), (MIB - 11 * 4096, 0)]
        assert client.block_status(4096 * 3, 8192)[bitmap] == [(4096, 1), (4096, 0)]
        assert error_of(client.block_status, 512, 4096) == nbd.EINVAL


def test_status_with_payload(daemon, tmp_path):
    image = sparse_image(tmp_path / 'disk.img', 4 * MIB, (0, pattern(MIB)))
    served = Served(daemon, tmp_path, image=image, export='allocation-depth=on')
    with served.open(mode='extended', contexts=['base:allocation', 'qemu:allocation-depth']) as client:
        def status(length, *ids, extra=b''):
            payload = struct.pack(f'>Q{len(ids)}I', length, *ids) + extra
            return client.block_status(0, len(payload), nbd.CMD_FLAG_PAYLOAD_LEN, payload)

        assert status(4 * MIB, 1) == {1: [(4 * MIB, 1)]}
        assert status(4 * MIB, 0) == {0: [(MIB, 0), (3 * MIB, 3)]}
        assert status(2 * MIB, 1, 0) == {0: [(MIB, 0), (MIB, 3)], 1: [(2 * MIB, 1)]}
        for wrong in (lambda: status(MIB), lambda: status(MIB, 2), lambda: status(MIB, 0, 0), lambda: status(MIB, 1 << 31),
                      lambda: status(0, 0), lambda: status(5 * MIB, 0), lambda: status(1 << 63, 0),
                      lambda: status(MIB, 0, extra=b'!'), lambda: status(MIB, *range(1000))):
            assert error_of(wrong) == nbd.EINVAL
        assert client.block_status(0, MIB) == {0: [(MIB, 0)], 1: [(MIB, 1)]}


@pytest.mark.parametrize('mode', MODES)
def test_impossible_ranges(served, mode):
    """N11: EINVAL, or ENOSPC for what would write past the end; the payload is skipped, the connection kept."""
    size = 4 * MIB
    with served.open(mode=mode) as client:
        before = served.content()
        for offset, length in ((size, 1), (size - 1, 2), (1, size), ((1 << 64) - 1, 1), ((1 << 64) - 512, 1024), (1 << 63, 4096)):
            assert error_of(client.read, offset, length) == nbd.EINVAL
            assert error_of(client.write, offset, b'!' * length) == nbd.ENOSPC
            assert error_of(client.request, nbd.CMD_WRITE_ZEROES, offset, length) == nbd.ENOSPC
            assert error_of(client.request, nbd.CMD_TRIM, offset, length) == nbd.EINVAL
            assert error_of(client.request, nbd.CMD_CACHE, offset, length) == nbd.EINVAL
        for kind in (nbd.CMD_READ, nbd.CMD_WRITE, nbd.CMD_TRIM, nbd.CMD_CACHE, nbd.CMD_WRITE_ZEROES):
            assert error_of(client.request, kind, 0, 0) == nbd.EINVAL
        assert error_of(client.read, 0, (32 << 20) + 1) == nbd.EINVAL
        assert error_of(client.read, 0, (1 << 32) - 1) == nbd.EINVAL
        assert error_of(client.write, 0, bytes((32 << 20) + 1)) == nbd.EINVAL
        assert client.read(0, 4096) == before[:4096]
        assert served.content() == before


def test_largest_request(daemon, tmp_path):
    image = sparse_image(tmp_path / 'disk.img', 33 * MIB)
    served = Served(daemon, tmp_path, image=image)
    data = pattern(32 << 20)
    for mode in MODES:
        with served.open(mode=mode) as client:
            client.write(MIB, data)
            assert client.read(MIB, len(data)) == data
            if mode == 'extended':
                assert error_of(client.read, 0, 1 << 40) == nbd.EINVAL


@pytest.mark.parametrize('length', [1 << 32, 1 << 63, (1 << 64) - 1])
def test_write_of_unbelievable_length(served, length):
    """Skipping such a payload is no use: that connection ends."""
    with served.open(mode='extended') as client:
        client.submit(nbd.CMD_WRITE, 0, length)
        assert client.at_end()
    served.check_alive()


@pytest.mark.parametrize('mode', MODES)
def test_read_only(served, mode):
    """N12."""
    with served.open('ro', mode=mode) as client:
        before = served.content()
        assert error_of(client.write, 0, b'!' * 4096) == nbd.EPERM
        assert error_of(client.request, nbd.CMD_TRIM, 0, 4096) == nbd.EPERM
        assert error_of(client.request, nbd.CMD_WRITE_ZEROES, 0, 4096) == nbd.EPERM
        client.request(nbd.CMD_FLUSH)
        assert client.read(0, 4096) == before[:4096]
        assert served.content() == before


@pytest.mark.parametrize('mode', MODES)
def test_unknown_commands_and_flags(served, mode):
    """N12."""
    with served.open(mode=mode) as client:
        for kind in (8, 9, 99, 0xffff):
            assert error_of(client.request, kind, 0, 512) == nbd.EINVAL
        for flag in (1 << bit for bit in range(6, 16)):
            assert error_of(client.request, nbd.CMD_READ, 0, 512, flag) == nbd.EINVAL
            assert error_of(client.write, 0, b'!' * 512, flag) == nbd.EINVAL
            assert error_of(client.request, nbd.CMD_FLUSH, 0, 0, flag) == nbd.EINVAL
        assert error_of(client.read, 0, 512, nbd.CMD_FLAG_NO_HOLE) == nbd.EINVAL
        assert error_of(client.write, 0, b'!' * 512, nbd.CMD_FLAG_DF) == nbd.EINVAL
        assert error_of(client.request, nbd.CMD_TRIM, 0, 512, nbd.CMD_FLAG_REQ_ONE) == nbd.EINVAL
        assert error_of(client.request, nbd.CMD_BLOCK_STATUS, 0, 512) == nbd.EINVAL
        if mode == 'simple':
            assert error_of(client.read, 0, 512, nbd.CMD_FLAG_DF) == nbd.EINVAL
        assert client.read(0, 512) == served.content()[:512]


def test_payload_of_commands_that_take_none(served):
    with served.open(mode='extended') as client:
        for kind in (nbd.CMD_READ, nbd.CMD_TRIM, nbd.CMD_WRITE_ZEROES, nbd.CMD_FLUSH, 99, nbd.CMD_BLOCK_STATUS):
            assert error_of(client.request, kind, 0, 100, nbd.CMD_FLAG_PAYLOAD_LEN, bytes(100)) == nbd.EINVAL
        assert client.read(0, 512) == served.content()[:512]


def test_errors_have_text(served):
    with served.open() as client:
        with pytest.raises(RequestError) as error:
            client.read(4 * MIB, 512)
        for fact in ('read', '512 bytes', 'offset 4194304', "export 'x' of 4194304 bytes"):
            assert fact in error.value.text


def test_errors_from_below(daemon, tmp_path):
    """Numbers that would tell the client something of its request, or of the server, do so only when that is meant."""
    served = Served(daemon, tmp_path)
    expected = {1: nbd.EPERM, 5: nbd.EIO, 12: nbd.ENOMEM, 22: nbd.EINVAL, 27: nbd.ENOSPC, 28: nbd.ENOSPC, 122: nbd.ENOSPC,
                75: nbd.EINVAL, 95: nbd.EINVAL, 108: nbd.EIO, 61: nbd.EIO}
    for number, code in expected.items():
        served.qmp.command('blockdev-add', driver='blkdebug', node_name=f'n{number}', image='disk', inject_error=[
            {'event': 'none', 'iotype': 'read', 'errno': number}])
        served.qmp.command('block-export-add', type='nbd', id=f'e{number}', node_name=f'n{number}', name=f'x{number}')
        with served.open(f'x{number}') as client:
            with pytest.raises(nbd.RequestError) as error:
                client.read(0, 512)
            assert error.value.code == code


@pytest.mark.parametrize('mode', MODES)
def test_duplicate_cookies(served, mode):
    """N14: each request is answered, with the cookie it came with."""
    with served.open(mode=mode) as client:
        content = served.content()
        client.send(b''.join(client.pack(nbd.CMD_READ, 0, 64, cookie=0xabcdef) for _ in range(50)))
        for _ in range(50):
            chunks = client.reply(0xabcdef, 64)
            data = chunks[0].payload if mode == 'simple' else client.assemble(chunks, 0, 64)[0]
            assert data == content[:64]


def test_pipelined_mix(served):
    """Requests of all kinds in one go: each gets the reply that is its own."""
    with served.open() as client:
        sent = {}
        data = b''
        for number in range(1, 400):
            kind = (nbd.CMD_READ, nbd.CMD_WRITE, nbd.CMD_FLUSH, nbd.CMD_CACHE)[number % 4]
            size = 0 if kind == nbd.CMD_FLUSH else 100 + number
            flags = nbd.CMD_FLAG_DF if kind == nbd.CMD_READ else 0
            payload = pattern(size) if kind == nbd.CMD_WRITE else b''
            data += client.pack(kind, MIB + number * 1000 if kind == nbd.CMD_WRITE else number * 1000, size, flags, number, payload)
            sent[number] = kind
        client.send(data)
        content = served.content()
        while sent:
            chunk = client.chunk()
            kind = sent.pop(chunk.cookie)
            assert chunk.done and not chunk.error
            if kind == nbd.CMD_READ:
                assert chunk.payload[8:] == content[chunk.cookie * 1000:][:100 + chunk.cookie]
        client.disconnect()


def test_disconnect_with_arguments(served):
    """N14: taken for what it is."""
    with served.open() as client:
        client.send(client.pack(nbd.CMD_DISC, 5, 5) + b'12345')
        assert client.at_end()
    served.check_alive()


@pytest.mark.parametrize('mode, magic', [('simple', nbd.EXTENDED_REQUEST_MAGIC), ('structured', 0x12345678),
                                         ('extended', nbd.REQUEST_MAGIC)])
def test_wrong_magic(served, mode, magic):
    with served.open(mode=mode) as client:
        client.send(client.pack(nbd.CMD_READ, 0, 512, magic=magic))
        assert client.at_end()
    served.check_alive()


def test_request_in_pieces(served):
    with served.open() as client:
        data = pattern(3000)
        for byte in client.pack(nbd.CMD_WRITE, 17, len(data), cookie=3) + data[:10]:
            client.send(bytes([byte]))
        client.send(data[10:])
        client.reply(3)
        assert client.read(17, 3000) == data


def test_closed_inside_a_payload(served):
    """Nothing of an incomplete write reaches the image."""
    before = served.content()
    for size in (100, 300_000):
        client = served.open()
        client.send(client.pack(nbd.CMD_WRITE, 0, size) + bytes(size - 1))
        client.close()
    served.check_alive()
    assert served.content() == before


def test_minimum_block_size_is_enforced(daemon, tmp_path):
    """With O_DIRECT the node has a request alignment; who has asked for block sizes is held to it, others are not."""
    image = sparse_image(tmp_path / 'disk.img', 4 * MIB, (0, pattern(MIB)))
    served = Served(daemon, tmp_path, image=image, blockdev=',cache.direct=on')
    content = served.content()
    with served.connect() as client:
        client.negotiate('structured')
        client.go('x', [nbd.INFO_BLOCK_SIZE])
        minimum = client.block_size[0]
        assert minimum in (512, 4096)
        assert client.read(minimum, minimum) == content[minimum:2 * minimum]
        assert error_of(client.read, 1, minimum) == nbd.EINVAL
        assert error_of(client.write, 0, b'!') == nbd.EINVAL
        assert error_of(client.request, nbd.CMD_WRITE_ZEROES, 1, minimum) == nbd.EINVAL
    with served.open() as client:
        assert client.read(3, 5) == content[3:8]
        client.write(3, b'unaligned')
        assert client.read(0, 20) == content[:3] + b'unaligned' + content[12:20]
