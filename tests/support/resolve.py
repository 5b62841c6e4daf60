"""Ask a name server the way a client's stub resolver does, from a machine of the lab."""

import socket

import dns.message
import dns.rdatatype

from support.networks import Host
from support.waiting import PATIENCE

ANY_SERVER = "9.9.9.9"
"""Whichever a client names: what it sends to port 53 goes to the gateway."""


def ask(
    host: Host, name: str, kind: str = "A", server: str = ANY_SERVER, timeout: float = PATIENCE
) -> dns.message.Message:
    """The answer over UDP. Raises TimeoutError where there is none, ConnectionRefusedError where that is said."""
    query = dns.message.make_query(name, kind, use_edns=0)
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with host.entered():
        sock = socket.socket(family, socket.SOCK_DGRAM)
    with sock:
        sock.settimeout(timeout)
        sock.connect((server, 53))
        sock.send(query.to_wire())
        return dns.message.from_wire(sock.recv(4096))


def resolve(host: Host, name: str, kind: str = "A", server: str = ANY_SERVER) -> list[str]:
    """The addresses that `host` is told."""
    answer = ask(host, name, kind, server)
    wanted = dns.rdatatype.from_text(kind)
    return [item.address for rrset in answer.answer if rrset.rdtype == wanted for item in rrset]
