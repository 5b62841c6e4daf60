"""What a gateway looks like to a client, and the packet filter around it: for tests of those who look at gateways.

    with GatewayStandIn(lab.gateway) as gateway:
        with gateway.without("refused: QUIC"):          # the rule with this comment
            ...
        gateway.http = b"HTTP/1.1 200 OK\r\n\r\n"       # what it answers from now on

It refuses everything, in the words of the real one. The filter is the real one's too.
"""

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Self

import dns.edns
import dns.message
import dns.rcode

from egress_gateway.answer.refusal import render
from egress_gateway.network import ruleset
from egress_gateway.network.layout import Layout
from egress_gateway.policy.reason import ANSWERS, Reason
from egress_gateway.policy.verdict import refuse
from egress_gateway.relay.refuse import ACCESS_DENIED
from support.dns_server import DnsServer
from support.exchanges import exchange
from support.networks import Host
from support.sockets import stop_listening
from support.waiting import PATIENCE

PORT, DNS_PORT = 8080, 5353
BEHIND_INSIDE = Layout(("inside",), PORT, DNS_PORT)
_RULE = re.compile(r"^\s*(?P<rule>.*) # handle (?P<handle>\d+)$")


def http_refusal(reason: Reason = Reason.NO_RULE) -> bytes:
    """A refusal as the gateway sends it."""
    status, headers, body = render(exchange(time.time(), method="GET", verdict=refuse(reason)))
    lines = [f"HTTP/1.1 {status} {ANSWERS[reason].sentence}".encode(), *(b": ".join(field) for field in headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class GatewayStandIn:
    def __init__(self, host: Host, layout: Layout = BEHIND_INSIDE) -> None:
        self.host = host
        self.layout = layout
        self.dns: DnsServer
        """Only the names that are set here are allowed."""
        self.restore()
        self._held = contextlib.ExitStack()

    def restore(self) -> None:
        """Answers as a gateway does that allows nothing."""
        self.http = http_refusal()
        self.tls = ACCESS_DENIED
        self.dns_code = dns.rcode.REFUSED
        self.extended_dns_error: int | None = None

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack, self.host.entered():
            listener = socket.create_server(("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True, backlog=256)
            stack.callback(stop_listening, listener)
            self.dns = stack.enter_context(DnsServer("::", DNS_PORT))
            self.dns.tamper = self.answer_dns
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
            self.load()
            stack.callback(self.host.run, "nft", "-f", "-", input=ruleset.remove())
            self._held = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def load(self) -> None:
        """The packet filter, whole and as it was."""
        self.host.run("nft", "-f", "-", input=ruleset.render(self.layout, [80, 443]))

    @contextlib.contextmanager
    def without(self, comment: str) -> Iterator[None]:
        """Meanwhile the rules with this comment are not there."""
        delete_rules(self.host, comment)
        try:
            yield
        finally:
            self.load()

    @contextlib.contextmanager
    def without_filter(self) -> Iterator[None]:
        self.host.run("nft", "-f", "-", input=ruleset.remove())
        try:
            yield
        finally:
            self.load()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(PATIENCE)
            said = client.recv(65536)
            client.sendall(self.tls if said[:1] == b"\x16" else self.http)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass

    def answer_dns(self, response: dns.message.Message) -> bytes:
        if response.rcode() != dns.rcode.NXDOMAIN:
            return response.to_wire()
        response.set_rcode(self.dns_code)
        error = self.extended_dns_error
        response.use_edns(0, options=[dns.edns.EDEOption(dns.edns.EDECode(error))] if error is not None else [])
        return response.to_wire()


def delete_rules(host: Host, comment: str) -> list[str]:
    """Takes the rules with this comment out of the gateway's table; returns what they were."""
    chain, deleted = "", []
    for line in host.run("nft", "-a", "list", "table", *ruleset.TABLE.split()).stdout.splitlines():
        if line.strip().startswith("chain "):
            chain = line.split()[1]
        elif f'comment "{comment}"' in line and (found := _RULE.match(line)):
            host.run("nft", "delete", "rule", *ruleset.TABLE.split(), chain, "handle", found["handle"])
            deleted.append(found["rule"])
    assert deleted, f"no rule has the comment {comment!r}"
    return deleted
