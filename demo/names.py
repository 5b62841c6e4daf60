"""A DNS server that knows the names of the story and no others. UDP only: its answers are small."""

from __future__ import annotations

from collections.abc import Mapping

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from .datagrams import DatagramServer

_TTL = 60


class NameServer(DatagramServer):
    """Answers A questions from `names`; other types of a known name are empty, other names do not exist."""

    def __init__(self, names: Mapping[str, str], address: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(address, port)
        self._names = names
        self.asked: set[str] = set()
        """Every name that somebody wanted to know."""

    def answer(self, packet: bytes) -> bytes | None:
        try:
            return self._respond(dns.message.from_wire(packet)).to_wire()
        except dns.exception.DNSException:
            return None

    def _respond(self, query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query, recursion_available=True)
        for question in query.question:
            name = question.name.to_text(omit_final_dot=True).lower()
            self.asked.add(name)
            if name not in self._names:
                response.set_rcode(dns.rcode.NXDOMAIN)
            elif question.rdtype == dns.rdatatype.A:
                response.answer.append(dns.rrset.from_text(question.name, _TTL, "IN", "A", self._names[name]))
        return response
