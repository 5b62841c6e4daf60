"""The address that was judged is the address that is dialled.

mitmproxy resolves names itself, after its last hook. A `PinnedAddress` takes the place of a server's address: it is
equal to `(name, port)` wherever mitmproxy compares, hashes or shows it (connection pool, limit of connections, log),
and unpacks to judged addresses where mitmproxy dials it. There the event loop, once `dial_pins` has been called on it,
recognises a `PinnedHost` and dials its addresses, within a time limit, the way the relay does.

A loop that cannot be taught that dials the text of the `PinnedHost`, which is the first judged address: in no case is
a name looked up again.

Until its address has been judged a connection holds an `unjudged` one, which cannot be dialled: so that another addon
that keeps our hook from being called (mitmproxy lets it) gets no connection instead of an unjudged one.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

from mitmproxy.proxy import commands

from egress_gateway.gate.gatekeeper import Route
from egress_gateway.hooks.fail_closed import REFUSED
from egress_gateway.policy.hostname import Address
from egress_gateway.relay.dial import DialError, dial

logger = logging.getLogger(__name__)


class PinnedHost(str):
    """What to dial in place of a name; with no addresses, nothing."""

    addresses: tuple[Address, ...]
    connect_timeout: float
    """Seconds, over all addresses."""
    local_address: str | None
    timed_out: bool
    """Whether dialling ended for want of an answer."""

    def __new__(
        cls, text: str, addresses: tuple[Address, ...], connect_timeout: float, local_address: str | None
    ) -> PinnedHost:
        made = super().__new__(cls, text)
        made.addresses = addresses
        made.connect_timeout = connect_timeout
        made.local_address = local_address
        made.timed_out = False
        return made


class PinnedAddress(tuple[str, int]):
    """`(name, port)` to everyone who looks at it, `(PinnedHost, port)` to the one who unpacks it."""

    host: PinnedHost
    dialled_port: int

    def __new__(cls, name: str, port: int, host: PinnedHost, dialled_port: int) -> PinnedAddress:
        made = super().__new__(cls, (name, port))
        made.host = host
        made.dialled_port = dialled_port
        return made

    def __iter__(self) -> Iterator[Any]:
        yield self.host
        yield self.dialled_port

    @property
    def plain(self) -> tuple[str, int]:
        """An ordinary tuple, equal to this one."""
        return self[0], self[1]


def pinned(
    name: str, port: int, route: Route, connect_timeout: float, local_address: str | None = None
) -> PinnedAddress:
    """`(name, port)`, to be dialled at the judged addresses of `route`."""
    host = PinnedHost(str(route.addresses[0]), route.addresses, connect_timeout, local_address)
    return PinnedAddress(name, port, host, route.port)


_NOWHERE = "unjudged.invalid"


def unjudged(name: str, port: int) -> PinnedAddress:
    """`(name, port)`, not to be dialled."""
    return PinnedAddress(name, port, PinnedHost(_NOWHERE, (), 0, None), port)


def hold_back(command: commands.OpenConnection) -> None:
    """Makes sure that a connection about to be asked for is dialled only once it has been judged."""
    address = command.connection.address
    if address is not None and not isinstance(address, PinnedAddress):
        command.connection.address = unjudged(address[0], address[1])


def dial_pins(loop: asyncio.AbstractEventLoop) -> bool:
    """Teaches `loop` to dial pins; returns whether it could be taught. Calling it again changes nothing."""
    original = loop.create_connection
    if getattr(original, "dials_pins", False):
        return True

    async def create_connection(
        protocol_factory: Callable[[], Any], host: Any = None, port: Any = None, **options: Any
    ) -> Any:
        if not isinstance(host, PinnedHost):
            return await original(protocol_factory, host, port, **options)
        sock = await _connect(host, port)
        try:
            return await original(protocol_factory, sock=sock)
        except BaseException:
            sock.close()
            raise

    create_connection.dials_pins = True  # type: ignore[attr-defined]  # a mark
    try:
        loop.create_connection = create_connection  # type: ignore[method-assign]  # on purpose
    except AttributeError:
        logger.warning(
            "egress gateway: %s cannot be taught to dial several addresses; the first judged one is dialled.",
            type(loop).__name__,
        )
        return False
    return True


async def _connect(host: PinnedHost, port: int) -> socket.socket:
    """Raises OSError, a TimeoutError where nobody answered in time."""
    if not host.addresses:
        raise ConnectionError(f"{REFUSED}: nobody has judged this connection")
    try:
        dialled = await dial(
            host.addresses, port, connect_timeout=host.connect_timeout, local_address=host.local_address
        )
    except DialError as error:
        # mitmproxy takes an OSError for a connection that could not be made, and anything else for a crash.
        host.timed_out = error.timed_out
        raise (TimeoutError if error.timed_out else ConnectionError)(str(error)) from None
    return dialled.connection.hand_over()
