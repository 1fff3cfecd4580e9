# SPDX-License-Identifier: LGPL-2.1-or-later
"""Images that look like another format than they are said to have, and names that look like more than names."""
import pytest

from harness import QmpError, storaged_fails
from nbd_serving import MIB, Served

MAGICS = {
    'qcow2': b'QFI\xfb\0\0\0\3',
    'luks': b'LUKS\xba\xbe\0\2',
    'vmdk': b'KDMV\1\0\0\0',
    'vhdx': b'vhdxfile',
    'iso': b'\0' * 32769 + b'CD001',
}


@pytest.mark.parametrize('magic', MAGICS.values(), ids=MAGICS.keys())
def test_written_magic_stays_data(daemon, tmp_path, magic):
    # F20, F21: what a guest writes does not change what the image is, not after a restart either
    served = Served(daemon, tmp_path)
    with served.open() as client:
        client.write(0, magic)
    served.daemon.stop()
    for driver in 'file', 'raw':
        again = Served(daemon, tmp_path, image=served.image)
        top = 'disk'
        if driver == 'raw':
            top = 'top'
            again.qmp.command('blockdev-add', driver='raw', node_name=top, file='disk')
        again.qmp.command('block-export-add', type='nbd', id='second', node_name=top, name='second')
        with again.open('second') as client:
            assert client.read(0, len(magic)) == magic
            assert client.size == MIB
        again.daemon.stop()


def test_nothing_is_probed(daemon, tmp_path):
    # F20: without a driver there is no node, whatever the file holds
    one = daemon()
    image = tmp_path / 'disk'
    image.write_bytes(MAGICS['qcow2'] + bytes(MIB))
    for options in {'filename': str(image)}, {'file': {'driver': 'file', 'filename': str(image)}}:
        with pytest.raises(QmpError) as caught:
            one.qmp.command('blockdev-add', node_name='n', **options)
        assert caught.value.desc == "Parameter 'driver' is missing"
    assert one.qmp.command('query-named-block-nodes') == []
    assert storaged_fails('--blockdev', f'node-name=n,filename={image}').endswith(": Parameter 'driver' is missing")


@pytest.mark.parametrize('name', ['json:{"driver":"null-co"}', 'nbd://127.0.0.1/x', 'file:disk', 'fd:0', '%s%n', 'a,b',
                                  'a\nb', '\x1b[31m', '-', '~', '$HOME', '`id`', '../nonexistent/disk'])
def test_file_name_is_nothing_but_a_name(daemon, tmp_path, name):
    # M10: opened as it stands; told escaped, on one line
    qmp = daemon(cwd=tmp_path).qmp
    with pytest.raises(QmpError) as caught:
        qmp.command('blockdev-add', driver='file', node_name='n', filename=name)
    assert caught.value.desc.isprintable()
    assert caught.value.desc.endswith("': No such file or directory")
    if '/' not in name:
        (tmp_path / name).write_bytes(bytes(MIB))
        qmp.command('blockdev-add', driver='file', node_name='n', filename=name)
        assert qmp.command('query-named-block-nodes')[0]['image']['virtual-size'] == MIB
