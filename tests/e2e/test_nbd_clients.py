# SPDX-License-Identifier: LGPL-2.1-or-later
"""Clients that others wrote: libnbd and its tools, QEMU's, fio, nbd-client."""
import json
import re
import threading

import nbd as libnbd
import pytest

from harness import need, raw_image, run
from nbd_serving import MIB, Served, free_port, pattern, sparse_image


@pytest.fixture
def served(daemon, tmp_path):
    """Data and holes in turn."""
    image = sparse_image(tmp_path / 'disk.img', 16 * MIB, (0, pattern(MIB)), (5 * MIB, pattern(2 * MIB)), (15 * MIB, pattern(MIB)))
    return Served(daemon, tmp_path, image=image, export='writable=on,description=a disk', blockdev=',discard=unmap')


SIMPLE = {'set_request_structured_replies': False}


@pytest.mark.parametrize('settings', [SIMPLE, {}], ids=['simple', 'structured'])
def test_libnbd_commands(served, settings):
    handle = served.libnbd(**settings)
    content = bytearray(served.content())
    assert handle.get_size() == len(content)
    assert not handle.is_read_only() and not handle.is_rotational()
    for feature in ('flush', 'fua', 'trim', 'zero', 'cache', 'fast_zero', 'multi_conn'):
        assert getattr(handle, f'can_{feature}')()
    assert handle.can_df() == (not settings)
    handle.pwrite(b'written', 4096)
    handle.pwrite(b'durable', 8192, libnbd.CMD_FLAG_FUA)
    handle.zero(4096, 16384)
    handle.zero(4096, 32768, libnbd.CMD_FLAG_NO_HOLE | libnbd.CMD_FLAG_FUA)
    handle.trim(65536, 65536)
    handle.cache(MIB, 0)
    handle.flush()
    content[4096:4103], content[8192:8199] = b'written', b'durable'
    content[16384:20480] = content[32768:36864] = bytes(4096)
    content[65536:131072] = bytes(65536)
    assert handle.pread(16 * MIB, 0) == content
    handle.shutdown()
    assert served.content() == content


