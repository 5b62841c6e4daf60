"""Start any kind of origin in one line, and close all of them in the end."""

import contextlib
from typing import Any

from support.ca import Certificate, SessionCa
from support.origin.h2 import H2Origin
from support.origin.http1 import HttpOrigin
from support.origin.raw import RawOrigin, ScriptedOrigin


class Origins:
    """Starts origins and closes them in the end; `https` and `h2` issue a certificate unless given one."""

    def __init__(self, ca: SessionCa, stack: contextlib.ExitStack) -> None:
        self._ca = ca
        self._stack = stack

    def start[T](self, server: contextlib.AbstractContextManager[T]) -> T:
        """Start one made by hand."""
        return self._stack.enter_context(server)

    def http(self, address: str, port: int = 80, **more: Any) -> HttpOrigin:
        return self.start(HttpOrigin(address, port, **more))

    def https(
        self, address: str, name: str, port: int = 443, *, certificate: Certificate | None = None, **more: Any
    ) -> HttpOrigin:
        certificate = certificate or self._ca.issue(name)
        return self.start(HttpOrigin(address, port, certificate=certificate, name=name, **more))

    def h2(self, address: str, name: str, port: int = 443, *, certificate: Certificate | None = None) -> H2Origin:
        return self.start(H2Origin(address, port, certificate=certificate or self._ca.issue(name), name=name))

    def h2c(self, address: str, name: str, port: int = 80) -> H2Origin:
        """HTTP/2 in the clear, with prior knowledge."""
        return self.start(H2Origin(address, port, name=name))

    def tcp(self, address: str, port: int, *, greeting: bytes = b"", **more: Any) -> RawOrigin:
        """An echo, which may greet first."""
        return self.start(RawOrigin(address, port, greeting=greeting, **more))

    def scripted(self, address: str, port: int, *answers: bytes, **more: Any) -> ScriptedOrigin:
        """Answers each head with the next of these, as they stand."""
        return self.start(ScriptedOrigin(address, port, answers=answers, **more))
