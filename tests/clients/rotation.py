"""Many clients of a CDN that hands out a few of its hundreds of addresses, another choice every second.

    python rotation.py '{"name": …, "sources": [...], "connections": 5000, "spoofed": 5000, "evil": …, "pool": …}'

Each source address is a client. It asks for the name (or, with "pool", believes a resolver of its own and dials
addresses out of that network), uses an answer for a while after its time to live, and in between somebody dials the
evil address under the same name. Prints how often each outcome came, as JSON.
"""

import asyncio
import ipaddress
import json
import random
import socket
import sys
import time
from collections import Counter

import dns.message
import dns.rdatatype

ANSWER_USED_FOR = 4.0  # seconds; the answers live for one


class Client:
    def __init__(self, wish: dict, source: str, outcomes: Counter) -> None:
        self.wish = wish
        self.source = source
        self.outcomes = outcomes
        self.addresses: list[str] = []
        self.asked_at = -60.0

    async def run(self, connections: int, spoofed: int) -> None:
        plan = ["honest"] * connections + ["spoofed"] * spoofed
        random.shuffle(plan)
        for kind in plan:
            address = self.wish["evil"] if kind == "spoofed" else await self.address()
            self.outcomes[f"{kind}: {await self.ask(address)}"] += 1

    async def address(self) -> str:
        if "pool" in self.wish:
            network = ipaddress.ip_network(self.wish["pool"])
            return str(network[random.randrange(400) + 1])
        if time.monotonic() - self.asked_at > ANSWER_USED_FOR:
            self.addresses = await asyncio.to_thread(self.resolve)
            self.asked_at = time.monotonic()
        return random.choice(self.addresses)

    def resolve(self) -> list[str]:
        query = dns.message.make_query(self.wish["name"], "A")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(15)
            sock.bind((self.source, 0))
            sock.connect((self.wish["name_server"], 53))
            sock.send(query.to_wire())
            answer = dns.message.from_wire(sock.recv(4096))
        self.outcomes["names asked for"] += 1
        return [item.address for rrset in answer.answer if rrset.rdtype == dns.rdatatype.A for item in rrset]

    async def ask(self, address: str) -> str:
        """The status, and the reason of a refusal."""
        reader, writer = await asyncio.open_connection(address, 80, local_addr=(self.source, 0))
        try:
            writer.write(f"GET / HTTP/1.1\r\nHost: {self.wish['name']}\r\nConnection: close\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            await reader.read()
        finally:
            writer.close()
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        return f"{head.split()[1]} {fields.get('x-egress-reason', '')}".strip()


async def main() -> None:
    wish = json.loads(sys.argv[1])
    outcomes: Counter = Counter()
    clients = [Client(wish, source, outcomes) for source in wish["sources"]]
    share = [wish[kind] // len(clients) for kind in ("connections", "spoofed")]
    await asyncio.gather(*(client.run(*share) for client in clients))
    print(json.dumps(outcomes))


asyncio.run(main())
