# SPDX-License-Identifier: LGPL-2.1-or-later
"""The NBD handshake, option by option, also where clients break its rules (N3-N7, N9)."""
import struct

import pytest

import nbd_raw as nbd
from harness import memory_limit_kib, wait_for
from nbd_raw import Closed, NbdRaw, OptionError
from nbd_serving import MIB, Served

WRITABLE = (1 | nbd.FLAG_SEND_FLUSH | nbd.FLAG_SEND_FUA | nbd.FLAG_SEND_TRIM | nbd.FLAG_SEND_WRITE_ZEROES
            | nbd.FLAG_CAN_MULTI_CONN | nbd.FLAG_SEND_CACHE | nbd.FLAG_SEND_FAST_ZERO)
READ_ONLY = (1 | nbd.FLAG_READ_ONLY | nbd.FLAG_SEND_FLUSH | nbd.FLAG_SEND_FUA | nbd.FLAG_CAN_MULTI_CONN
             | nbd.FLAG_SEND_CACHE)


@pytest.fixture
def served(daemon, tmp_path):
    return Served(daemon, tmp_path, export='writable=on,description=a disk',
                  extra=['--export', 'nbd,id=ro,node-name=disk,name=ro,allocation-depth=on'])


def error_of(call, *arguments):
    with pytest.raises(OptionError) as error:
        call(*arguments)
    return error.value.code


def test_list(served):
    with served.connect() as client:
        assert client.list() == {'x': 'a disk', 'ro': ''}
        assert error_of(client.option, nbd.OPT_LIST, b'?') == nbd.REP_ERR_INVALID
        assert client.list() == {'x': 'a disk', 'ro': ''}


def test_info(served):
    with served.connect() as client:
        found = client.info('x', [nbd.INFO_NAME, nbd.INFO_BLOCK_SIZE, 77])
        assert found[nbd.INFO_NAME] == b'x'
        assert found[nbd.INFO_DESCRIPTION] == b'a disk'
        assert client.size == MIB and client.flags == WRITABLE
        assert client.block_size == (1, 4096, 32 * MIB)
        found = client.info('ro')
        assert nbd.INFO_NAME not in found and nbd.INFO_DESCRIPTION not in found
        assert client.size == MIB and client.flags == READ_ONLY


def test_flags_follow_the_mode(served):
    with served.open('x', 'structured') as client:
        assert client.flags == WRITABLE | nbd.FLAG_SEND_DF
    with served.open('x', 'extended') as client:
        assert client.flags == WRITABLE | nbd.FLAG_SEND_DF | nbd.FLAG_BLOCK_STATUS_PAYLOAD


def test_export_name(served):
    for client_flags in (1, 3):
        with served.connect(hello=False) as client:
            client.hello(client_flags)
            client.export_name('x')
            assert client.size == MIB and client.flags == WRITABLE
            assert client.read(0, 512) == served.content()[:512]


def test_not_fixed_newstyle(served):
    with served.connect(hello=False) as client:
        client.hello(0)
        client.export_name('ro')
        assert client.flags == READ_ONLY
    with served.connect(hello=False) as client:
        client.hello(0)
        client.send_option(nbd.OPT_LIST)
        assert client.at_end()


def test_unknown_exports(served):
    with served.connect() as client:
        for name in ('y', '', 'X', 'xx'):
            assert error_of(client.info, name) == nbd.REP_ERR_UNKNOWN
            assert error_of(client.go, name) == nbd.REP_ERR_UNKNOWN
            assert error_of(client.list_contexts, name) == nbd.REP_ERR_UNKNOWN
        client.go('x')
        assert client.read(0, 1)
    with served.connect() as client:
        client.send_option(nbd.OPT_EXPORT_NAME, b'y')
        assert client.at_end()
    served.check_alive()


def test_default_export(daemon, tmp_path):
    served = Served(daemon, tmp_path, extra=['--export', 'nbd,id=default,node-name=disk,name='])
    with served.open('') as client:
        assert client.flags & nbd.FLAG_READ_ONLY


def test_abort(served):
    for data in (b'', b'whatever'):
        with served.connect() as client:
            assert client.option(nbd.OPT_ABORT, data) == []
            assert client.at_end()


def test_structured_and_extended(served):
    with served.connect() as client:
        assert error_of(client.option, nbd.OPT_STRUCTURED_REPLY, b'1') == nbd.REP_ERR_INVALID
        client.option(nbd.OPT_STRUCTURED_REPLY)
        assert error_of(client.option, nbd.OPT_STRUCTURED_REPLY) == nbd.REP_ERR_INVALID
        assert error_of(client.option, nbd.OPT_EXTENDED_HEADERS, b'1') == nbd.REP_ERR_INVALID
        client.option(nbd.OPT_EXTENDED_HEADERS)
        assert error_of(client.option, nbd.OPT_EXTENDED_HEADERS) == nbd.REP_ERR_INVALID
        assert error_of(client.option, nbd.OPT_STRUCTURED_REPLY) == nbd.REP_ERR_EXT_HEADER_REQD
        client.structured = client.extended = True
        client.go('x')
        assert client.read(5, 10) == served.content()[5:15]


