"""Moves many bytes through one tunnel after the other, down or up, and compares every one of them."""

from __future__ import annotations

import json
import ssl
import time
from pathlib import Path

from bench.clients.tunnel import Wrong, argument_parser, context, open_tunnel, way_of
from bench.clients.upload_origin import matches

_PIECE = 1 << 18


def main() -> None:
    parser = argument_parser()
    parser.add_argument("direction", choices=("down", "up"))
    parser.add_argument("--content", type=Path, required=True)
    parser.add_argument("--bytes", type=int, required=True, help="at least so many, in whole contents")
    options = parser.parse_args()

    tls = context(options.ca)
    way = way_of(options)
    content = options.content.read_bytes()
    moved, wrong = 0, []
    started = time.monotonic()
    try:
        while moved < options.bytes:
            with open_tunnel(way, tls) as tunnel:
                moved += (_down if options.direction == "down" else _up)(tunnel, way.host, options.path, content)
    except (OSError, Wrong) as error:
        wrong.append(f"{type(error).__name__}: {error}")
    seconds = time.monotonic() - started
    print(json.dumps({"good": moved, "wrong": len(wrong), "examples": wrong, "seconds": seconds}))


def _down(tunnel: ssl.SSLSocket, host: str, path: str, content: bytes) -> int:
    tunnel.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("ascii"))
    received = b""
    while b"\r\n\r\n" not in received:
        piece = tunnel.recv(65536)
        if not piece:
            raise Wrong(f"closed after {received[:300]!r}")
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise Wrong(f"{head[:300]!r}")
    at = 0
    buffer = bytearray(_PIECE)
    view = memoryview(buffer)
    while True:
        if not matches(body, content, at):
            raise Wrong(f"other content at byte {at} to {at + len(body)}")
        at += len(body)
        count = tunnel.recv_into(buffer)
        if not count:
            break
        body = bytes(view[:count])
    if at != len(content):
        raise Wrong(f"{at} bytes instead of {len(content)}")
    return at


def _up(tunnel: ssl.SSLSocket, host: str, path: str, content: bytes) -> int:
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {len(content)}\r\n\r\n"
    tunnel.sendall(head.encode("ascii"))
    view = memoryview(content)
    for start in range(0, len(content), _PIECE):
        tunnel.sendall(view[start : start + _PIECE])
    answer = b""
    while piece := tunnel.recv(65536):
        answer += piece
    if not (answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\nthe same")):
        raise Wrong(f"the origin says {answer[:300]!r}")
    return len(content)


if __name__ == "__main__":
    main()
