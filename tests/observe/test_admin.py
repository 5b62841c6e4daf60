import asyncio
import contextlib
import gzip
import itertools
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from egress_gateway.observe import admin
from egress_gateway.observe.admin import AdminServer
from egress_gateway.observe.metrics import Metrics
from support.waiting import until

Ask = Callable[..., "asyncio.Future[bytes]"]


class State:
    not_ready = ""
    metrics = b"# HELP x X.\n# TYPE x gauge\nx 1\n"


@pytest.fixture
def state() -> State:
    return State()


@pytest_asyncio.fixture
async def server(state: State) -> AsyncIterator[AdminServer]:
    server = AdminServer("127.0.0.1:0", lambda: state.metrics, lambda: state.not_ready)
    await server.start()
    yield server
    await server.stop()


async def connect(server: AdminServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = server.address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def send(server: AdminServer, data: bytes) -> bytes:
    """All that comes back for `data`."""
    reader, writer = await connect(server)
    try:
        writer.write(data)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


async def get(server: AdminServer, path: str, *headers: str, method: str = "GET") -> tuple[str, bytes]:
    """The head and the body of the answer."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]
    head, _, body = (await send(server, "\r\n".join(lines).encode())).partition(b"\r\n\r\n")
    return head.decode() + "\r\n", body


async def test_metrics_are_served_in_the_text_format(server: AdminServer, state: State) -> None:
    head, body = await get(server, "/metrics")
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    assert "content-type: text/plain; version=0.0.4; charset=utf-8\r\n" in head
    assert f"content-length: {len(state.metrics)}\r\n" in head
    assert body == state.metrics


async def test_prometheus_own_accept_header_gets_the_text_format(server: AdminServer) -> None:
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    head, _ = await get(server, "/metrics?x=1", f"Accept: {accept}", "Accept-Encoding: gzip")
    assert "content-type: text/plain; version=0.0.4; charset=utf-8\r\n" in head
    assert "content-encoding: gzip\r\n" in head


@pytest.mark.parametrize("value", ["gzip", "deflate, gzip;q=1.0", "GZIP", "gzip;q=0.5"])
async def test_metrics_are_compressed_for_who_takes_it(server: AdminServer, state: State, value: str) -> None:
    head, body = await get(server, "/metrics", f"Accept-Encoding: {value}")
    assert "content-encoding: gzip\r\n" in head
    assert f"content-length: {len(body)}\r\n" in head
    assert gzip.decompress(body) == state.metrics


@pytest.mark.parametrize("header", ["Accept-Encoding: br", "Accept-Encoding: gzip;q=0", "X: gzip", "X: y"])
async def test_and_not_for_who_does_not(server: AdminServer, state: State, header: str) -> None:
    head, body = await get(server, "/metrics", header)
    assert "content-encoding" not in head
    assert body == state.metrics


async def test_the_real_metrics_can_be_scraped() -> None:
    metrics = Metrics(version="0.1.0")
    server = AdminServer("127.0.0.1:0", metrics.exposition)
    await server.start()
    _, body = await get(server, "/metrics")
    await server.stop()
    assert b'egress_build_info{version="0.1.0"' in body
    assert b"process_cpu_seconds_total" in body


async def test_healthy_while_the_loop_turns(server: AdminServer, state: State) -> None:
    state.not_ready = "rules were never loaded"
    head, body = await get(server, "/healthz")
    assert head.startswith("HTTP/1.1 200 ")
    assert body == b"ok\n"


async def test_ready_or_why_not(server: AdminServer, state: State) -> None:
    head, body = await get(server, "/readyz")
    assert (head[:13], body) == ("HTTP/1.1 200 ", b"ready\n")
    state.not_ready = "rules were never loaded"
    head, body = await get(server, "/readyz")
    assert (head[:13], body) == ("HTTP/1.1 503 ", b"not ready: rules were never loaded\n")


async def test_not_ready_if_nobody_can_tell(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> str:
        raise RuntimeError("no")

    server = AdminServer("127.0.0.1:0", lambda: b"", broken)
    await server.start()
    head, body = await get(server, "/readyz")
    await server.stop()
    assert head.startswith("HTTP/1.1 503 ")
    assert b"the log says why" in body
    assert "RuntimeError" in caplog.text


async def test_metrics_that_fail_are_an_error_and_the_next_page_works(
    server: AdminServer, state: State, caplog: pytest.LogCaptureFixture
) -> None:
    state.metrics = None  # type: ignore[assignment]  # so that it fails
    head, _ = await get(server, "/metrics", "Accept-Encoding: gzip")
    assert head.startswith("HTTP/1.1 500 ")
    assert "could not be written" in caplog.text
    assert (await get(server, "/healthz"))[1] == b"ok\n"


async def test_the_index_lists_the_pages(server: AdminServer) -> None:
    head, body = await get(server, "/")
    assert head.startswith("HTTP/1.1 200 ")
    for path in (b"/metrics", b"/healthz", b"/readyz"):
        assert path in body


async def test_head_has_the_length_and_no_body(server: AdminServer, state: State) -> None:
    for path, length in (("/metrics", len(state.metrics)), ("/healthz", 3)):
        head, body = await get(server, path, method="HEAD")
        assert head.startswith("HTTP/1.1 200 ")
        assert f"content-length: {length}\r\n" in head
        assert body == b""


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
async def test_it_can_only_be_read(server: AdminServer, method: str) -> None:
    head, _ = await get(server, "/metrics", method=method)
    assert head.startswith("HTTP/1.1 405 ")
    assert "allow: GET, HEAD\r\n" in head


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"GET metrics HTTP/1.1\r\n\r\n",
        b"GET http://127.0.0.1/metrics HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/2.0\r\n\r\n",
        b"GET /metrics HTTP/1.1 x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"GET /\x1b[31m HTTP/1.1\r\n\r\n",
        b"get /metrics HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    ],
)
async def test_anything_else_is_a_bad_request(server: AdminServer, data: bytes) -> None:
    assert (await send(server, data)).startswith(b"HTTP/1.1 400 ")


async def test_a_page_that_is_not_there_and_nothing_of_the_request_comes_back(server: AdminServer) -> None:
    head, body = await get(server, "/<script>alert(1)</script>")
    assert head.startswith("HTTP/1.1 404 ")
    assert b"script" not in head.encode() + body
    assert "x-content-type-options: nosniff\r\n" in head


async def test_a_head_that_is_too_large_is_refused(server: AdminServer) -> None:
    answer = await send(server, b"GET / HTTP/1.1\r\nX: " + b"x" * 9000)
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_a_second_request_on_a_connection_is_not_answered(server: AdminServer) -> None:
    answer = await send(server, b"GET /healthz HTTP/1.1\r\n\r\n" * 2)
    assert answer.count(b"HTTP/1.1") == 1
    assert b"connection: close\r\n" in answer


async def test_a_client_that_sends_slowly_is_dropped(server: AdminServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "_HEAD_SECONDS", 0.3)
    reader, writer = await connect(server)
    head = itertools.chain(b"GET /", itertools.repeat(ord("x")))
    async with asyncio.timeout(15):
        while not (reader.at_eof() or reader.exception()):
            writer.write(bytes([next(head)]))
            await asyncio.sleep(0.05)
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()


async def test_a_client_that_does_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "_ANSWER_SECONDS", 0.3)
    asked = []

    def large() -> bytes:
        asked.append(True)
        return bytes(50_000_000)

    server = AdminServer("127.0.0.1:0", large)
    await server.start()
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port))) as sock:
        sock.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        await until(lambda: asked and not server._connections, "the end of it")
        assert (await get(server, "/healthz"))[1] == b"ok\n"
    await server.stop()


async def test_many_slow_clients_do_not_keep_others_out(server: AdminServer) -> None:
    slow = [await connect(server) for _ in range(200)]
    for _, writer in slow:
        writer.write(b"GET /metrics HTT")
    for _ in range(20):
        assert (await get(server, "/healthz"))[1] == b"ok\n"
    assert len(server._connections) <= 64
    for _, writer in slow:
        writer.close()


async def test_a_scrape_that_takes_long_holds_up_nothing() -> None:
    release = threading.Event()

    def slow() -> bytes:
        release.wait(30)
        return b"x 1\n"

    server = AdminServer("127.0.0.1:0", slow)
    await server.start()
    scrapes = [asyncio.ensure_future(get(server, "/metrics")) for _ in range(3)]
    await asyncio.sleep(0.1)
    assert (await get(server, "/healthz"))[1] == b"ok\n"
    release.set()
    assert [body for _, body in await asyncio.gather(*scrapes)] == [b"x 1\n"] * 3
    await server.stop()


async def test_a_port_that_is_taken_is_said_in_one_line_with_what_to_do(server: AdminServer) -> None:
    second = AdminServer(server.address, lambda: b"")
    with pytest.raises(OSError, match="cannot serve metrics on") as caught:
        await second.start()
    text = str(caught.value)
    assert re.search(r"cannot serve metrics on 127\.0\.0\.1:\d+: .*address already in use", text)
    assert "set egress_metrics_listen to another address, or to nothing" in text
    assert "\n" not in text
    await second.stop()


async def test_stop_closes_the_port_and_the_connections(state: State) -> None:
    server = AdminServer("127.0.0.1:0", lambda: state.metrics)
    await server.start()
    address = server.address
    reader, writer = await connect(server)
    await asyncio.sleep(0.05)
    await asyncio.wait_for(server.stop(), 15)
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 15) == b""
    writer.close()
    host, _, port = address.rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, int(port))
    assert server.address == ""
    await server.stop()


async def test_ipv6() -> None:
    server = AdminServer("[::1]:0", lambda: b"")
    await server.start()
    assert re.fullmatch(r"\[::1\]:\d+", server.address)
    await server.stop()
