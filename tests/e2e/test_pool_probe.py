# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a pool shows of images that another program has made: their formats, sizes, and what they are based on."""
import json
import re

import pytest
from harness import program, run
from pool_daemon import pool_xml

MIB = 1 << 20
KEY = ('--object', 'secret,id=s,data=x')


@pytest.fixture
def images(pool_daemon):
    """Makes images there; and what a pool of them shows."""
    folder = pool_daemon.images

    class Images:
        def make(self, name, kind, size, *words, tool='qemu-img'):
            run(tool, 'create', '-q', '-f', kind, *words, folder / name, size)
            return folder / name

        def shown(self):
            pool = pool_daemon.start().connect().storagePoolCreateXML(pool_xml('demo', folder))
            return {volume.name(): volume.XMLDesc() for volume in pool.listAllVolumes()}
    return Images()


def facts(xml):
    """(format, capacity)"""
    target = xml.split('<target>')[1]
    return re.search("<format type='(.*?)'/>", target)[1], int(re.search("<capacity unit='bytes'>(.*?)<", xml)[1])


def test_formats(images, pool_daemon):
    options = {
        'raw': (), 'qcow': (), 'qcow2': (), 'qed': (), 'vdi': (), 'vpc': ('-o', 'force_size=on'), 'vmdk': ()}
    paths = {kind: images.make(kind, kind, 12 * MIB, *words) for kind, words in options.items()}
    images.make('old', 'qcow2', 5 * MIB, '-o', 'compat=0.10,cluster_size=4k')
    images.make('new', 'qcow2', 5 * MIB, '-o', 'lazy_refcounts=on,extended_l2=on')
    images.make('stream', 'vmdk', 5 * MIB, '-o', 'subformat=streamOptimized')
    images.make('parallels', 'parallels', 16 * MIB)
    ours = program('ashlar-img')  # the other one's clock is at times too coarse for it to make a key
    images.make('luks', 'luks', 5 * MIB, *KEY, '-o', 'key-secret=s,iter-time=10', tool=ours)
    images.make('key', 'qcow2', 5 * MIB, *KEY, '-o', 'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10', tool=ours)
    (pool_daemon.images / 'iso').write_bytes(bytes(32768) + b'\1CD001\1' + bytes(4096))
    (pool_daemon.images / 'cloop').write_bytes(
        b'#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n'.ljust(128)
        + (65536).to_bytes(4, 'big') + (32).to_bytes(4, 'big'))
    shown = images.shown()
    for kind, path in paths.items():
        told = json.loads(run('qemu-img', 'info', '--output=json', '-f', kind, path).stdout)
        assert facts(shown[kind]) == (kind, told['virtual-size']), kind
    assert {name: facts(shown[name]) for name in ('old', 'new', 'stream', 'parallels', 'luks', 'key', 'cloop')} == {
        'old': ('qcow2', 5 * MIB), 'new': ('qcow2', 5 * MIB), 'stream': ('vmdk', 5 * MIB), 'parallels': ('ploop', 16 * MIB),
        'luks': ('raw', 5 * MIB), 'key': ('qcow2', 5 * MIB), 'cloop': ('cloop', 2 * MIB)}
    assert facts(shown['iso'])[0] == 'iso'
    assert "<clusterSize unit='B'>4096</clusterSize>" in shown['old'] and '<features>' not in shown['old']
    assert re.search(r'<features>\s*<lazy_refcounts/>\s*<extended_l2/>\s*</features>', shown['new'])
    assert all("<encryption format='luks'>" in shown[name] for name in ('luks', 'key'))


def test_what_they_are_based_on(images, pool_daemon):
    base = images.make('base', 'raw', MIB)
    top = images.make('top', 'qcow2', 2 * MIB, '-b', 'base', '-F', 'raw')
    inside = json.dumps({'driver': 'qcow2', 'file': {'driver': 'file', 'filename': str(top)}})
    flat = json.dumps({'file.driver': 'file', 'file.filename': str(base), 'driver': 'raw'})
    far = json.dumps({'driver': 'nbd', 'host': 'h', 'file': {'driver': 'x', 'filename': '/etc/passwd'}})
    for name, backing, kind in (
            ('relative', 'top', 'qcow2'), ('inside', f'json:{inside}', 'qcow2'), ('flat', f'json:{flat}', 'raw'),
            ('with-file', f'file:{base}', 'raw'), ('far', f'json:{far}', 'raw'), ('net', 'nbd://host/x', 'raw'),
            ('broken', 'json:{', 'raw'), ('gone', '/nonexistent/x', 'qcow2')):
        images.make(name, 'qcow2', MIB, '-u', '-b', backing, '-F', kind)
    images.make('by-qed', 'qed', MIB, '-b', base, '-F', 'raw')
    images.make('by-vmdk', 'vmdk', MIB, '-b', images.make('v', 'vmdk', MIB), '-F', 'vmdk')
    shown = {name: xml.split('<backingStore>')[1] for name, xml in images.shown().items() if '<backingStore>' in xml}
    found = {name: (re.search('<path>(.*?)</path>', xml)[1].replace('&quot;', '"'), re.search("type='(.*?)'", xml)[1])
             for name, xml in shown.items()}
    folder = pool_daemon.images
    assert found == {
        'top': (f'{folder}/base', 'raw'), 'relative': (f'{folder}/top', 'qcow2'), 'inside': (str(top), 'qcow2'),
        'flat': (str(base), 'raw'), 'with-file': (str(base), 'raw'), 'far': (f'json:{far}', 'raw'),
        'net': ('nbd://host/x', 'raw'), 'broken': ('json:{', 'raw'), 'gone': ('/nonexistent/x', 'qcow2'),
        'by-qed': (str(base), 'raw'), 'by-vmdk': (f'{folder}/v', 'vmdk')}
    assert '<owner>' in shown['inside'] and '<owner>' not in shown['gone']
