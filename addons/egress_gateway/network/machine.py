"""What is to be known about this machine before anything is changed: its interfaces, their addresses, its users."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from .terminal import Failure

_FORWARDING = (Path("/proc/sys/net/ipv4/ip_forward"), Path("/proc/sys/net/ipv6/conf/all/forwarding"))
_IPV6 = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
_SIOCGIFADDR = 0x8915
_LINK_LOCAL_SCOPE = 0x20
_RESOLV_CONF = Path("/etc/resolv.conf")


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


def has_ipv4(interface: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            fcntl.ioctl(sock, _SIOCGIFADDR, struct.pack("16s16x", os.fsencode(interface)))
        except OSError:
            return False
    return True


def has_ipv6(interface: str) -> bool:
    """Whether it has an IPv6 address that is good beyond the link."""
    try:
        lines = Path("/proc/self/net/if_inet6").read_text(encoding="ascii").splitlines()
    except OSError:
        return False
    fields = (line.split() for line in lines)
    return any(name == interface and int(scope, 16) != _LINK_LOCAL_SCOPE for _, _, _, scope, _, name in fields)


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


def forwards() -> bool:
    """Whether the kernel passes packets on from one network to another."""
    for switch in _FORWARDING:
        try:
            if switch.read_text(encoding="ascii").strip() == "1":
                return True
        except OSError:
            continue
    return False


def own_name_servers() -> list[IPv4Address | IPv6Address]:
    """Those of the system's name servers that are this machine itself, such as the 127.0.0.53 of systemd-resolved."""
    try:
        lines = _RESOLV_CONF.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    words = (line.split() for line in lines if line.startswith("nameserver"))
    found = []
    for _, text, *_ in (each for each in words if len(each) > 1):
        with contextlib.suppress(ValueError):  # the resolver skips the line too
            address = ip_address(text)
            if address.is_loopback or _is_own(address):
                found.append(address)
    return found


def _is_own(address: IPv4Address | IPv6Address) -> bool:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((str(address), 0))
    except OSError:
        return False
    return True


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
