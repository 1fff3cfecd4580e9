# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs ashlar-img and the system's qemu-img side by side, each in a folder of its own with the same files."""
import json
import os
import pathlib
import re
import subprocess

from harness import PATIENCE_S, program


class Result:
    def __init__(self, done):
        self.status = done.returncode
        self.stdout = done.stdout.decode()
        self.stderr = done.stderr.decode()

    def json(self):
        return json.loads(self.stdout)


def normalised(text):
    """What must differ: the program's name, and how its commands explain themselves."""
    text = re.sub(r'^ashlar-img', 'qemu-img', text, flags=re.MULTILINE)
    return re.sub(r"Try '(qemu|ashlar)-img( \w+)? --help'", "Try 'qemu-img --help'", text)


class Pair:
    def __init__(self, tmp_path):
        self.ours = pathlib.Path(tmp_path) / 'ours'
        self.theirs = pathlib.Path(tmp_path) / 'theirs'
        self.ours.mkdir()
        self.theirs.mkdir()

    def folders(self):
        return self.ours, self.theirs

    @staticmethod
    def run_in(folder, command):
        environment = dict(os.environ, LC_ALL='C', TZ='UTC')
        return Result(subprocess.run([str(word) for word in command], cwd=folder, env=environment, check=False,
                                     stdin=subprocess.DEVNULL, capture_output=True,
                                     timeout=5 * PATIENCE_S))

    def ashlar(self, *arguments):
        return self.run_in(self.ours, [program('ashlar-img'), *arguments])

    def qemu(self, *arguments):
        return self.run_in(self.theirs, ['qemu-img', *arguments])

    def prepare(self, *command):
        """The same command in both folders, which must succeed."""
        for folder in self.folders():
            done = self.run_in(folder, command)
            assert done.status == 0, f'{command}: {done.stderr}'

    def write(self, name, data=b'', size=None, at=0):
        """The same file in both folders: `data` at `at`, `size` bytes long."""
        for folder in self.folders():
            path = folder / name
            path.touch()
            with open(path, 'r+b') as file:
                file.seek(at)
                file.write(data)
                if size is not None:
                    file.truncate(size)

    def same(self, *arguments, status=None, stderr=True, edit=lambda text: text):
        """Both must end, print and (unless not wanted) complain the same; `edit` takes away what may differ."""
        ours, theirs = self.ashlar(*arguments), self.qemu(*arguments)
        assert ours.status == theirs.status, f'{arguments}: {ours.stderr} {theirs.stderr}'
        assert edit(normalised(ours.stdout)) == edit(theirs.stdout), arguments
        if stderr:
            assert edit(normalised(ours.stderr)) == edit(normalised(theirs.stderr)), arguments
        if status is not None:
            assert ours.status == status, f'{arguments}: {ours.stderr}'
        return ours

    def same_json(self, *arguments, status=0, edit=lambda value: value):
        """As same(), for output that is JSON: members in any order."""
        ours, theirs = self.ashlar(*arguments), self.qemu(*arguments)
        assert (ours.status, theirs.status) == (status, status), f'{arguments}: {ours.stderr} {theirs.stderr}'
        assert edit(ours.json()) == edit(theirs.json()), arguments
        return ours.json()

    def same_content(self, name):
        """Both have written the same bytes to the file `name`."""
        assert (self.ours / name).read_bytes() == (self.theirs / name).read_bytes(), name