def test_libnbd_structured_read(served):
    handle = served.libnbd()
    seen = []

    def chunk(data, offset, status, error):
        seen.append((offset, len(data), status))
        assert not error.value
        return 0

    data = handle.pread_structured(2 * MIB, MIB // 2, chunk)
    assert data == served.content()[MIB // 2:MIB // 2 + 2 * MIB]
    assert seen == [(MIB // 2, MIB // 2, libnbd.READ_DATA), (MIB, 3 * MIB // 2, libnbd.READ_HOLE)]
    seen.clear()
    handle.pread_structured(2 * MIB, MIB // 2, chunk, libnbd.CMD_FLAG_DF)
    assert seen == [(MIB // 2, 2 * MIB, libnbd.READ_DATA)]
    handle.shutdown()


def test_libnbd_block_status(served):
    handle = served.libnbd(contexts=[libnbd.CONTEXT_BASE_ALLOCATION])
    assert handle.can_meta_context(libnbd.CONTEXT_BASE_ALLOCATION)
    found = {}

    def extents(context, offset, entries, error):
        assert not error.value
        found[context] = entries

    handle.block_status(16 * MIB, 0, extents)
    assert found == {'base:allocation': [MIB, 0, 4 * MIB, 3, 2 * MIB, 0, 8 * MIB, 3, MIB, 0]}
    handle.shutdown()


def test_libnbd_many_in_flight(served):
    handle = served.libnbd()
    content = served.content()
    buffers = [libnbd.Buffer(50000) for _ in range(300)]
    cookies = {handle.aio_pread(buffer, number * 50000): number for number, buffer in enumerate(buffers)}
    while cookies:
        cookie = handle.aio_peek_command_completed()
        if not cookie:
            handle.poll(-1)
            continue
        assert handle.aio_command_completed(cookie)
        number = cookies.pop(cookie)
        assert bytes(buffers[number].to_bytearray()) == content[number * 50000:][:50000]
    handle.shutdown()


def test_libnbd_error_keeps_the_connection(served):
    handle = served.libnbd()
    handle.set_strict_mode(0)
    with pytest.raises(libnbd.Error) as error:
        handle.pread(512, 16 * MIB)
    assert error.value.errno == 'EINVAL'
    with pytest.raises(libnbd.Error) as error:
        handle.pwrite(b'x' * 512, 16 * MIB)
    assert error.value.errno == 'ENOSPC'
    assert handle.pread(1, 0)
    handle.shutdown()


def test_libnbd_over_tcp_and_ipv6(served):
    served.qmp.command('nbd-server-stop')
    port = free_port()
    served.qmp.command('nbd-server-start', addr={'type': 'inet', 'data': {'host': '::1', 'port': str(port)}})
    served.qmp.command('block-export-add', type='nbd', id='exp', node_name='disk', name='x')
    handle = libnbd.NBD()
    handle.connect_uri(f'nbd://[::1]:{port}/x')
    assert handle.pread(16 * MIB, 0) == served.content()
    handle.shutdown()


def test_nbdinfo(served):
    listed = json.loads(run(need('nbdinfo'), '--list', '--json', served.uri).stdout)
    assert listed['protocol'] == 'newstyle-fixed' and listed['structured']
    export, = listed['exports']
    assert export['export-name'] == 'x' and export['description'] == 'a disk' and export['export-size'] == 16 * MIB
    assert export['contexts'] == ['base:allocation']
    assert [export[f'block_size_{which}'] for which in ('minimum', 'preferred', 'maximum')] == [1, 4096, 32 * MIB]
    assert export['can_multi_conn'] and not export['is_read_only']
    extents = json.loads(run(need('nbdinfo'), '--map', '--json', served.uri).stdout)
    assert [(extent['offset'], extent['length'], extent['type']) for extent in extents] == [
        (0, MIB, 0), (MIB, 4 * MIB, 3), (5 * MIB, 2 * MIB, 0), (7 * MIB, 8 * MIB, 3), (15 * MIB, MIB, 0)]
    assert run(need('nbdinfo'), '--size', served.uri).stdout.strip() == str(16 * MIB)
    assert run(need('nbdinfo'), '--can', 'fua', served.uri, check=False).returncode == 0


def test_nbdcopy(served, tmp_path):
    copy = tmp_path / 'copy.img'
    run(need('nbdcopy'), '--connections=4', served.uri, copy)
    assert copy.read_bytes() == served.content()
    assert copy.stat().st_blocks <= served.image.stat().st_blocks
    new = raw_image(tmp_path / 'new.img', 16 * MIB, pattern(4096, 77))
    run(need('nbdcopy'), '--flush', '--connections=4', '--requests=64', new, served.uri)
    assert served.content() == new.read_bytes()


def test_nbdcopy_between_exports(served, tmp_path):
    other = raw_image(tmp_path / 'other.img', 16 * MIB, b'old')
    served.qmp.command('blockdev-add', driver='file', node_name='other', filename=str(other))
    served.qmp.command('block-export-add', type='nbd', id='other', node_name='other', name='other', writable=True)
    run(need('nbdcopy'), '--flush', served.uri, served.uri.replace('/x?', '/other?'))
    assert other.read_bytes() == served.content()


def test_qemu_img(served, tmp_path):
    info = json.loads(run(need('qemu-img'), 'info', '--output=json', served.uri).stdout)
    assert info['virtual-size'] == 16 * MIB and info['format'] == 'raw'
    extents = json.loads(run(need('qemu-img'), 'map', '--output=json', served.uri).stdout)
    assert [(extent['start'], extent['length'], extent['data']) for extent in extents] == [
        (0, MIB, True), (MIB, 4 * MIB, False), (5 * MIB, 2 * MIB, True), (7 * MIB, 8 * MIB, False), (15 * MIB, MIB, True)]
    copy = tmp_path / 'copy.qcow2'
    run(need('qemu-img'), 'convert', '-O', 'qcow2', served.uri, copy)
    run(need('qemu-img'), 'compare', copy, served.uri)
    new = raw_image(tmp_path / 'new.img', 16 * MIB, pattern(4096, 33))
    run(need('qemu-img'), 'convert', '-n', '-f', 'raw', '-O', 'raw', new, served.uri)
    assert served.content() == new.read_bytes()


def test_qemu_io(served):
    def commands(*lines, check=True):
        return run(need('qemu-io'), '-f', 'raw', *(word for line in lines for word in ('-c', line)), served.uri, check=check)

    commands('write -P 0x11 0 64k', 'write -f -P 0x22 64k 4k', 'write -z 100k 10k', 'write -z -u 1M 64k', 'discard 5M 64k',
             'flush', 'read -P 0x11 0 64k', 'read -P 0x22 64k 4k', 'read -P 0 100k 10k', 'read -P 0 1M 64k')
    assert served.content()[:65536] == b'\x11' * 65536
    done = commands('read -P 0x33 0 4k', check=False)
    assert done.returncode and 'Pattern verification failed' in done.stdout


def test_qemu_nbd_list(served):
    listed = run(need('qemu-nbd'), '--list', '-k', served.path).stdout
    assert "export: 'x'" in listed and 'description: a disk' in listed and 'base:allocation' in listed


def test_qemu_storage_daemon_as_client(served, tmp_path):
    """The other daemon on top of ours, and a client on top of that."""
    from harness import background, listens, wait_for
    path = tmp_path / 'outer.sock'
    with background(need('qemu-storage-daemon'),
                    '--blockdev', f'nbd,node-name=n,server.type=unix,server.path={served.path},export=x',
                    '--nbd-server', f'addr.type=unix,addr.path={path}',
                    '--export', 'nbd,id=e,node-name=n,name=outer,writable=on'):
        wait_for(lambda: listens(path), 'the outer daemon')
        handle = libnbd.NBD()
        handle.connect_uri(f'nbd+unix:///outer?socket={path}')
        assert handle.pread(16 * MIB, 0) == served.content()
        handle.pwrite(b'through both', 12345)
        handle.flush()
        handle.shutdown()
    assert served.content()[12345:12357] == b'through both'


@pytest.mark.parametrize('mix', ['randwrite', 'randrw'])
def test_fio_verifies(served, tmp_path, mix):
    done = run(need('fio'), '--name=job', '--ioengine=nbd', f'--uri={served.uri}', f'--rw={mix}', '--bsrange=512-128k', '--bs_unaligned=1'
               if mix == 'randrw' else '--bs=4k', '--iodepth=32', '--size=16m', '--io_size=24m', '--verify=crc32c', '--verify_fatal=1',
               '--do_verify=1', cwd=tmp_path)
    assert re.search(r'err= 0', done.stdout), done.stdout


def test_fio_with_several_connections(served, tmp_path):
    done = run(need('fio'), '--name=job', '--ioengine=nbd', f'--uri={served.uri}', '--rw=randread', '--bs=4k', '--iodepth=32', '--numjobs=4',
               '--size=16m', '--group_reporting', cwd=tmp_path)
    assert re.search(r'err= 0', done.stdout), done.stdout


def test_nbd_client_lists(served):
    """nbd-client speaks TCP for lists only."""
    served.qmp.command('nbd-server-stop')
    port = free_port()
    served.qmp.command('nbd-server-start', addr={'type': 'inet', 'data': {'host': '127.0.0.1', 'port': str(port)}})
    served.qmp.command('block-export-add', type='nbd', id='exp', node_name='disk', name='x')
    done = run(need('nbd-client'), '-l', '127.0.0.1', str(port))
    assert 'x' in done.stdout.split()


def test_clients_side_by_side(served, tmp_path):
    """Four tools at once on one export."""
    failures = []

    def copy(number):
        try:
            target = tmp_path / f'copy{number}.img'
            run(need('nbdcopy'), served.uri, target)
            assert target.read_bytes() == content
        except AssertionError as failure:
            failures.append(failure)

    content = served.content()
    threads = [threading.Thread(target=copy, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
