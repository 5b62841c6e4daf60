"""Ways that must lead to the gateway: HTTP, HTTPS, DNS over HTTPS, and DNS to whatever server.

The first try cannot reach anybody behind the gateway. If it is answered, the gateway answers for the whole way, since
what goes further would meet it too; if not, one without that limit shows whether somebody else answers.
"""

from __future__ import annotations

import socket
from typing import Callable

from egress_gateway.containment import judge
from egress_gateway.containment.attempt import datagram, stream
from egress_gateway.containment.attempt.family import family_of
from egress_gateway.containment.attempt.heard import Heard
from egress_gateway.containment.outcome import Verdict
from egress_gateway.containment.spoken import dns, http, tls
from egress_gateway.containment.spoken.reading import Read

from .packets import Attempt
from .setting import Probe, Setting


def http_request(address: str) -> Probe:
    def probe(setting: Setting) -> Verdict:
        request = http.request(setting.denied_name)
        return _judged(setting, _over_tcp(address, http.PORT, request, http.complete), http.read)

    return probe


def https(address: str, name: str = "") -> Probe:
    """A handshake for `name`, or for the name that no rule allows."""

    def probe(setting: Setting) -> Verdict:
        hello = tls.client_hello(name or setting.denied_name)
        return _judged(setting, _over_tcp(address, tls.PORT, hello, tls.complete), tls.read)

    return probe


def dns_over_udp(server: str) -> Probe:
    def probe(setting: Setting) -> Verdict:
        return _judged(setting, ask_over_udp(server, dns.question(setting.denied_name)), dns.read)

    return probe


def dns_over_tcp(server: str) -> Probe:
    def probe(setting: Setting) -> Verdict:
        question = dns.over_tcp(dns.question(setting.denied_name))
        return _judged(
            setting,
            _over_tcp(server, dns.PORT, question, dns.complete_over_tcp),
            lambda data: dns.read(data[2:]),
        )

    return probe


def ask_over_udp(server: str, question: bytes) -> Attempt:
    def attempt(hops: int | None, deadline: float) -> Heard:
        family = family_of(server)
        return datagram.ask(
            socket.socket(family.number, socket.SOCK_DGRAM),
            family,
            server,
            dns.PORT,
            question,
            deadline,
            hops=hops,
            is_answer=lambda data: dns.is_answer_to(question, data),
        )

    return attempt


def _over_tcp(address: str, port: int, request: bytes, complete: Callable[[bytes], bool]) -> Attempt:
    def attempt(hops: int | None, deadline: float) -> Heard:
        return stream.ask(address, port, request, deadline, hops=hops, complete=complete)

    return attempt


def _judged(setting: Setting, attempt: Attempt, read: Read) -> Verdict:
    near = attempt(setting.place.hops, setting.half)
    full = None if judge.is_near_enough(near) else attempt(None, setting.deadline)
    return judge.led(near, full, read)
