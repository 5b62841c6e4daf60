"""A gateway that runs on the lab's router, and the packet filter that sends the inside network's traffic to it.

with TransparentGateway(lab.gateway, rules=RULES, dns_servers=["203.0.113.53:53"]) as gw:
    with redirected(gw, tcp_ports=(80, 443)):
        sock = lab.client.connect(lab.web.ipv4, 80)     # ends up at the gateway
    gw.wait_for_log(reason="address_mismatch")          # from whichever network the test is in
"""

import contextlib
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

from egress_gateway.network import ruleset
from egress_gateway.network.layout import Layout
from support.gateway import Gateway, Option, Rules
from support.networks import PUBLIC_RANGES, Host
from support.sockets import free_port
from support.waiting import PATIENCE

MODES = ("transparent", "dns@{dns_port}")
"""A gateway that is its clients' router and their name server."""

_TABLE = "inet test_redirect"

_NETLINK_NETFILTER = 12
# One message of conntrack's (type 1 << 8 | 2, request and acknowledgement), for all families and with no attributes.
_DELETE_ALL_CONNECTIONS = struct.pack("=IHHIIBBH", 20, 0x0102, 0x0005, 1, 0, socket.AF_UNSPEC, 0, 0)


class TransparentGateway(Gateway):
    """Listens on every address of `host`; takes what `Gateway` takes.

    In a mode, `{dns_port}` becomes a free port, which then is `dns_port`: `modes=("transparent", "dns@{dns_port}")`.
    """

    def __init__(
        self,
        host: Host,
        rules: Rules = "",
        options: dict[str, Option] | None = None,
        *,
        modes: Sequence[str] = ("transparent",),
        **more: Any,
    ) -> None:
        self.runs_on = host
        with host.entered():
            self.dns_port = free_port("::")
            super().__init__(
                rules,
                {"egress_public_ranges": PUBLIC_RANGES} | (options or {}),
                mode=[mode.format(dns_port=self.dns_port) for mode in modes],
                listen_host="",
                **more,
            )
        self.answers_dns = any(mode.startswith("dns") for mode in modes)

    def start(self) -> Self:
        with self.runs_on.entered():
            return super().start()

    def connect(self, timeout: float = PATIENCE) -> socket.socket:
        with self.runs_on.entered():
            return super().connect(timeout)

    def metrics_get(self, path: str) -> tuple[int, str]:
        with self.runs_on.entered():
            return super().metrics_get(path)


@contextlib.contextmanager
def redirected(gateway: TransparentGateway, tcp_ports: Iterable[int] = (80, 443)) -> Iterator[None]:
    """Meanwhile, what comes from "inside" goes to the gateway's ports or is rejected.

    These TCP ports go to the proxy port; port 53 goes to the DNS port if the gateway has a DNS mode. This is as
    plain as can be, for tests of the gateway itself; `guarded` is what users load.
    """
    with _loaded(gateway.runs_on, _script(gateway, tcp_ports), _TABLE):
        yield


@contextlib.contextmanager
def guarded(gateway: TransparentGateway, tcp_ports: Iterable[int] = (80, 443)) -> Iterator[None]:
    """The same with the table that gateway-up loads; the gateway needs a DNS mode."""
    layout = Layout(("inside",), gateway.port, gateway.dns_port, outside="outside")
    with _loaded(gateway.runs_on, ruleset.render(layout, tcp_ports), ruleset.TABLE):
        yield


@contextlib.contextmanager
def _loaded(host: Host, script: str, table: str) -> Iterator[None]:
    host.run("nft", "-f", "-", input=script)
    try:
        yield
    finally:
        host.run("nft", "delete", "table", *table.split())
        _forget_connections(host)


def _forget_connections(host: Host) -> None:
    """Or a DNS client that takes the same port again would be led to this gateway, and not to the next one.

    For half a minute the router remembers where it sent an exchange over UDP, whatever the table says by then.
    """
    with host.entered(), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as sock:
        sock.settimeout(PATIENCE)
        sock.send(_DELETE_ALL_CONNECTIONS)
        _length, _type, _flags, _number, _sender, error = struct.unpack_from("=IHHIIi", sock.recv(4096))
    if error:
        raise OSError(-error, f"connection tracking: {os.strerror(-error)}")


def _script(gateway: TransparentGateway, tcp_ports: Iterable[int]) -> str:
    dns = f"meta l4proto {{ tcp, udp }} th dport 53 redirect to :{gateway.dns_port}" if gateway.answers_dns else ""
    return f"""
    table {_TABLE} {{
        chain prerouting {{
            type nat hook prerouting priority dstnat; policy accept;
            iifname != "inside" return
            {dns}
            tcp dport {{ {", ".join(map(str, tcp_ports))} }} redirect to :{gateway.port}
        }}
        chain input {{
            type filter hook input priority filter; policy accept;
            iifname != "inside" return
            ct status dnat accept
            icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
            jump refuse
        }}
        chain forward {{
            type filter hook forward priority filter; policy accept;
            iifname != "inside" return
            jump refuse
        }}
        chain refuse {{
            meta l4proto tcp reject with tcp reset
            reject with icmpx admin-prohibited
        }}
    }}
    """
