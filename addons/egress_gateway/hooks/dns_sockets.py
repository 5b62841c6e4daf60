"""Mode dns listens for UDP on sockets of ours instead of mitmproxy's; see `nameserver.datagrams` for why.

mitmproxy asks its class for mode dns to open them, at the start and when option `mode` changes. Were that to go past
us, its own server would be opened, whose clients the guard refuses.

Options `block_global` and `block_private` hold for these sockets too. By default who asks from a public address is not
answered.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import mitmproxy_rs
from mitmproxy import ctx
from mitmproxy.proxy.mode_servers import DnsInstance, ServerInstance

from egress_gateway.nameserver.datagrams import DatagramServer
from egress_gateway.nameserver.questions import NameServer

from .blocked import blocked_by

_OPEN = "start_udp_based_server"


class DnsSockets:
    """`begin` before mitmproxy opens its servers, `end` when it is done."""

    def __init__(self, server: NameServer) -> None:
        self._server = server

    def begin(self) -> None:
        async def open_ours(_: Any, host: str, port: int) -> DatagramServer:
            return await DatagramServer.listen(self._server, host, port, is_admitted)

        setattr(DnsInstance, _OPEN, open_ours)

    def end(self) -> None:
        if _OPEN in vars(DnsInstance):
            delattr(DnsInstance, _OPEN)

    @staticmethod
    def are_ours(instances: Iterable[ServerInstance[Any]]) -> bool:
        """Whether every UDP socket of mode dns is one of ours."""
        opened = (server for each in instances if isinstance(each, DnsInstance) for server in each._servers)
        return not any(isinstance(server, mitmproxy_rs.udp.UdpServer) for server in opened)


def is_admitted(client: str) -> bool:
    """Whether a client of this address is listened to."""
    return not blocked_by(client, ctx.options.block_global, ctx.options.block_private)
