"""What all subjects have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.programs import Program


@dataclass(frozen=True, slots=True)
class Setting:
    """What a subject is started with."""

    folder: Path
    """Its own, empty."""
    ca: Path
    names: tuple[str, ...]
    """Allowed hosts, those of the bench among them."""
    log: bool
    """Whether it writes an access log (into its folder)."""
    port: int
    """The first of ten on loopback that are its own."""
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Running:
    """A subject that answers."""

    name: str
    program: Program
    http: int = 0
    """Port of the HTTP proxy; 0: it does not do that."""
    originate: int = 0
    """Port that takes http://host:443/ and speaks TLS with the destination."""
    connect: int = 0
    """Port that takes CONNECT."""
    sni: int = 0
    """Port that takes TLS, and goes by its SNI."""

    def stop(self) -> None:
        self.program.stop()


type Start = Callable[[Mapping[str, str], Setting], Running]
"""Takes where the programs are; returns when the subject answers."""


def started(running: Running, timeout: float = 30) -> Running:
    """As soon as all its ports answer; it is ended where one does not."""
    try:
        for port in {running.http, running.originate, running.connect, running.sni} - {0}:
            running.program.wait_for_port(port, timeout)
    except BaseException:
        running.stop()
        raise
    return running
