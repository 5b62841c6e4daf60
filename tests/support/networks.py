"""Two networks and a gateway between them, each machine a network namespace of its own.

       inside, 10.66.0.0/24, fd66::/64            outside, 203.0.113.0/24, 2001:db8::/64
    client ────────┐                                   ┌──────── names   the internet's DNS server
    second_client ─┴─ "inside"  gateway  "outside" ────┼──────── web     the true hosts
                                                       └──────── evil    and all the rest of the world

    with TwoNetworks() as lab, lab.evil.wire() as wire:
        with lab.web.entered():                      # a socket stays in the namespace that it was made in,
            server = stack.enter_context(HttpOrigin(lab.web.ipv4, 80))  # so support's servers work as ever
        with lab.client.connect(lab.web.ipv4, 80) as sock:
            ...
        assert not wire.packets

Only the thread that enters a namespace is in it, and what it starts there: sockets, threads, processes. The
gateway is a router that forwards everything, so what a packet filter does not hold back does arrive; those
outside have a way back, so it is answered too. `web` also has `WEB_MORE_V4`, `MANY_V4` and `MANY_V6`, with
room for a CDN of any size. Every other address in the world is `evil`: what leaks is seen there.

Nothing has a name in the file system: the namespaces are held by descriptors, and gone when these are closed.
"""

import contextlib
import functools
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from support.waiting import PATIENCE, eventually
from support.wire import Wire

WEB_MORE_V4 = "203.0.113.16/28"
MANY_V4 = "198.18.0.0/16"
MANY_V6 = "2001:db8:1::/64"
PUBLIC_RANGES = f"203.0.113.0/24,2001:db8::/32,{MANY_V4}"

_INSIDE_V4, _INSIDE_V6 = "10.66.0.0/24", "fd66::/64"
_HELD_BY_THIS_THREAD = "/proc/thread-self/ns/net"

# Before any interface is made, so that all inherit it. No test waits for duplicate address detection.
_SYSCTLS = {
    "net/ipv4/conf/all/rp_filter": 2,
    "net/ipv4/conf/default/rp_filter": 2,
    "net/ipv6/conf/all/disable_ipv6": 0,
    "net/ipv6/conf/default/disable_ipv6": 0,
    "net/ipv6/conf/default/accept_dad": 0,
    "net/ipv6/conf/default/accept_ra": 0,
    "net/ipv6/conf/default/router_solicitations": 0,
}
_ROUTER = {"net/ipv4/ip_forward": 1, "net/ipv6/conf/all/forwarding": 1}
_SWITCH = {"net/ipv6/conf/default/disable_ipv6": 1}


class Unavailable(Exception):
    """This system gives no network namespaces; the text says why."""


