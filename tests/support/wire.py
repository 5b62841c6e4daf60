"""What was really sent: every packet on an interface, the private network's `lo` unless told, as the kernel saw it.

    with Wire() as wire:
        ...
        assert wire.syns_to("203.0.113.10", 443)
        wire.assert_nothing_left("203.0.113.66", name="evil.example")

Each question first waits until all that was sent before it is recorded. A recorder that lost packets says so
instead of claiming that there were none.

How neighbours on a link find one another is no traffic to them: ARP is not recorded, being no IP, and neither are
IPv6's neighbour solicitations and advertisements (RFC 4861), which a kernel also sends to whoever has asked for *it*.
Every other ICMPv6 is.
"""

import contextlib
import ctypes
import ipaddress
import itertools
import os
import socket
import struct
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Self

import dns.exception
import dns.message
import dns.rdatatype

from support.dns_server import canonical
from support.waiting import PATIENCE, eventually

_ETH_P_ALL = 0x0003
_ETH_P_IP = 0x0800
_ETH_P_IPV6 = 0x86DD
_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_SO_RCVBUFFORCE = 33
_SO_ATTACH_FILTER = 26
_SNAP = 1600
_TCP_FLAGS = "FSRPAUEC"
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6"}
_HOP_BY_HOP, _ICMP6 = 0, 58
_NEIGHBOUR = (135, 136)  # solicitation and advertisement
_OF_THIS_LINK = 255  # their hop limit: one that was forwarded has less, and is no neighbour's
_MARK = b"support.wire mark "

# Classic BPF. `lo` shows each packet twice, going out and coming in: keep the incoming one. Elsewhere keep both
# directions, but not what a switch has flooded and was meant for somebody else. All are cut after _SNAP.
_LOAD_TYPE = (0x20, 0, 0, 0xFFFFF000 + 4)  # SKF_AD_OFF + SKF_AD_PKTTYPE
_LOAD_INTERFACE = (0x20, 0, 0, 0xFFFFF000 + 8)  # SKF_AD_OFF + SKF_AD_IFINDEX
_DROP, _KEEP = (0x06, 0, 0, 0), (0x06, 0, 0, _SNAP)
_LO = 1  # its number in every network namespace
_FILTER = (  # in a comparison: how many steps to skip when it holds, and when not
    _LOAD_TYPE,
    (0x15, 4, 0, socket.PACKET_OTHERHOST),
    (0x15, 0, 2, socket.PACKET_OUTGOING),
    _LOAD_INTERFACE,
    (0x15, 1, 0, _LO),
    _KEEP,
    _DROP,
)


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet. Ports are 0 where the protocol has none; `flags` are TCP's as letters of "FSRPAUEC"."""

    proto: str
    src: str
    sport: int
    dst: str
    dport: int
    flags: str
    length: int  # of the payload
    payload: bytes  # at most the first 1500 bytes of it

    @property
    def is_syn(self) -> bool:
        return "S" in self.flags and "A" not in self.flags


class DnsQuestion(NamedTuple):
    name: str
    type: str
    transport: str
    server: str


class Wire:
    """Records from `start()` to `close()`. `dns_ports` are the ports whose traffic counts as DNS.

    The interface is one of the network namespace in which the recorder was made. `lo` must be up there too: it
    carries the marks by which the recorder knows that it has caught up.
    """

    def __init__(self, dns_ports: Iterable[int] = (53,), interface: str = "lo") -> None:
        socket.if_nametoindex(interface)  # or OSError: a recorder of no interface would see nothing
        self.dns_ports = frozenset(dns_ports) | {53}
        self.interface = interface
        self.has_room = True  # for bulk transfers
        self._packets: list[Packet] = []
        self._lost = 0
        self._closing = False
        self._marks: set[bytes] = set()
        self._numbers = itertools.count()
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        self._mark_receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._thread = threading.Thread(target=self._record, name="wire", daemon=True)

    # Questions.

    @property
    def packets(self) -> list[Packet]:
        self.settle()
        return list(self._packets)

    def packets_to(self, address: str, port: int | None = None) -> list[Packet]:
        wanted = str(ipaddress.ip_address(address))
        return [p for p in self.packets if p.dst == wanted and port in (None, p.dport)]

    def syns_to(self, address: str, port: int | None = None) -> list[Packet]:
        """The attempts to open a TCP connection, successful or not."""
        return [packet for packet in self.packets_to(address, port) if packet.is_syn]

    def dns_queries(self) -> list[DnsQuestion]:
        """The questions in packets to any of `dns_ports`, whoever was to answer them."""
        return [q for p in self.packets if p.dport in self.dns_ports and (q := _question(p)) is not None]

    def assert_nothing_left(
        self, address: str | None = None, *, port: int | None = None, name: str | None = None
    ) -> None:
        """No packet to `address` (and `port`), and no DNS question for `name`."""
        if address is None and name is None:
            raise TypeError("nothing to look for: give an address or a name")
        if address is not None:
            sent = self.packets_to(address, port)
            assert not sent, f"{len(sent)} packets left for {address}, the first: {sent[0]}"
        if name is not None:
            asked = [question for question in self.dns_queries() if question.name == canonical(name)]
            assert not asked, f"{name} was asked for: {asked}"

    def clear(self) -> None:
        """Forget what was recorded so far, and what was lost of it: nobody asks for that any more."""
        if not self._closing:
            self._catch_up()
        self._packets.clear()
        self._lost = 0

    def settle(self) -> None:
        """Wait until every packet sent before this call is recorded; AssertionError when any since `clear` was lost."""
        if not self._closing:
            self._catch_up()
        assert not self._lost, f"the recorder lost {self._lost} packets, so it cannot tell what was sent"

    def _catch_up(self) -> None:
        mark = _MARK + f"{os.getpid()} {id(self)} {next(self._numbers)}".encode()
        self._mark_receiver.sendto(mark, self._mark_receiver.getsockname())
        self._mark_receiver.recv(len(mark))
        eventually(lambda: mark in self._marks, "the recorder to catch up", every=0.001)
        self._marks.discard(mark)
        self._lost += struct.unpack("II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1]

    # Life.

    def start(self) -> Self:
        self._mark_receiver.bind(("127.0.0.1", 0))
        self._mark_receiver.settimeout(PATIENCE)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 256 << 20)
        except PermissionError:  # inside a user namespace: room for small traffic only
            self.has_room = False
        _attach_filter(self._socket)
        _bind_everywhere(self._socket)  # the marks come on `lo`, whichever interface is asked for
        self._thread.start()
        self.settle()
        return self

    def close(self) -> None:
        """Stop; what was recorded can still be asked for."""
        if self._thread.is_alive():
            self._catch_up()
            self._closing = True
            self._mark_receiver.sendto(_MARK, self._mark_receiver.getsockname())  # wakes the recorder
            self._thread.join(5)
        self._socket.close()
        self._mark_receiver.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _record(self) -> None:
        while not self._closing:
            data, (interface, protocol, *_rest) = self._socket.recvfrom(_SNAP)
            packet = _parse(data, protocol)
            if packet is None:
                continue
            if packet.payload.startswith(_MARK):
                self._marks.add(packet.payload)
            elif interface == self.interface:
                self._packets.append(packet)


