"""A pin is the name to all who look at it, and judged addresses to the one who dials."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address

import pytest

from egress_gateway.gate.gatekeeper import Route
from egress_gateway.hooks.inspect.pin import PinnedAddress, PinnedHost, dial_pins, pinned, unjudged
from support.netns import BLACKHOLE_V4


def route(*addresses: str, port: int) -> Route:
    return Route(tuple(ip_address(address) for address in addresses), port)


def test_a_pin_compares_hashes_and_shows_as_the_name() -> None:
    pin = pinned("www.example.com", 443, route("192.0.2.1", "192.0.2.2", port=8443), 1)
    assert pin == ("www.example.com", 443)
    plain: object = ("www.example.com", 443)
    assert plain in {pin: 1}
    assert (pin[0], pin[1]) == ("www.example.com", 443)
    assert pin.plain == ("www.example.com", 443)
    assert type(pin.plain) is tuple


def test_a_pin_unpacks_to_judged_addresses_and_the_port_to_dial() -> None:
    pin = pinned("www.example.com", 443, route("192.0.2.1", "192.0.2.2", port=8443), 1)

    def called(*args: object) -> tuple[object, ...]:
        return args

    host, port = called(*pin)
    assert isinstance(host, PinnedHost)
    assert (str(host), port) == ("192.0.2.1", 8443)
    assert [str(address) for address in host.addresses] == ["192.0.2.1", "192.0.2.2"]


@asynccontextmanager
async def listening(address: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"here")
        writer.close()

    server = await asyncio.start_server(serve, address, port)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def dial(pin: PinnedAddress) -> bytes:
    """As mitmproxy does."""
    reader, writer = await asyncio.open_connection(*pin, local_addr=None)
    try:
        return await reader.read()
    finally:
        writer.close()


@pytest.fixture
def no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a name was looked up")

    monkeypatch.setattr(socket, "getaddrinfo", fail)


@pytest.mark.usefixtures("no_names")
async def test_the_next_address_is_dialled_when_the_first_refuses() -> None:
    assert dial_pins(asyncio.get_running_loop())
    async with listening("127.0.0.2") as port:
        pin = pinned("name.example", 80, route("127.0.0.1", "127.0.0.2", port=port), 5)
        assert await dial(pin) == b"here"
        with pytest.raises(ConnectionError, match=r"127\.0\.0\.1"):
            await dial(pinned("name.example", 80, route("127.0.0.1", port=port), 5))


@pytest.mark.usefixtures("no_names")
async def test_without_a_taught_loop_the_first_judged_address_is_dialled() -> None:
    async with listening() as port:
        assert await dial(pinned("name.example", 80, route("127.0.0.1", port=port), 5)) == b"here"


async def test_what_was_not_judged_is_not_dialled() -> None:
    dial_pins(asyncio.get_running_loop())
    async with listening() as port:
        with pytest.raises(ConnectionError, match="nobody has judged"):
            await dial(unjudged("127.0.0.1", port))


@pytest.mark.private_network
async def test_dialling_ends_in_time() -> None:
    dial_pins(asyncio.get_running_loop())
    pin = pinned("name.example", 80, route(BLACKHOLE_V4, port=80), 0.05)
    with pytest.raises(TimeoutError):
        await dial(pin)
    assert pin.host.timed_out


async def test_other_connections_are_made_as_before() -> None:
    loop = asyncio.get_running_loop()
    dial_pins(loop)
    taught = loop.create_connection
    assert dial_pins(loop)
    assert loop.create_connection is taught
    async with listening() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b"here"
        writer.close()
