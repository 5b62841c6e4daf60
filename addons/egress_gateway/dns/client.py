"""Ask one server one question, and believe only its answer: RFC 1035, RFC 5452, RFC 7766.

- Each question has its own socket, so its own port chosen by the kernel, and its own random id. The
  socket is connected to the server, so that the kernel drops what other addresses send. A datagram whose
  id or question is not ours is ignored and the waiting goes on: a wrong guess must not even end the
  attempt.
- EDNS (RFC 6891) announces 1232 bytes, which no path fragments. A server that cannot read that (FORMERR,
  NOTIMP, BADVERS) is asked again without.
- An answer that was cut (TC) is read for nothing but that, and the question is put again over TCP.
- Answers larger than `MAX_MESSAGE` are malformed: hundreds of addresses are not an answer, they are work
  for us.
- Everything ends `within` the seconds given, and everything that goes wrong is a ResolveError.
"""

import asyncio
import errno
import secrets
import socket
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from egress_gateway.dns.answer import ResolveError, ResolveFailure
from egress_gateway.dns.settings import Server

MAX_MESSAGE = 4 * 1024
_EDNS_PAYLOAD = 1232
_HEADER = 12
_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_ANSWERS = {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}
_NO_EDNS = {dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS}


async def ask(
    server: Server, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, *, within: float
) -> dns.message.Message:
    """The server's answer, with rcode NOERROR or NXDOMAIN. Raises ResolveError for anything else."""
    try:
        async with asyncio.timeout(within):
            message = await _converse(server, _Question.new(name, rdtype, edns=True))
            if message.rcode() in _NO_EDNS:
                message = await _converse(server, _Question.new(name, rdtype, edns=False))
    except _Malformed as error:
        raise _error(ResolveFailure.MALFORMED, name, server, str(error)) from None
    except TimeoutError:
        raise _error(ResolveFailure.TIMEOUT, name, server, f"no answer in {within:g} s") from None
    except ConnectionRefusedError:
        raise _error(ResolveFailure.REFUSED, name, server, "nobody listens there") from None
    except OSError as error:
        kind = ResolveFailure.OVERLOADED if error.errno in _OUT_OF_RESOURCES else ResolveFailure.SERVFAIL
        raise _error(kind, name, server, error.strerror or type(error).__name__) from None
    rcode = message.rcode()
    if rcode not in _ANSWERS:
        kind = ResolveFailure.REFUSED if rcode == dns.rcode.REFUSED else ResolveFailure.SERVFAIL
        raise _error(kind, name, server, dns.rcode.to_text(rcode))
    return message


def _error(kind: ResolveFailure, name: dns.name.Name, server: Server, what: str) -> ResolveError:
    host, port = server
    return ResolveError(kind, name.to_text(omit_final_dot=True), f"{host} port {port}: {what}")


class _Malformed(Exception):
    """Bytes from the server itself that are not an answer."""


@dataclass(frozen=True, slots=True)
class _Question:
    """A question on the wire, and which bytes answer it."""

    wire: bytes
    section: bytes  # the question section, as it stands in `wire`

    @classmethod
    def new(cls, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, *, edns: bool) -> "_Question":
        query = dns.message.make_query(
            name,
            rdtype,
            use_edns=0 if edns else False,
            payload=_EDNS_PAYLOAD if edns else None,
            id=secrets.randbits(16),
        )
        size = len(name.to_wire() or b"") + 4
        wire = query.to_wire()
        return cls(wire, wire[_HEADER : _HEADER + size])

    def is_answered_by(self, data: bytes) -> bool:
        """The same id and question, in an answer. Errors may leave the question out, as old servers do."""
        if len(data) < _HEADER or data[:2] != self.wire[:2] or data[2] & 0xF8 != 0x80:
            return False
        if data[4:6] == b"\0\0":
            return data[3] & 0x0F not in _ANSWERS
        section = data[_HEADER : _HEADER + len(self.section)]
        return data[4:6] == b"\0\1" and section.lower() == self.section.lower()


async def _converse(server: Server, question: _Question) -> dns.message.Message:
    data = await _over_udp(server, question)
    if data[2] & 0x02:  # TC
        data = await _over_tcp(server, question)
    if len(data) > MAX_MESSAGE:
        raise _Malformed(f"an answer of more than {MAX_MESSAGE} bytes")
    try:
        return dns.message.from_wire(data)
    except Exception as error:  # a parser of hostile bytes: any failure of it means the same
        raise _Malformed(f"an answer that cannot be read ({type(error).__name__})") from None


async def _over_udp(server: Server, question: _Question) -> bytes:
    family, address = _socket_address(server)
    loop = asyncio.get_running_loop()
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(address)
        await loop.sock_sendall(sock, question.wire)
        while True:
            data = await loop.sock_recv(sock, MAX_MESSAGE + 1)
            if question.is_answered_by(data):
                return data
            await asyncio.sleep(0)  # what lies ready is received without a pause: a flood must not stop the clock


async def _over_tcp(server: Server, question: _Question) -> bytes:
    host, port = server
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(len(question.wire).to_bytes(2) + question.wire)
        data = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
    except asyncio.IncompleteReadError:
        raise _Malformed("the TCP connection ended within the answer") from None
    finally:
        writer.close()
    if not question.is_answered_by(data):
        raise _Malformed("an answer to another question")
    return data


def _socket_address(server: Server) -> tuple[int, tuple[str, int] | tuple[str, int, int, int]]:
    """Family and address to connect to, with nothing left to look up; an IPv6 zone becomes its number."""
    host, port = server
    address = ip_address(host)
    if not isinstance(address, IPv6Address):
        return socket.AF_INET, (host, port)
    zone = address.scope_id
    scope = 0 if zone is None else int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)
    return socket.AF_INET6, (host.partition("%")[0], port, 0, scope)
