"""Servers that speak UDP: a thread, and an answer for each packet."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self


class DatagramServer:
    """Give it an `answer`."""

    def __init__(self, address: str, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, port))
        self.address = f"{address}:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, name=f"datagrams {self.address}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # wakes the thread; an unconnected socket complains all the same
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(2)
        self._socket.close()

    def answer(self, packet: bytes) -> bytes | None:
        """What is sent back for `packet`; None for silence."""
        raise NotImplementedError

    def _serve(self) -> None:
        while True:
            packet, client = self._socket.recvfrom(65535)
            if not packet:
                return
            answer = self.answer(packet)
            if answer is not None:
                self._socket.sendto(answer, client)


class Echo(DatagramServer):
    """Says what it was told."""

    def answer(self, packet: bytes) -> bytes:
        return packet
