"""A gibibyte up and down through each path: every byte arrives, and the process does not grow with it."""

from __future__ import annotations

import hashlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest

from support.gateway import Gateway
from support.http import connect_tunnel, tls_client
from support.origin.http1 import pseudo_random, sha256_of_pseudo_random

SIZE = 1 << 30
MOST_GROWTH_KIB = 64 * 1024

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cold() -> bool:
    """How it starts is none of these tests' business."""
    return False


@pytest.fixture(scope="module", params=["mitmdump relay", "mitmdump inspect", "gateway relay"], ids=lambda param: param)
def gw(world: Any, request: pytest.FixtureRequest) -> Gateway:
    """The relay's sockets are its own in the runner, and mitmproxy's in mitmdump; in inspect they are mitmproxy's."""
    program, data_path = request.param.split()
    gateway: Gateway = world.gateway(program=program, data_path=data_path)
    return gateway


@contextmanager
def bounded_memory(gw: Gateway) -> Iterator[None]:
    """Samples the gateway's resident memory; it must not grow by more than 64 MiB."""
    before, highest, done = gw.rss_kib(), [0], threading.Event()

    def sample() -> None:
        while not done.wait(0.05):
            highest[0] = max(highest[0], gw.rss_kib())

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield
    finally:
        done.set()
        sampler.join()
    assert highest[0] > 0
    assert highest[0] - before < MOST_GROWTH_KIB, f"grew by {(highest[0] - before) / 1024:.0f} MiB"


def forwarded(gw: Gateway, _: Any) -> tuple[socket.socket, str, str]:
    return gw.connect(timeout=120), "http://plain.example", "plain.example"


def originated(gw: Gateway, _: Any) -> tuple[socket.socket, str, str]:
    return gw.connect(timeout=120), "http://www.googleapis.com:443", "www.googleapis.com:443"


def passed_through(gw: Gateway, world: Any) -> tuple[socket.socket, str, str]:
    status, sock = connect_tunnel(gw, "www.googleapis.com:443")
    assert status == 200
    sock.settimeout(120)
    return tls_client(sock, "www.googleapis.com", world.ca.pem_path), "", "www.googleapis.com"


WAYS: dict[str, Callable[[Gateway, Any], tuple[socket.socket, str, str]]] = {
    "forwarded": forwarded,
    "with TLS origination": originated,
    "through a TLS tunnel": passed_through,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_gibibyte_down(gw: Gateway, world: Any, way: str) -> None:
    sock, prefix, host = WAYS[way](gw, world)
    digest, size = hashlib.sha256(), 0
    with sock, bounded_memory(gw):
        sock.sendall(f"GET {prefix}/bytes/{SIZE} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        response = http.client.HTTPResponse(sock)
        response.begin()
        assert response.status == 200
        while piece := response.read(1 << 20):
            digest.update(piece)
            size += len(piece)
    assert size == SIZE
    assert digest.hexdigest() == _expected()


@pytest.mark.parametrize("way", WAYS)
def test_a_gibibyte_up(gw: Gateway, world: Any, way: str) -> None:
    sock, prefix, host = WAYS[way](gw, world)
    with sock, bounded_memory(gw):
        head = f"POST {prefix}/echo HTTP/1.1\r\nHost: {host}\r\nContent-Length: {SIZE}\r\n\r\n"
        sock.sendall(head.encode())
        for piece in pseudo_random(SIZE):
            sock.sendall(piece)
        response = http.client.HTTPResponse(sock)
        response.begin()
        assert response.status == 200
    server = world.plain if way == "forwarded" else world.secure
    deadline = time.monotonic() + 10
    while server.requests[-1].body_size != SIZE and time.monotonic() < deadline:
        time.sleep(0.05)
    assert server.requests[-1].body_sha256 == _expected()


@cache  # it takes seconds
def _expected() -> str:
    return sha256_of_pseudo_random(SIZE)
