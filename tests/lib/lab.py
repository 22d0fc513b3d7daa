# SPDX-License-Identifier: BSD-3-Clause
"""One vifd with a wire and guests.

    guest web  10.88.0.2, fd88::2 ── vhost-user ──┐
    guest db   10.88.0.3, fd88::3 ── vhost-user ──┼── br0 ── uplink ── wire0, namespace wire  10.88.0.1, fd88::1
    ...                                         ──┘

    uplink tap                  vifd ── TAP wire0, which vifd makes in the wire's namespace
    uplink af_packet, af_xdp    vifd ── nic0, in a namespace of its own ══ veth ══ wire0

    with Lab(folder) as lab:
        web = lab.guest("web")
        web.ping(lab.address["wire"])

Guests take their addresses in the order in which they are added. Standard library only: the demo uses this file too.
"""
import itertools
from contextlib import ExitStack

from lib.guest import Guest
from lib.vifd import Netns, Vifd

_serial = itertools.count()

# Name -> the option of `uplink add`.
UPLINKS = {"tap": "tap", "af_packet": "af-packet", "af_xdp": "af-xdp"}


class Lab:
    """vifd runs and the wire has its addresses when the constructor returns; stop() or with end everything.

    uplink          one of UPLINKS
    uplink_options  more options of `uplink add`, such as "offload=none"
    mtu             of the uplink and of what guests are offered
    persistent      the TAP exists before vifd and outlives it
    settings        vifd commands that come first, such as "set workers=2"
    say             called with a line of text at each step
    """

    def __init__(self, folder, *, uplink="tap", uplink_options="", mtu=None, persistent=False, settings=(),
                 say=lambda text: None):
        self.folder, self.mtu, self.say = folder, mtu, say
        self.address, self.address6 = {}, {}
        self.guests = {}
        self._stack = ExitStack()
        try:
            self._start(uplink, uplink_options, persistent, settings)
        except BaseException:
            self.stop()
            raise

    def _start(self, uplink, uplink_options, persistent, settings):
        self.wire = self._stack.enter_context(Netns(self.folder, f"lab{next(_serial)}"))
        self.wire.name = "wire"
        self.say(f"a wire: network namespace {self.wire.netns}")
        if uplink == "tap":
            interface, netns = "wire0", self.wire.netns
            if persistent:
                self.wire.run("ip tuntap add wire0 mode tap vnet_hdr; ip link set wire0 up")
        else:
            interface, netns = "nic0", self._veth()
        mtu = f"mtu={self.mtu}" if self.mtu else ""
        add = f"uplink add wire {UPLINKS[uplink]}={interface} netns={netns} {mtu} {uplink_options} bridge=br0"
        commands = [*settings, "bridge add br0", " ".join(add.split())]
        for command in commands:
            self.say(f"vifd, told: {command}")
        self.vifd = Vifd(self.folder, *commands)
        self._stack.enter_context(self.vifd)
        self._number("wire")
        self.wire.address("wire0", f"{self.address['wire']}/24", f"{self.address6['wire']}/64")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self._stack.close()

    def start_guest(self, name, *, listen=False, options="", **guest):
        """Add a guest to vifd and start it, without waiting for it. options are of `guest add`; listen makes QEMU the
        listening side, guest is for lib.guest.Guest."""
        path = f"{self.folder}/{name}.sock"
        index = self._number(name)
        if self.mtu:
            options += f" mtu={self.mtu}"
        if guest.get("queues", 1) > 1:
            options += f" queues={guest['queues']}"
        command = f"guest add {name} vhost-user={path} {'client ' if listen else ''}{options} bridge=br0"
        command = " ".join(command.split())
        self.say(f"vifd, told: {command}")
        self.vifd.ctl(command)
        self.vifd.commands.append(command) # for restart_vifd()
        self.guests[name] = Guest(name, path, self.folder, mac=f"52:54:00:88:00:{index:02x}", listen=listen, **guest)
        self._stack.callback(self.guests[name].stop)
        return self.guests[name]

    def finish_guest(self, name):
        """Wait for a guest and give it its addresses."""
        guest = self.guests[name].wait()
        guest.address(f"{self.address[name]}/24", f"{self.address6[name]}/64")
        self.say(f"{name} is up, {self.address[name]}")
        return guest

    def guest(self, name, **options):
        self.start_guest(name, **options)
        return self.finish_guest(name)

    def remove_guest(self, name):
        self.guests.pop(name).stop()
        self.vifd.ctl(f"guest del {name}")
        self.vifd.commands = [command for command in self.vifd.commands if not command.startswith(f"guest add {name} ")]

    def restart_vifd(self):
        """kill -9, and at once a new vifd with the same ports; the guests are not touched."""
        self.vifd.kill()
        self.vifd.start()

    def show_guest(self, name):
        return next(row for row in self.vifd.ctl("show guests") if row["name"] == name)

    def _veth(self):
        """A veth pair: wire0 for the wire, and nic0, vifd's, in a namespace that is returned."""
        nic = self._stack.enter_context(Netns(self.folder, f"nic{next(_serial)}"))
        self.say(f"a veth pair: wire0 there, nic0 in {nic.netns}")
        mtu = f"mtu {self.mtu}" if self.mtu else ""
        self.wire.run(f"ip link add wire0 {mtu} type veth peer name nic0 {mtu} netns {nic.netns}")
        nic.run("ip link set nic0 addrgenmode none; ip link set nic0 up") # its kernel has nothing to say there
        return nic.netns

    def _number(self, name):
        index = len(self.address) + 1
        self.address[name], self.address6[name] = f"10.88.0.{index}", f"fd88::{index:x}"
        return index