def _attach_filter(sock: socket.socket) -> None:
    program = b"".join(struct.pack("HBBI", *step) for step in _FILTER)
    buffer = ctypes.create_string_buffer(program)
    pointer = struct.pack("HL", len(_FILTER), ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, pointer)


def _bind_everywhere(sock: socket.socket) -> None:
    """bind(2) to interface 0, for which the socket module has no name."""
    address = struct.pack("=HHiHBB8s", socket.AF_PACKET, socket.htons(_ETH_P_ALL), 0, 0, 0, 0, b"")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.bind(sock.fileno(), address, len(address)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _parse(data: bytes, protocol: int) -> Packet | None:
    if protocol == _ETH_P_IP and len(data) >= 20:
        start, size, number = (data[0] & 15) * 4, int.from_bytes(data[2:4]), data[9]
        src, dst = str(ipaddress.ip_address(data[12:16])), str(ipaddress.ip_address(data[16:20]))
    elif protocol == _ETH_P_IPV6 and len(data) >= 40:
        start, size, number = 40, 40 + int.from_bytes(data[4:6]), data[6]
        src, dst = str(ipaddress.ip_address(data[8:24])), str(ipaddress.ip_address(data[24:40]))
        if number == _HOP_BY_HOP and size > start + 1:  # as around what a host tells of the groups it is in
            number, start = data[start], start + 8 * (data[start + 1] + 1)
        elif number == _ICMP6 and size > start and data[start] in _NEIGHBOUR and data[7] == _OF_THIS_LINK:
            return None
    else:
        return None
    proto, flags, sport, dport = _PROTOCOLS.get(number, str(number)), "", 0, 0
    if len(data) < start + 8:
        return Packet(proto, src, 0, dst, 0, "", 0, b"")
    if proto in ("tcp", "udp"):
        sport, dport = struct.unpack_from("!HH", data, start)
    if proto == "tcp":
        flags = "".join(letter for bit, letter in enumerate(_TCP_FLAGS) if data[start + 13] >> bit & 1)
        start += (data[start + 12] >> 4) * 4
    elif proto in ("udp", "icmp", "icmp6"):
        start += 8
    return Packet(proto, src, sport, dst, dport, flags, max(0, size - start), data[start:size])


def _question(packet: Packet) -> DnsQuestion | None:
    """The question in a packet to a name server; None for one without (SYN, ACK, a length alone)."""
    if packet.proto not in ("tcp", "udp") or len(packet.payload) <= 2:
        return None
    # Over TCP two bytes of length come first, or came in a packet of their own.
    candidates = [packet.payload] if packet.proto == "udp" else [packet.payload[2:], packet.payload]
    for wire in candidates:
        with contextlib.suppress(dns.exception.DNSException):
            message = dns.message.from_wire(wire, ignore_trailing=True)
            if message.question:
                question = message.question[0]
                kind = dns.rdatatype.to_text(question.rdtype)
                return DnsQuestion(canonical(question.name.to_text()), kind, packet.proto, packet.dst)
    return DnsQuestion("(unreadable)", "", packet.proto, packet.dst)
