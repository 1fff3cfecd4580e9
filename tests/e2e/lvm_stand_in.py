# SPDX-License-Identifier: LGPL-2.1-or-later
"""
LVM's commands for kernels without the device mapper: scripts that answer as LVM does, each volume a loop device of its
own. What they are called with is in a log. A command hangs for as long as a file `hang-NAME` is there.
"""
import os
import shutil
import subprocess

COMMANDS = ('pvs', 'vgs', 'lvs', 'vgchange', 'vgcreate', 'vgremove', 'pvcreate', 'pvremove', 'lvcreate', 'lvremove', 'lvchange')
MIB = 1 << 20

SCRIPT = r'''#!/bin/sh
state=@STATE@ group=@GROUP@ command=${0##*/}
echo "$command $*" >> "$state/log"
while [ -e "$state/hang-$command" ]; do sleep 0.02; done
rows() { cat "$state"/rows/* 2>/dev/null | paste -sd, -; }
case $command in
pvs) echo '{"report":[{"pv":[{"pv_name":"@DEVICE@","vg_name":"'$group'"}]}]}' ;;
vgs) used=$(cat "$state"/sizes/* /dev/null 2>/dev/null | awk '{sum += $1} END {print sum + 0}')
     echo '{"report":[{"vg":[{"vg_size":"268435456","vg_free":"'$((268435456 - used))'"}]}]}' ;;
lvs) echo '{"report":[{"lv":['"$(rows)"']}]}' ;;
lvcreate)
    origin= attributes=-wi-a-----
    while [ $# -gt 0 ]; do
        case $1 in
        --name) name=$2; shift ;;
        -L) size=${2%K}; shift ;;
        --virtualsize) virtual=${2%K}; attributes=swi-a-s---; shift ;;
        -s) origin=${2##*/}; attributes=swi-a-s---; shift ;;
        esac
        shift
    done
    [ -e "$state/sizes/$name" ] && { echo "  Logical Volume \"$name\" already exists" >&2; exit 5; }
    truncate -s "${virtual:-$size}K" "$state/$name.disk"
    loop=$(losetup --find --show "$state/$name.disk") || exit 5
    echo "$loop" > "$state/$name.loop"
    mkdir -p "/dev/$group" && ln -s "$loop" "/dev/$group/$name"
    echo $((size * 1024)) > "$state/sizes/$name"
    echo '{"lv_name":"'$name'","origin":"'$origin'","lv_uuid":"uuid-of-'$name'","devices":"@DEVICE@(1)","segtype":"linear",'\
'"stripes":"1","seg_size":"'$((size * 1024))'","vg_extent_size":"4194304","lv_size":"'$((size * 1024))'","lv_attr":"'$attributes'"}' \
        > "$state/rows/$name" ;;
lvremove)
    name=${2##*/}
    [ -e "$state/$name.loop" ] || { echo "  Failed to find logical volume \"$group/$name\"" >&2; exit 5; }
    losetup --detach "$(cat "$state/$name.loop")" && rm "/dev/$group/$name" "$state/$name.loop" "$state/$name.disk" \
        "$state/sizes/$name" "$state/rows/$name" ;;
esac
'''


class Lvm:
    """A volume group of 256 MiB; the daemon finds the commands by the path in `environment`."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder / 'lvm'
        self.group = f'ashlar_test_{os.getpid()}'
        self.device = '/dev/ram0'
        for part in ('bin', 'rows', 'sizes'):
            (self.folder / part).mkdir(parents=True)
        text = SCRIPT
        for word, value in (('STATE', self.folder), ('GROUP', self.group), ('DEVICE', self.device)):
            text = text.replace(f'@{word}@', str(value))
        for name in COMMANDS:
            path = self.folder / 'bin' / name
            path.write_text(text)
            path.chmod(0o755)
        monkeypatch.setenv('PATH', f"{self.folder / 'bin'}:{os.environ['PATH']}")

    def add_row(self, name, attributes, size=8 * MIB, devices=''):
        """What LVM would say of a volume that the stand-in does not make."""
        (self.folder / 'rows' / name).write_text(
            f'{{"lv_name":"{name}","origin":"","lv_uuid":"uuid-of-{name}","devices":"{devices}","segtype":"thin",'
            f'"stripes":"1","seg_size":"{size}","vg_extent_size":"4194304","lv_size":"{size}","lv_attr":"{attributes}"}}\n')

    def hang(self, command):
        path = self.folder / f'hang-{command}'
        path.touch()
        return path

    def calls(self, command):
        path = self.folder / 'log'
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split()[1:] for line in lines if line.split()[0] == command]

    def pool_xml(self, name='group'):
        return (f"<pool type='logical'><name>{name}</name><source><name>{self.group}</name></source></pool>")

    def close(self):
        for path in self.folder.glob('hang-*'):
            path.unlink()
        for path in self.folder.glob('*.loop'):
            subprocess.run(['losetup', '--detach', path.read_text().strip()], check=False)
        shutil.rmtree(f'/dev/{self.group}', ignore_errors=True)
