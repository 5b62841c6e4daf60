"""The networks of the transparent play: each machine is a network namespace, joined to the next by a cable of its own.

      client 10.1.0.10 ──────── 10.1.0.1 gateway 192.0.2.1 ──────── internet ──────── 198.51.100.66 evil
                         inside                  outside     203.0.113.53, .10, …

The internet is where the demo itself is: its servers are threads of this process. The namespaces have no names in the
file system; descriptors hold them, so that they are gone with this process, however it ends. Inside and outside the
gateway starts as a router that forwards everything, and those outside know a way back: what the packet filter does
not stop does arrive.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

CLIENT, GATEWAY, OUTSIDE = "10.1.0.10", "10.1.0.1", "192.0.2.1"
BOOKS, UNTRUSTED, NAMES = "203.0.113.10", "203.0.113.11", "203.0.113.53"
EVIL, EVIL_V6 = "198.51.100.66", "2001:db8:66::66"
PUBLIC = "203.0.113.0/24,198.51.100.0/24,2001:db8:66::/64"
"""Documentation ranges stand in for the internet."""
IPV6 = Path("/proc/sys/net/ipv6").exists()

_SYSCTLS = {
    "ipv6/conf/all/disable_ipv6": 0,
    "ipv6/conf/default/disable_ipv6": 0,
    "ipv6/conf/default/accept_dad": 0,
    "ipv6/conf/default/accept_ra": 0,
    "ipv6/conf/default/router_solicitations": 0,
}
_ROUTER = {"ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1}
_HELD_BY_THIS_THREAD = "/proc/thread-self/ns/net"


@dataclass(frozen=True, slots=True)
class Machine:
    """`namespace` is a descriptor of its network namespace."""

    name: str
    namespace: int

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and what it starts meanwhile, is there; a socket stays where it was made."""
        before = os.open(_HELD_BY_THIS_THREAD, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.setns(self.namespace, os.CLONE_NEWNET)
            try:
                yield
            finally:
                os.setns(before, os.CLONE_NEWNET)
        finally:
            os.close(before)


class Networks:
    """Made in the namespace that this process is in, which becomes the internet. Raises OSError where it cannot be."""

    client: Machine
    gateway: Machine
    internet: Machine
    evil: Machine

    def __init__(self) -> None:
        self._held = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            held = os.open(_HELD_BY_THIS_THREAD, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, held)
            self.internet = Machine("internet", held)
            _set(_SYSCTLS | _ROUTER)
            self.client = _new("client", stack, _SYSCTLS)
            self.gateway = _new("gateway", stack, _SYSCTLS | _ROUTER)
            self.evil = _new("evil", stack, _SYSCTLS)
            self._connect()
            self._held = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def _connect(self) -> None:
        _cable(self.gateway, "inside", self.client, "eth0")
        _cable(self.internet, "gateway", self.gateway, "outside")
        _cable(self.internet, "evil", self.evil, "eth0")
        _ip(self.client, [*_up("eth0", f"{CLIENT}/24", "fd10:1::10/64"), *_default_via(GATEWAY, "fd10:1::1")])
        _ip(
            self.gateway,
            [
                *_up("inside", f"{GATEWAY}/24", "fd10:1::1/64"),
                *_up("outside", f"{OUTSIDE}/24", "2001:db8:2::1/64"),
                *_default_via("192.0.2.254", "2001:db8:2::254"),
            ],
        )
        _ip(
            self.internet,
            [
                *(f"addr add {address}/32 dev lo" for address in (BOOKS, UNTRUSTED, NAMES)),
                *_up("gateway", "192.0.2.254/24", "2001:db8:2::254/64"),
                *_up("evil", "198.51.100.254/24", "2001:db8:66::254/64"),
                f"route add 10.1.0.0/24 via {OUTSIDE}",
                "route add fd10:1::/64 via 2001:db8:2::1",
            ],
        )
        _ip(
            self.evil,
            [*_up("eth0", f"{EVIL}/24", f"{EVIL_V6}/64"), *_default_via("198.51.100.254", "2001:db8:66::254")],
        )
        for machine, address in ((self.client, GATEWAY), (self.gateway, "192.0.2.254"), (self.evil, "198.51.100.254")):
            _wait_for_neighbour(machine, address)


def missing_programs() -> list[str]:
    """What the transparent play needs of the system and does not find."""
    return [name for name in ("ip", "nft", "unshare", "mount") if shutil.which(name) is None]


def _new(name: str, stack: ExitStack, sysctls: dict[str, int]) -> Machine:
    """A thread makes the namespace and ends, so that this one stays where it is."""
    made: list[int | OSError] = []

    def make() -> None:
        try:
            os.unshare(os.CLONE_NEWNET)
            _set(sysctls)
            made.append(os.open(_HELD_BY_THIS_THREAD, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=make, name=f"makes {name}")
    thread.start()
    thread.join()
    (result,) = made
    if isinstance(result, OSError):
        raise result
    stack.callback(os.close, result)
    return Machine(name, result)


def _set(sysctls: dict[str, int]) -> None:
    for name, value in sysctls.items():
        path = Path("/proc/sys/net", name)
        if IPV6 or not name.startswith("ipv6/"):
            path.write_text(str(value), encoding="ascii")


def _cable(one: Machine, port: str, other: Machine, other_port: str) -> None:
    _ip(one, [f"link add {port} type veth peer name {other_port} netns /proc/self/fd/{other.namespace}"], other)


def _up(interface: str, *addresses: str) -> list[str]:
    return [
        "link set lo up",
        *(f"addr add {address} dev {interface}" for address in addresses),
        f"link set {interface} up",
    ]


def _default_via(*gateways: str) -> list[str]:
    return [f"route add default via {gateway}" for gateway in gateways]


def _ip(machine: Machine, lines: Iterable[str], other: Machine | None = None) -> None:
    """`ip -batch` there; lines about IPv6 are left out where the kernel has none."""
    text = "".join(f"{line}\n" for line in lines if IPV6 or "::" not in line)
    known = (other.namespace,) if other else ()
    with machine.entered():
        done = subprocess.run(
            ["ip", "-batch", "-"], input=text, capture_output=True, text=True, check=False, pass_fds=known
        )
    if done.returncode != 0:
        raise OSError(f"ip in {machine.name}: {' '.join(done.stderr.split())}")


def _wait_for_neighbour(machine: Machine, address: str, timeout: float = 15.0) -> None:
    """Until somebody at `address` says that nobody listens there: the kernel brings links up in its own time."""

    def answers() -> bool:
        with machine.entered():
            try:
                socket.create_connection((address, 9), timeout=0.5).close()
            except ConnectionRefusedError:
                return True
            except OSError:
                return False
        return True

    wait_until(answers, f"{machine.name} does not reach {address}", timeout)


def wait_until(holds: Callable[[], bool], otherwise: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > deadline:
            raise OSError(otherwise)
        time.sleep(0.01)
