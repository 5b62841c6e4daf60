"""Requests at a fixed pace over one kept connection, through a proxy or straight to the origin.

Prints of each when it was due (by the clock that all processes of the machine share) and how long it took. One that
could not be sent in time, since the one before was still waiting, has waited as well.
"""

from __future__ import annotations

import argparse
import json
import socket
import time


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--proxy", type=int, required=True, help="port on loopback; 0: straight")
    parser.add_argument("--host", required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--body", required=True)
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()

    if options.proxy:
        sock = _connection("127.0.0.1", options.proxy)
        request = _request(f"http://{options.host}{options.path}", options.host)
    else:
        sock = _connection(options.host, 80)
        request = _request(options.path, options.host)
    body = options.body.encode("ascii")
    for _ in range(20):  # the first of a connection is another matter
        _exchange(sock, request, body)

    taken: list[tuple[float, float]] = []
    wrong: list[str] = []
    start = time.monotonic()
    for number in range(int(options.rate * options.seconds)):
        due = start + number / options.rate
        pause = due - time.monotonic()
        if pause > 0:
            time.sleep(pause)
            due = time.monotonic()  # that this program woke up late is nobody's fault
        try:
            _exchange(sock, request, body)
        except (OSError, ValueError) as error:
            wrong.append(f"{type(error).__name__}: {error}")
            break
        taken.append((due, time.monotonic() - due))
    print(json.dumps({"good": len(taken), "wrong": len(wrong), "examples": wrong, "taken": taken}))


def _connection(host: str, port: int) -> socket.socket:
    sock = socket.create_connection((host, port), timeout=30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _request(target: str, host: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("ascii")


def _exchange(sock: socket.socket, request: bytes, body: bytes) -> None:
    sock.sendall(request)
    received = b""
    while not received.endswith(b"\r\n\r\n" + body):
        piece = sock.recv(65536)
        if not piece:
            raise ValueError(f"closed after {received!r}")
        received += piece
        if len(received) > 8192:
            raise ValueError(f"not the answer: {received[:300]!r}")
    if not received.startswith(b"HTTP/1.1 200 "):
        raise ValueError(f"not the answer: {received[:300]!r}")


if __name__ == "__main__":
    main()
