"""First packets of protocols that lie on IP itself, in which a router that tracks connections finds no fault.

Linux, which looks for a checksum over the whole even where there is none, answers others with an ICMP error only if the
sum happens to be right; so it is.
"""

from __future__ import annotations

import os
import struct

from .icmp import checksum

IPV6_IN_IP, GRE, ESP, DESTINATION_OPTIONS, SCTP = 41, 47, 50, 60, 132

_DOCUMENTATION = bytes.fromhex("20010db8")
_CRC32C = 0x82F63B78  # the reversed polynomial of Castagnoli


def packet(protocol: int) -> bytes:
    if protocol == IPV6_IN_IP:
        return _ipv6_without_payload()
    if protocol == GRE:
        # Version 0 with a checksum, carries IPv4 (RFC 2784).
        return struct.pack("!HHHH", 0x8000, 0x0800, checksum(struct.pack("!HH", 0x8000, 0x0800)), 0)
    if protocol == ESP:
        return struct.pack("!II", 0x10000, 1) + os.urandom(32)  # SPI, sequence number, something encrypted
    if protocol == SCTP:
        return sctp_init()
    raise ValueError(f"nothing is known to be said over protocol {protocol}")


def cut_short() -> bytes:
    """Destination options of IPv6 (RFC 8200, 4.6) that say that more of the kind follow, and then nothing does."""
    return struct.pack("!BBBB", DESTINATION_OPTIONS, 0, 1, 4) + bytes(4)


def sctp_init() -> bytes:
    """The first packet of an association (RFC 9260, 3.3.2) to port 9899, which carries SCTP for those who cannot."""
    chunk = struct.pack("!BBHIIHHI", 1, 0, 20, int.from_bytes(os.urandom(4), "big") | 1, 65536, 1, 1, 1)
    ports = struct.pack("!HHI", 49152, 9899, 0)
    return ports + struct.pack("<I", crc32c(ports + bytes(4) + chunk)) + chunk


def crc32c(data: bytes) -> int:
    """RFC 9260, appendix A."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CRC32C if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _ipv6_without_payload() -> bytes:
    # From and to the documentation prefix, next header 59: nothing follows (RFC 8200, 4.7).
    start = struct.pack("!IHBB", 6 << 28, 0, 59, 64) + _DOCUMENTATION + bytes(11) + b"\1" + _DOCUMENTATION + bytes(10)
    return start + struct.pack("!H", checksum(start))