def test_list_contexts(served):
    with served.connect() as client:
        assert client.list_contexts('x') == {'base:allocation': 0}
        assert client.list_contexts('ro') == {'base:allocation': 0, 'qemu:allocation-depth': 0}
        for query, found in ((['base:'], ['base:allocation']), (['base:allocation'] * 2, ['base:allocation']),
                             (['qemu:'], ['qemu:allocation-depth']), (['qemu:', 'base:'], ['base:allocation', 'qemu:allocation-depth']),
                             (['qemu:dirty-bitmap:'], []), (['base:alloc'], []), (['base'], []), ([''], []), (['x-y:z'], [])):
            assert list(client.list_contexts('ro', query)) == found, query


def test_set_contexts(served):
    with served.connect() as client:
        assert error_of(client.set_contexts, 'ro', ['base:allocation']) == nbd.REP_ERR_INVALID
        client.negotiate('structured')
        assert client.set_contexts('ro', ['base:', 'qemu:']) == {}
        assert client.set_contexts('ro', ['qemu:allocation-depth']) == {'qemu:allocation-depth': 1}
        assert client.set_contexts('ro', ['base:allocation', 'nobody:knows']) == {'base:allocation': 0}
        client.go('ro')
        assert client.block_status(0, MIB) == {0: [(MIB, 0)]}


def test_contexts_are_forgotten(served):
    """By a later selection, a failed one, another export, or none."""
    for last in (lambda client: client.set_contexts('x', []),
                 lambda client: error_of(client.set_contexts, 'nobody', ['base:allocation']),
                 lambda client: client.set_contexts('ro', ['base:allocation'])):
        with served.connect() as client:
            client.negotiate('structured')
            assert client.set_contexts('x', ['base:allocation'])
            last(client)
            client.go('x')
            with pytest.raises(nbd.RequestError) as error:
                client.block_status(0, 512)
            assert error.value.code == nbd.EINVAL
            assert client.read(0, 1)


def test_malformed_data(served):
    whole = NbdRaw.info_data('x', [nbd.INFO_NAME, nbd.INFO_BLOCK_SIZE])
    contexts = NbdRaw.context_data('x', ['base:allocation', 'base:'])
    with served.connect() as client:
        client.negotiate('structured')
        for option in (nbd.OPT_INFO, nbd.OPT_GO):
            for data in [whole[:length] for length in range(len(whole))] + [whole + b'!']:
                assert error_of(client.option, option, data) == nbd.REP_ERR_INVALID
        for option in (nbd.OPT_LIST_META_CONTEXT, nbd.OPT_SET_META_CONTEXT):
            for data in [contexts[:length] for length in range(len(contexts))] + [contexts + b'!']:
                assert error_of(client.option, option, data) == nbd.REP_ERR_INVALID
        client.go('x')
        assert client.read(0, 1)


@pytest.mark.parametrize('name, code', [
    (b'y' * 256, nbd.REP_ERR_UNKNOWN), (b'y' * 257, nbd.REP_ERR_UNKNOWN), (b'y' * 4096, nbd.REP_ERR_UNKNOWN),
    (b'y' * 4097, nbd.REP_ERR_INVALID), (b'y' * 60000, nbd.REP_ERR_INVALID), (b'y' * 70000, nbd.REP_ERR_TOO_BIG),
    (b'x\0', nbd.REP_ERR_INVALID), (b'\xff\xfe', nbd.REP_ERR_INVALID), (b'\xc3', nbd.REP_ERR_INVALID),
    ('ä'.encode() * 2048, nbd.REP_ERR_UNKNOWN)],
    ids=['256', '257', '4096', '4097', '60000', '70000', 'nul', 'no-utf-8', 'half-utf-8', '4096-utf-8'])
def test_odd_names(served, name, code):
    """N3, N6: an error that fits a reply, and the connection stays usable."""
    with served.connect() as client:
        for call in (client.info, client.go, client.list_contexts):
            with pytest.raises(OptionError) as error:
                call(name)
            assert error.value.code == code
            assert len(error.value.text.encode()) <= 4096
        client.go('x')
        assert client.read(0, 1)


@pytest.mark.parametrize('option', [nbd.OPT_EXPORT_NAME, nbd.OPT_LIST, nbd.OPT_INFO, nbd.OPT_GO,
                                    nbd.OPT_SET_META_CONTEXT, 77])
