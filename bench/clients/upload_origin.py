"""An HTTPS origin that takes uploads: 200 when the body is the content, repeated as often as it takes."""

from __future__ import annotations

import argparse
import contextlib
import socket
import ssl
import threading
from pathlib import Path

_PIECE = 1 << 18


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--content", type=Path, required=True)
    options = parser.parse_args()

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(options.certificate, options.key)
    content = options.content.read_bytes()
    with socket.create_server(("0.0.0.0", options.port), backlog=1024) as listener:
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=_serve, args=(sock, tls, content), daemon=True).start()


def _serve(sock: socket.socket, tls: ssl.SSLContext, content: bytes) -> None:
    with contextlib.suppress(OSError), sock, tls.wrap_socket(sock, server_side=True) as stream:
        received = b""
        while b"\r\n\r\n" not in received:
            piece = stream.recv(65536)
            if not piece:
                return
            received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields[b"content-length"])
        answer = b"the same" if _is_the_content(stream, body, length, content) else b"something else"
        stream.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)


def _is_the_content(stream: ssl.SSLSocket, begun: bytes, length: int, content: bytes) -> bool:
    """Reads to the end of the body in any case."""
    at, same = 0, True
    buffer = bytearray(_PIECE)
    view = memoryview(buffer)
    piece: bytes | memoryview = begun
    while True:
        same = same and matches(bytes(piece), content, at)
        at += len(piece)
        if at >= length:
            return same and at == length
        count = stream.recv_into(buffer)
        if not count:
            return False
        piece = view[:count]


def matches(piece: bytes, content: bytes, at: int) -> bool:
    """Whether `piece` is what stands at offset `at` of `content`, repeated without end."""
    start = at % len(content)
    expected = content[start : start + len(piece)]
    while len(expected) < len(piece):
        expected += content[: len(piece) - len(expected)]
    return piece == expected


if __name__ == "__main__":
    main()
