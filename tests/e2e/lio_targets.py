# SPDX-License-Identifier: LGPL-2.1-or-later
"""The other side of SCSI in a machine of pool_guest.py: the kernel's own target, over iSCSI or as a local host, by its configfs."""
import contextlib

CORE = '/sys/kernel/config/target/core/fileio_0'
MIB = 1 << 20


class _Target:
    """Units are files in /tmp; `group` is the folder of configfs that has them."""

    def __init__(self, guest, name, folder, tag):
        self.guest = guest
        self.name = name
        self.folder = folder
        self.group = f'{folder}/{name}/tpgt_{tag}'
        self.units = {}
        guest.do('modprobe target_core_mod; [ -e /sys/kernel/config/target ] || mount -t configfs config /sys/kernel/config')
        guest.do(f'mkdir -p {self.group}')

    def add_unit(self, number, mib, serial=None):
        """The file that is the unit."""
        store = f'{self.name.replace(":", "-")}-{number}'
        path = f'/tmp/{store}'
        self.guest.do(f'truncate -s {mib}M {path} && mkdir -p {CORE}/{store}')
        self.guest.do(f'echo fd_dev_name={path},fd_dev_size={mib * MIB} >{CORE}/{store}/control')
        self.guest.do(f'echo {serial or store} >{CORE}/{store}/wwn/vpd_unit_serial && echo 1 >{CORE}/{store}/enable')
        self.guest.do(f'mkdir {self.group}/lun/lun_{number} && ln -s {CORE}/{store} {self.group}/lun/lun_{number}/unit')
        self.units[number] = store
        return path

    def remove_unit(self, number):
        store = self.units.pop(number)
        self.guest.do(f'rm {self.group}/lun/lun_{number}/unit && rmdir {self.group}/lun/lun_{number} {CORE}/{store} && rm /tmp/{store}')

    def remove(self):
        for number in list(self.units):
            self.remove_unit(number)
        self.guest.do(f'rmdir {self.group} {self.folder}/{self.name}')

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        # What a failed test still holds cannot be removed, which is not what is wrong.
        with contextlib.suppress(AssertionError) if kind else contextlib.nullcontext():
            self.remove()


class IscsiTarget(_Target):
    """Everybody may log in at 127.0.0.1, until somebody is named."""

    def __init__(self, guest, name, tag=1, ports=(3260,)):
        super().__init__(guest, name, '/sys/kernel/config/target/iscsi', tag)
        self.ports = ports
        self.initiators = []
        for attribute, value in ('authentication', 0), ('generate_node_acls', 1), ('cache_dynamic_acls', 1), ('demo_mode_write_protect', 0):
            self.set(attribute, value)
        for port in ports:
            guest.do(f'mkdir {self.group}/np/127.0.0.1:{port}')
        guest.do(f'echo 1 >{self.group}/enable')

    def set(self, attribute, value):
        self.guest.do(f'echo {value} >{self.group}/attrib/{attribute}')

    def ask_for_password(self, user, password):
        self.guest.do(f"printf %s {user} >{self.group}/auth/userid && printf %s '{password}' >{self.group}/auth/password")
        self.set('authentication', 1)

    def admit_only(self, initiator):
        """Others do not even hear of it."""
        self.set('generate_node_acls', 0)
        self.set('demo_mode_discovery', 0)
        self.guest.do(f'mkdir {self.group}/acls/{initiator}')
        for number in self.units:
            self.guest.do(f'mkdir {self.group}/acls/{initiator}/lun_{number}')
            self.guest.do(f'ln -s {self.group}/lun/lun_{number} {self.group}/acls/{initiator}/lun_{number}/unit')
        self.initiators.append(initiator)

    def remove(self):
        self.guest.do(f'echo 0 >{self.group}/enable')
        for initiator in self.initiators:
            acl = f'{self.group}/acls/{initiator}'
            self.guest.do(f'rm {acl}/lun_*/unit; rmdir {acl}/lun_* {acl}')
        for port in self.ports:
            self.guest.do(f'rmdir {self.group}/np/127.0.0.1:{port}')
        super().remove()


class LocalTarget(_Target):
    """A host of this machine of its own, whose units are those of one target."""

    def __init__(self, guest, name, tag=1):
        guest.do('modprobe tcm_loop')
        super().__init__(guest, name, '/sys/kernel/config/target/loopback', tag)
        guest.do(f'echo naa.6001405fffffffff >{self.group}/nexus')

    def host(self):
        """Its name, 'host3'."""
        return 'host' + self.guest.do(f'cat {self.group}/address').split(':')[0]

    def remove(self):
        for number in list(self.units):
            self.remove_unit(number)
        self.guest.do(f'echo NULL >{self.group}/nexus')
        super().remove()