@pytest.mark.parametrize('length', [(32 << 20) + 1, (1 << 32) - 1])
def test_huge_options(served, option, length):
    """N4: the end, without reading or making room for it."""
    with served.connect() as client:
        client.send_option(option, length=length)
        assert client.at_end()
    assert served.daemon.memory_kib() < memory_limit_kib(64 << 10)
    served.check_alive()


def test_long_options_are_skipped(served):
    with served.connect() as client:
        assert error_of(client.option, 77, bytes(1 << 20)) == nbd.REP_ERR_UNSUP
        assert error_of(client.option, nbd.OPT_INFO, bytes(1 << 20)) == nbd.REP_ERR_TOO_BIG
        assert error_of(client.option, nbd.OPT_LIST, bytes(1 << 20)) in (nbd.REP_ERR_INVALID, nbd.REP_ERR_TOO_BIG)
        client.go('x')
        assert client.read(0, 1)


def test_unknown_options(served):
    with served.connect() as client:
        for option in (0, nbd.OPT_PEEK, 9 + 3, 77, 1 << 31, (1 << 32) - 1):
            assert error_of(client.option, option, b'data') == nbd.REP_ERR_UNSUP
        client.go('x')
        assert client.read(0, 1)


def test_thousand_options(served):
    """N5."""
    with served.connect() as client:
        for round_ in range(250):
            client.info('x')
            client.list()
            assert error_of(client.option, 100 + round_) == nbd.REP_ERR_UNSUP
            client.list_contexts('x')
        client.go('x')
        assert client.read(0, 1)


@pytest.mark.parametrize('garbage', [b'GET / HTTP/1.1\r\n\r\n', bytes(64), b'\xff' * 64], ids=['http', 'zeroes', 'ones'])
def test_garbage(served, garbage):
    """N5: before the client's flags, and for an option."""
    with served.connect(hello=False) as client:
        client.receive(18)
        client.send(garbage)
        client.sock.shutdown(1)
        assert client.at_end()
    with served.connect() as client:
        client.send(garbage)
        assert client.at_end()
    served.check_alive()


@pytest.mark.parametrize('flags', [4, 1 << 31, 0xffffffff])
def test_unknown_client_flags(served, flags):
    with served.connect(hello=False) as client:
        client.hello(flags)
        assert client.at_end()


def test_many_queries(served):
    """N9: the reply is bounded by what there is, not by what is asked."""
    with served.connect() as client:
        client.negotiate('structured')
        assert client.list_contexts('ro', ['base:', 'qemu:'] * 2000) == {'base:allocation': 0, 'qemu:allocation-depth': 0}
        assert client.set_contexts('ro', ['base:allocation'] * 1000) == {'base:allocation': 0}
        assert client.set_contexts('ro', []) == {}
        for queries in ([''] * 1_000_000, ['q' * 65536], ['base:' + 'q' * 70000]):
            assert error_of(client.list_contexts, 'ro', queries) == nbd.REP_ERR_TOO_BIG
        assert client.list_contexts('ro', ['q' * 40000]) == {}
        client.go('ro')
        assert client.read(0, 1)
    assert served.daemon.memory_kib() < memory_limit_kib(64 << 10)


def test_option_sent_byte_by_byte(served):
    with served.connect() as client:
        data = NbdRaw.info_data('x')
        for byte in struct.pack('>QII', nbd.IHAVEOPT, nbd.OPT_GO, len(data)) + data:
            client.send(bytes([byte]))
        client.option_replies(nbd.OPT_GO)
        assert client.read(0, 1)


def test_starttls_without_credentials(served):
    with served.connect() as client:
        assert error_of(client.option, nbd.OPT_STARTTLS) == nbd.REP_ERR_POLICY
        client.go('x')


def test_hanging_up_at_each_byte(served):
    before = served.descriptors()
    data = NbdRaw.info_data('x')
    whole = struct.pack('>I', 3) + struct.pack('>QII', nbd.IHAVEOPT, nbd.OPT_GO, len(data)) + data
    for length in range(len(whole) + 1):
        client = served.connect(hello=False)
        client.send(whole[:length])
        client.close()
    wait_for(lambda: served.descriptors() <= before, 'all connections to be closed')
    served.check_alive()


def test_requests_right_behind_go(served):
    """A client may send requests without waiting for the end of the reply to GO."""
    with served.connect() as client:
        data = NbdRaw.info_data('x')
        client.send(struct.pack('>QII', nbd.IHAVEOPT, nbd.OPT_GO, len(data)) + data +
                    client.pack(nbd.CMD_READ, 0, 16, cookie=9))
        client.option_replies(nbd.OPT_GO)
        assert client.reply(9, 16)[0].payload == served.content()[:16]


def test_replies_end_when_the_client_closes(served):
    with served.connect() as client:
        client.send_option(nbd.OPT_GO, NbdRaw.info_data('x'))
        client.option_replies(nbd.OPT_GO)
        client.sock.shutdown(1)
        with pytest.raises(Closed):
            client.receive(1)
