"""A DNS server on loopback, UDP and TCP on one port, that says word for word what a test tells it to.

    server.exists("a.example", "60 A 192.0.2.1")                # and has no AAAA record
    server.say("a.example", "A", "60 CNAME b.example.", "b.example. 60 A 192.0.2.1")
    server.script("a.example", "A", lambda query, transport: [b"first datagram", b"second datagram"])
    server.mute = True                                          # says nothing to anybody any more

It runs in the test's own event loop, whose time is steady (see `support.steady_time`): measure by `loop.time()`. A name
and type that nobody set is NXDOMAIN with an SOA record.
"""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
import pytest_asyncio

from support.steady_time import steady_time

type Script = Callable[[dns.message.Message, str], Iterable[bytes]]

SOA = "ns.test. hostmaster.test. 1 3600 600 86400"


class ScriptedServer(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.queries: list[tuple[str, str, str]] = []  # name, type, "udp" or "tcp"
        self.mute = False
        self.ids: list[int] = []
        self.ports: list[int] = []  # of the clients
        self._scripts: dict[tuple[str, str], Script] = {}
        self._delays: dict[tuple[str, str], float] = {}
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self.endpoint: tuple[str, int] = ("127.0.0.1", 0)

    # What it says.

    def script(self, name: str, rdtype: str, script: Script) -> None:
        """Bytes to send for each question; over TCP they are framed."""
        self._scripts[name, rdtype] = script

    def say(self, name: str, rdtype: str, *records: str, rcode: str = "NOERROR", soa: int | None = None) -> None:
        """A record: "TTL TYPE VALUE" of the name asked, or "OWNER. TTL TYPE VALUE"; `soa`: negative TTL."""

        def script(query: dns.message.Message, _: str) -> list[bytes]:
            return [answer(query, *records, rcode=rcode, soa=soa).to_wire(max_size=65535)]

        self.script(name, rdtype, script)

    def exists(self, name: str, *records: str) -> None:
        """A name with exactly these A and AAAA records; a family without any is "no data"."""
        for rdtype in ("A", "AAAA"):
            own = [record for record in records if record.split()[1] == rdtype]
            self.say(name, rdtype, *own, soa=None if own else 60)

    def silent(self, name: str, *rdtypes: str) -> None:
        for rdtype in rdtypes or ("A", "AAAA"):
            self.script(name, rdtype, lambda query, transport: [])

    def delay(self, name: str, rdtype: str, seconds: float) -> None:
        self._delays[name, rdtype] = seconds

    def count(self, name: str | None = None, rdtype: str | None = None) -> int:
        return sum(name in (None, asked) and rdtype in (None, kind) for asked, kind, _ in self.queries)

    def asked(self, rdtype: str = "A") -> list[str]:
        """The names in the order they were asked for."""
        return [name for name, kind, _ in self.queries if kind == rdtype]

    def sockets_to_it(self) -> int:
        """Those over which somebody asks it at the moment, by UDP and IPv4."""
        host, port = self.endpoint
        here = f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}:{port:04X}"
        lines = Path("/proc/thread-self/net/udp").read_text(encoding="ascii").splitlines()[1:]
        return sum(line.split()[2] == here for line in lines)

    # How it says it.

    async def start(self, address: str = "127.0.0.1") -> None:
        self._tcp = await asyncio.start_server(self._serve_tcp, address, 0)
        self.endpoint = self._tcp.sockets[0].getsockname()[:2]
        loop = asyncio.get_running_loop()
        self._udp, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=self.endpoint)

    async def close(self) -> None:
        assert self._udp
        assert self._tcp
        self._udp.close()
        self._tcp.close()
        await self._tcp.wait_closed()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.ports.append(addr[1])
        wires, delay = self._answer(data, "udp")
        asyncio.get_running_loop().call_later(delay, self._send, wires, addr)

    def _send(self, wires: list[bytes], addr: tuple[str, int]) -> None:
        assert self._udp
        for wire in wires:
            self._udp.sendto(wire, addr)

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            data = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
            wires, delay = self._answer(data, "tcp")
            await asyncio.sleep(delay)
            for wire in wires:
                writer.write(len(wire).to_bytes(2) + wire)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    def _answer(self, data: bytes, transport: str) -> tuple[list[bytes], float]:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        rdtype = dns.rdatatype.to_text(question.rdtype)
        self.queries.append((name, rdtype, transport))
        self.ids.append(query.id)
        if self.mute:
            return [], 0.0
        script = self._scripts.get((name, rdtype), no_such_name)
        return list(script(query, transport)), self._delays.get((name, rdtype), 0.0)


def answer(
    query: dns.message.Message, *records: str, rcode: str = "NOERROR", soa: int | None = None
) -> dns.message.Message:
    response = dns.message.make_response(query, recursion_available=True)
    response.set_rcode(dns.rcode.from_text(rcode))
    for record in records:
        first, _, rest = record.partition(" ")
        owner, ttl = (query.question[0].name, first) if first.isdecimal() else (dns.name.from_text(first), "")
        if not ttl:
            ttl, _, rest = rest.partition(" ")
        rdtype, _, value = rest.partition(" ")
        response.answer.append(dns.rrset.from_text(owner, int(ttl), "IN", rdtype, value))
    if soa is not None:
        response.authority.append(dns.rrset.from_text(dns.name.root, 3600, "IN", "SOA", f"{SOA} {soa}"))
    return response


def no_such_name(query: dns.message.Message, transport: str) -> list[bytes]:
    return [answer(query, rcode="NXDOMAIN", soa=60).to_wire()]


@pytest.fixture
def reply() -> Callable[..., dns.message.Message]:
    """`reply(query, "60 A 192.0.2.1", rcode=..., soa=...)` is an answer to write scripts with."""
    return answer


@pytest_asyncio.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    with steady_time(asyncio.get_running_loop()):
        scripted = ScriptedServer()
        await scripted.start()
        yield scripted
        await scripted.close()


@pytest_asyncio.fixture
async def second_server(server: ScriptedServer) -> AsyncIterator[ScriptedServer]:
    scripted = ScriptedServer()
    await scripted.start()
    yield scripted
    await scripted.close()
