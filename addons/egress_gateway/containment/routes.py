"""The default route of this machine, from the kernel's tables in /proc."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from .attempt.family import Family

_GATEWAY = 0x0002  # RTF_GATEWAY
# Of the network that this thread is in.
_PROC = Path("/proc/thread-self/net")


def default_router(family: Family, proc: Path = _PROC) -> str | None:
    """Its address, with a zone if it is link-local (`fe80::1%eth0`); None if there is no such route."""
    try:
        if family is Family.V4:
            return _ipv4((proc / "route").read_text())
        return _ipv6((proc / "ipv6_route").read_text())
    except OSError:
        return None


def _ipv4(table: str) -> str | None:
    # Iface Destination Gateway Flags RefCnt Use Metric Mask ...: numbers of this machine's byte order, in hex.
    found = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and int(fields[1], 16) == int(fields[7], 16) == 0 and int(fields[3], 16) & _GATEWAY:
            address = socket.inet_ntop(socket.AF_INET, struct.pack("=I", int(fields[2], 16)))
            found.append((int(fields[6]), address))
    return min(found)[1] if found else None


def _ipv6(table: str) -> str | None:
    # Destination length source length next-hop metric references use flags interface, all hex but the last.
    found = []
    for line in table.splitlines():
        fields = line.split()
        if len(fields) > 9 and int(fields[0], 16) == int(fields[1], 16) == 0 and int(fields[8], 16) & _GATEWAY:
            address = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(fields[4]))
            zone = f"%{fields[9]}" if address.startswith("fe80:") else ""
            found.append((int(fields[5], 16), address + zone))
    return min(found)[1] if found else None
