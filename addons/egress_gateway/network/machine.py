"""What is to be known about this machine before anything is changed: its interfaces, their addresses, its users."""

from __future__ import annotations

import os
import pwd
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from pathlib import Path

from .terminal import Failure

_IPV6 = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
_RTM_GETADDR, _DONE, _ERROR = 22, 3, 2
_REQUEST, _DUMP = 0x1, 0x300
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_DEPRECATED, _TENTATIVE = 0x20, 0x40


@dataclass(frozen=True, slots=True)
class User:
    name: str
    uid: int
    gid: int
    home: str

    @property
    def groups(self) -> list[int]:
        return os.getgrouplist(self.name, self.gid)


def interfaces() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


def master_of(interface: str) -> str:
    """The bridge or bond that takes over what comes in by `interface`; empty where there is none."""
    device = Path("/sys/class/net", interface)
    try:
        # /sys may show another network namespace than the one we are in.
        if int((device / "ifindex").read_text()) != socket.if_nametoindex(interface):
            return ""
        if (device / "brport").exists() or (device / "bonding_slave").exists():
            return (device / "master").resolve().name
    except (OSError, ValueError):
        pass
    return ""


def ipv6_is_off() -> bool:
    try:
        return _IPV6.read_text(encoding="ascii").strip() == "1"
    except OSError:
        return True


def addresses(interface: str) -> list[IPv4Interface | IPv6Interface]:
    """Its addresses that are good beyond the link, in the kernel's order. None where there is no such interface."""
    try:
        index = socket.if_nametoindex(interface)
    except OSError:
        return []
    return [address for number, address in _all_addresses() if number == index and not address.is_link_local]


def _all_addresses() -> Iterator[tuple[int, IPv4Interface | IPv6Interface]]:
    """What RTM_GETADDR (rtnetlink(7)) tells: the number of an interface, and an address with its prefix."""
    request = struct.pack("=IHHIIBBBBI", 24, _RTM_GETADDR, _REQUEST | _DUMP, 1, 0, socket.AF_UNSPEC, 0, 0, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.sendto(request, (0, 0))
        while True:
            data = sock.recv(1 << 16)
            while data:
                size, kind = struct.unpack_from("=IH", data)
                if kind in (_DONE, _ERROR):
                    return
                found = _address(data[16:size])
                if found:
                    yield found
                data = data[_aligned(size) :]


def _address(message: bytes) -> tuple[int, IPv4Interface | IPv6Interface] | None:
    """None for one that the kernel does not choose by itself."""
    _, prefix, flags, _, index = struct.unpack_from("=BBBBI", message)
    attributes = {}
    rest = message[8:]
    while rest:
        size, kind = struct.unpack_from("=HH", rest)
        attributes[kind] = rest[4:size]
        rest = rest[_aligned(size) :]
    # An IPv4 address of a point-to-point link is told as the other end's, and the own one beside it.
    packed = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
    if packed is None or flags & (_DEPRECATED | _TENTATIVE):
        return None
    return index, ip_interface((packed, prefix))


def _aligned(size: int) -> int:
    return (size + 3) & ~3


def leaves_by(interface: str) -> bool:
    """Whether a default route, IPv4 or IPv6, goes out by `interface`."""
    # Where the interface, the destination and its prefix or mask stand in a line of the kernel's tables.
    for table, name, destination, mask in (("route", 0, 1, 7), ("ipv6_route", 9, 0, 1)):
        try:
            lines = Path("/proc/self/net", table).read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        routes = (line.split() for line in lines)
        if any(
            route[name] == interface and set(route[destination] + route[mask]) == {"0"}
            for route in routes
            if len(route) > mask
        ):
            return True
    return False


def ordinary_user(name: str) -> User:
    """Raises `Failure` when there is none of this name, or it is root."""
    try:
        found = pwd.getpwnam(name)
    except (KeyError, ValueError):
        create = f"create it: useradd --system --shell /usr/sbin/nologin {name}"
        raise Failure(f"there is no user {name!r} ({create})") from None
    if found.pw_uid == 0:
        raise Failure(f"the gateway runs as an ordinary user, and {name} is root (name another one with --user)")
    return User(found.pw_name, found.pw_uid, found.pw_gid, found.pw_dir)


def first_ordinary_port() -> int:
    """The lowest port that needs no privilege to listen on."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 1024
