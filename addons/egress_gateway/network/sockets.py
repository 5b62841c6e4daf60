"""Who listens on which port of this network namespace, as the kernel tells it in /proc/self/net."""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

_LISTEN, _UDP_UNCONNECTED = 0x0A, 0x07
_STATES = {"tcp": _LISTEN, "udp": _UDP_UNCONNECTED}


@dataclass(frozen=True, slots=True)
class Listener:
    address: IPv4Address | IPv6Address
    port: int
    uid: int
    inode: int

    @property
    def user(self) -> str:
        return user_name(self.uid)

    @property
    def arguments(self) -> list[str]:
        """What its process was started with; nothing when that cannot be told."""
        pid = self._pid()
        return _arguments(pid) if pid else []

    def __str__(self) -> str:
        """Who that is, as well as it can be told: `nginx (pid 4711, user www-data)`."""
        pid = self._pid()
        return f"{_command(pid)} (pid {pid}, user {self.user})" if pid else f"a process of user {self.user}"

    def _pid(self) -> int | None:
        return next((pid for pid in _pids() if _holds(pid, self.inode)), None)


def listeners(transport: str, port: int | None = None) -> list[Listener]:
    """Sockets that wait for clients, over `tcp` or `udp`, IPv4 and IPv6; on one port, or on all."""
    found = (entry for table in (transport, f"{transport}6") for entry in _read(table, _STATES[transport]))
    return [listener for listener in found if port in (None, listener.port)]


def served_ports() -> frozenset[int]:
    """TCP ports that somebody else than this host itself can connect to."""
    return frozenset(listener.port for listener in listeners("tcp") if not listener.address.is_loopback)


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _read(table: str, state: int) -> Iterator[Listener]:
    try:
        lines = Path("/proc/self/net", table).read_text(encoding="ascii").splitlines()[1:]
    except OSError:  # IPv6 is not there
        return
    for line in lines:
        _, local, _, shown, _, _, _, uid, _, inode, *_ = line.split()
        if int(shown, 16) == state:
            address, _, port = local.partition(":")
            yield Listener(_address(address), int(port, 16), int(uid), int(inode))


def _address(text: str) -> IPv4Address | IPv6Address:
    """The kernel writes each 32 bits as a number, in this machine's order of bytes."""
    words = (int(text[at : at + 8], 16) for at in range(0, len(text), 8))
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _holds(pid: int, inode: int) -> bool:
    directory = f"/proc/{pid}/fd"
    try:
        return any(_link(f"{directory}/{name}") == f"socket:[{inode}]" for name in os.listdir(directory))
    except OSError:
        return False


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "a process"


def _arguments(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
    except OSError:
        return []
