# SPDX-License-Identifier: LGPL-2.1-or-later
"""libvirt-glib, which virt-manager's relatives use: pools and volumes as objects, at once and in its loop."""
import json
import subprocess

from harness import PATIENCE_S
from pool_daemon import pool_xml, volume_xml

MIB = 1 << 20

# A program of its own: the library brings its event loop with it, and other tests have theirs.
PROGRAM = '''
import json, sys
import gi
gi.require_version('LibvirtGLib', '1.0')
gi.require_version('LibvirtGObject', '1.0')
gi.require_version('LibvirtGConfig', '1.0')
from gi.repository import GLib, LibvirtGConfig, LibvirtGLib, LibvirtGObject

uri, pool_xml, volume_xml = sys.argv[1:]
LibvirtGObject.init_object_check(None)
LibvirtGLib.event_register()
connection = LibvirtGObject.Connection.new(uri)
main = GLib.MainLoop()


def wait(begin, finish):
    """An asynchronous call, which needs the library's loop."""
    results = []
    begin(None, lambda source, result, *_: (results.append(finish(result)), main.quit()))
    main.run()
    return results[0]


assert wait(connection.open_async, connection.open_finish)
made = connection.create_storage_pool(LibvirtGConfig.StoragePool.new_from_xml(pool_xml), 0)
assert made.build(0) and made.start(0)
assert wait(connection.fetch_storage_pools_async, connection.fetch_storage_pools_finish)
pool, = connection.get_storage_pools()
pool.set_autostart(True)
assert wait(pool.refresh_async, pool.refresh_finish)
volume = pool.create_volume(LibvirtGConfig.StorageVol.new_from_xml(volume_xml))
volume.resize(2 << 20, LibvirtGObject.StorageVolResizeFlags.NONE)
found = {
    'name': pool.get_name(), 'uuid': pool.get_uuid(), 'active': pool.get_active(), 'persistent': pool.get_persistent(),
    'autostart': pool.get_autostart(), 'state': int(pool.get_info().state), 'xml': pool.get_config(0).to_xml(),
    'path': volume.get_path(), 'capacity': volume.get_info().capacity, 'names': [one.get_name() for one in pool.get_volumes()]}
volume.delete(0)
assert wait(pool.stop_async, pool.stop_finish) and pool.delete(0) and pool.undefine()
print(json.dumps(found))
'''


def test_pools_and_volumes(pool_daemon):
    path = pool_daemon.images / 'made'
    connection = pool_daemon.start().connect()
    done = subprocess.run(['/usr/bin/python3', '-c', PROGRAM, pool_daemon.uri(), pool_xml('demo', path), volume_xml('a.raw', MIB)],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert f'<path>{path}</path>' in found.pop('xml') and len(found.pop('uuid')) == 36
    assert found == {'name': 'demo', 'active': True, 'persistent': True, 'autostart': True, 'state': 2, 'path': f'{path}/a.raw',
                     'capacity': 2 * MIB, 'names': ['a.raw']}
    assert connection.listAllStoragePools() == [] and not path.exists()