@dataclass(frozen=True, slots=True)
class Host:
    """One machine. `namespace` is a descriptor of its network namespace."""

    name: str
    ipv4: str
    ipv6: str
    namespace: int

    @contextlib.contextmanager
    def entered(self) -> Iterator[Self]:
        """This thread is there meanwhile, and afterwards again where it was before."""
        before = os.open(_HELD_BY_THIS_THREAD, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.setns(self.namespace, os.CLONE_NEWNET)
            try:
                yield self
            finally:
                os.setns(before, os.CLONE_NEWNET)
        finally:
            os.close(before)

    def run(
        self, *command: str | Path, check: bool = True, timeout: float = 30, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a program there; `more` is what `subprocess.run` takes."""
        defaults: dict[str, Any] = {"capture_output": True, "text": True}
        with self.entered():
            done = subprocess.run([*map(str, command)], check=False, timeout=timeout, **(defaults | more))
        if check and done.returncode != 0:
            raise AssertionError(f"{self.name}: {done.args} ended with {done.returncode}:\n{done.stderr}{done.stdout}")
        return done

    def connect(self, address: str, port: int, timeout: float = PATIENCE) -> socket.socket:
        """A TCP connection from there."""
        with self.entered():
            sock = socket.create_connection((address, port), timeout=timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def wire(self, interface: str = "eth0", dns_ports: Iterable[int] = (53,)) -> Wire:
        """A recorder of what comes to this machine and leaves it on `interface`; not started."""
        with self.entered():
            return Wire(dns_ports, interface=interface)

    def processes(self) -> list[int]:
        """Those that run there, apart from this one."""
        here = os.fstat(self.namespace).st_ino
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _inode(pid) == here]


class TwoNetworks:
    """Made in `__enter__` (or `start()`), gone after `close()`, which complains of processes left behind."""

    client: Host
    second_client: Host
    gateway: Host
    names: Host
    web: Host
    evil: Host

    def __init__(self) -> None:
        self._held = contextlib.ExitStack()

    @property
    def hosts(self) -> tuple[Host, ...]:
        return self.client, self.second_client, self.gateway, self.names, self.web, self.evil

    def start(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._switch = self._new("switch", "", "", stack, _SWITCH)
            self.gateway = self._new("gateway", "10.66.0.1", "fd66::1", stack, _ROUTER)
            self.client = self._new("client", "10.66.0.2", "fd66::2", stack)
            self.second_client = self._new("second_client", "10.66.0.3", "fd66::3", stack)
            self.names = self._new("names", "203.0.113.53", "2001:db8::53", stack)
            self.web = self._new("web", "203.0.113.10", "2001:db8::10", stack)
            self.evil = self._new("evil", "203.0.113.66", "2001:db8::66", stack)
            self._connect()
            self._settle()
            self._held = stack.pop_all()
        return self

    def close(self) -> None:
        left = {host.name: pids for host in self.hosts if (pids := host.processes())}
        self._held.close()
        assert not left, f"processes were left behind in the networks: {left}"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _new(
        self, name: str, ipv4: str, ipv6: str, stack: contextlib.ExitStack, sysctls: dict[str, int] | None = None
    ) -> Host:
        namespace = _new_namespace(_SYSCTLS | (sysctls or {}))
        stack.callback(os.close, namespace)
        return Host(name, ipv4, ipv6, namespace)

    def _connect(self) -> None:
        """One switch for each network. Its ends of the cables bear the names of the machines."""
        inside, outside = (self.client, self.second_client), (self.names, self.web, self.evil)
        cables = [
            ("gw-inside", self.gateway, "inside", "inside"),
            ("gw-outside", self.gateway, "outside", "outside"),
            *((host.name, host, "eth0", "inside") for host in inside),
            *((host.name, host, "eth0", "outside") for host in outside),
        ]
        lines = []
        for network in ("inside", "outside"):
            lines += [f"link add name {network} type bridge mcast_snooping 0", f"link set dev {network} up"]
        for port, host, interface, network in cables:
            lines.append(f"link add name {port} type veth peer name {interface} netns /proc/self/fd/{host.namespace}")
            lines.append(f"link set dev {port} master {network} up")
        _ip(self._switch, lines, [host.namespace for host in self.hosts])

        _ip(
            self.gateway,
            [
                *_interface("inside", f"{self.gateway.ipv4}/24", f"{self.gateway.ipv6}/64"),
                *_interface("outside", "203.0.113.1/24", "2001:db8::1/64"),
                f"route add {MANY_V4} via {self.web.ipv4}",
                f"route add {MANY_V6} via {self.web.ipv6}",
                f"route add default via {self.evil.ipv4}",
                f"route add default via {self.evil.ipv6}",
            ],
        )
        for host in inside:
            _ip(
                host,
                [
                    *_interface("eth0", f"{host.ipv4}/24", f"{host.ipv6}/64"),
                    f"route add default via {self.gateway.ipv4}",
                    f"route add default via {self.gateway.ipv6}",
                ],
            )
        every_address = {self.web: [WEB_MORE_V4, MANY_V4, MANY_V6], self.evil: ["0.0.0.0/0", "::/0"]}
        for host in outside:
            _ip(
                host,
                [
                    *_interface("eth0", f"{host.ipv4}/24", f"{host.ipv6}/64"),
                    f"route add {_INSIDE_V4} via 203.0.113.1",
                    f"route add {_INSIDE_V6} via 2001:db8::1",
                    *(f"route add local {block} dev lo table main" for block in every_address.get(host, ())),
                ],
            )

    def _settle(self) -> None:
        """Until each machine reaches its neighbour: the kernel brings links up on a thread of its own."""
        router_outside = ("203.0.113.1", "2001:db8::1")
        pairs: list[tuple[Host, tuple[str, str]]] = [(self.gateway, (self.web.ipv4, self.web.ipv6))]
        pairs += [(host, (self.gateway.ipv4, self.gateway.ipv6)) for host in (self.client, self.second_client)]
        pairs += [(host, router_outside) for host in (self.names, self.web, self.evil)]
        for host, addresses in pairs:
            for address in addresses:
                reached = functools.partial(_reached, host, address)
                eventually(reached, f"{host.name} to reach {address}", every=0.005)


def reason_against() -> str:
    """Why there can be no such networks here; empty when there can."""
    missing = [name for name in ("ip", "nft") if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    try:
        os.close(_new_namespace(_SYSCTLS))
    except (OSError, Unavailable) as error:
        return f"no network namespaces, which need root: {error}"
    return ""


def _new_namespace(sysctls: dict[str, int]) -> int:
    """A descriptor of a new network namespace. A thread makes it and ends, so this one stays where it is."""
    made: list[int | Exception] = []

    def make() -> None:
        try:
            os.unshare(os.CLONE_NEWNET)
            for name, value in sysctls.items():
                Path("/proc/sys", name).write_text(str(value), encoding="ascii")
            made.append(os.open(_HELD_BY_THIS_THREAD, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=make, name="makes a network namespace")
    thread.start()
    thread.join()
    (result,) = made
    if isinstance(result, Exception):
        raise Unavailable(str(result)) from result
    return result


def _interface(name: str, *addresses: str) -> list[str]:
    return [
        "link set dev lo up",
        *(f"addr add {address} dev {name}{' nodad' if ':' in address else ''}" for address in addresses),
        f"link set dev {name} up",
    ]


def _ip(host: Host, lines: Iterable[str], namespaces: Iterable[int] = ()) -> None:
    """`ip -batch`; descriptors of `namespaces` may be named in it."""
    host.run("ip", "-batch", "-", input="\n".join(lines) + "\n", pass_fds=tuple(namespaces))


def _reached(host: Host, address: str) -> bool:
    """Whether somebody is at `address`, if only to say that nothing listens there."""
    try:
        host.connect(address, 9, timeout=1).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True


def _inode(pid: int) -> int:
    """The number of a process's network namespace; 0 when it is gone, or this very process."""
    if pid == os.getpid():
        return 0
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return 0
