# SPDX-License-Identifier: LGPL-2.1-or-later
"""Polkit as a test wants it, on a message bus of its own.

Run as a program, it is the service: fake_polkit.py RULES LOG. RULES is a file with a list of [action pattern, {detail: value},
answer] in JSON; the first that fits decides, and where none does the answer is "no"; "never" is no answer at all. LOG gets a line for each question.
"""
import contextlib
import fnmatch
import json
import os
import pathlib
import subprocess
import sys

BUS = '''<busconfig><listen>unix:path={}</listen><auth>EXTERNAL</auth><policy context="default"><allow user="*"/><allow own="*"/>
<allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>'''

INTERFACE = '''<node><interface name="org.freedesktop.PolicyKit1.Authority"><method name="CheckAuthorization">
<arg type="(sa{sv})" direction="in"/><arg type="s" direction="in"/><arg type="a{ss}" direction="in"/><arg type="u" direction="in"/>
<arg type="s" direction="in"/><arg type="(bba{ss})" direction="out"/></method></interface></node>'''

ANSWERS = {'yes': (True, False, {}), 'no': (False, False, {}), 'challenge': (False, True, {}),
           'dismissed': (False, True, {'polkit.dismissed': 'true'})}


class FakePolkit:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.rules_path = self.folder / 'polkit-rules'
        self.log_path = self.folder / 'polkit-log'
        self.log_path.touch()
        self.set([])
        self.processes = []

    def set(self, rules):
        whole = self.rules_path.with_suffix('.new')
        whole.write_text(json.dumps(rules))
        whole.rename(self.rules_path)

    def questions(self):
        return [json.loads(line) for line in self.log_path.read_text().splitlines()]

    def actions(self):
        """The last words of the actions that were asked about since the last call."""
        found = [question['action'].split('org.libvirt.api.')[-1] for question in self.questions()]
        self.log_path.write_text('')
        return found

    def start(self):
        config = self.folder / 'bus.conf'
        config.write_text(BUS.format(self.folder / 'bus'))
        address = self._run('dbus-daemon', f'--config-file={config}', '--nofork', '--print-address')
        os.environ['DBUS_SYSTEM_BUS_ADDRESS'] = address
        assert self._run(sys.executable, __file__, self.rules_path, self.log_path) == 'ready'

    def _run(self, *command):
        """Starts a program that says with its first line that it is ready."""
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process.stdout.readline().strip()

    def stop(self):
        while self.processes:
            process = self.processes.pop()
            process.terminate()
            process.wait()
            process.stdout.close()


@contextlib.contextmanager
def running(folder):
    """A bus and a polkit on it; the address of the bus is in DBUS_SYSTEM_BUS_ADDRESS meanwhile."""
    fake = FakePolkit(folder)
    before = os.environ.pop('DBUS_SYSTEM_BUS_ADDRESS', None)
    try:
        fake.start()
        yield fake
    finally:
        fake.stop()
        os.environ.pop('DBUS_SYSTEM_BUS_ADDRESS', None)
        if before is not None:
            os.environ['DBUS_SYSTEM_BUS_ADDRESS'] = before


def serve(rules_path, log_path):
    from gi.repository import Gio, GLib

    def answer(action, details):
        for pattern, wanted, word in json.loads(pathlib.Path(rules_path).read_text()):
            if fnmatch.fnmatch(action, pattern) and all(details.get(key) == value for key, value in wanted.items()):
                return word
        return 'no'

    def called(_connection, _sender, _path, _interface, _method, arguments, invocation):
        (kind, subject), action, details, flags, _ = arguments.unpack()
        with open(log_path, 'a', encoding='utf-8') as log:
            log.write(json.dumps({'kind': kind, 'subject': subject, 'action': action, 'details': details, 'flags': flags}) + '\n')
        word = answer(action, details)
        if word != 'never':
            invocation.return_value(GLib.Variant('((bba{ss}))', (ANSWERS[word],)))

    connection = Gio.bus_get_sync(Gio.BusType.SYSTEM)
    interface = Gio.DBusNodeInfo.new_for_xml(INTERFACE).interfaces[0]
    connection.register_object('/org/freedesktop/PolicyKit1/Authority', interface, called, None, None)
    Gio.bus_own_name_on_connection(connection, 'org.freedesktop.PolicyKit1', Gio.BusNameOwnerFlags.NONE,
                                   lambda *_: print('ready', flush=True), None)
    GLib.MainLoop().run()


if __name__ == '__main__':
    serve(*sys.argv[1:])
