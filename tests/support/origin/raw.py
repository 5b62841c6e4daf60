"""Origins that are not HTTP: an echo, a server that greets first, and one that plays back bytes."""

from collections.abc import Sequence
from typing import Any

from support.origin.listener import Connection, Listener

SSH_GREETING = b"SSH-2.0-test\r\n"
_END_OF_HEAD = b"\r\n\r\n"


class RawOrigin(Listener):
    """Sends `greeting` (if any) at once, then every byte back."""

    def __init__(self, address: str, port: int = 0, *, greeting: bytes = b"", **listener: Any) -> None:
        super().__init__(address, port, **listener)
        self.greeting = greeting

    def serve(self, connection: Connection) -> None:
        connection.sock.sendall(self.greeting)
        while data := connection.recv():
            connection.sock.sendall(data)


class ScriptedOrigin(Listener):
    """Reads up to a blank line and sends the next of `answers` as it stands, and closes after the last one.

    With `stays_open` it keeps the connection, and records what still comes.
    """

    def __init__(
        self,
        address: str,
        port: int = 0,
        *,
        answers: Sequence[bytes],
        until: bytes = _END_OF_HEAD,
        stays_open: bool = False,
        **listener: Any,
    ) -> None:
        super().__init__(address, port, **listener)
        self.answers = list(answers)
        self.until = until
        self.stays_open = stays_open

    def serve(self, connection: Connection) -> None:
        pending = b""
        for answer in self.answers:
            while self.until not in pending:
                data = connection.recv()
                if not data:
                    return
                pending += data
            pending = pending.partition(self.until)[2]
            connection.sock.sendall(answer)
        while self.stays_open and connection.recv():
            pass
