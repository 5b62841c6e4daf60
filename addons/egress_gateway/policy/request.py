"""The facts of one decision, as one frozen value, so that a new fact does not change every signature."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum

from .hostname import Address, Host, Hostname


class Spoken(StrEnum):
    """What the client has been seen to speak on the connection that the decision is about."""

    UNKNOWN = "unknown"
    """A tunnel was asked for and no byte of it has been seen."""
    HTTP = "http"
    HTTP2 = "http2"
    TLS = "tls"
    OTHER = "other"


@dataclass(frozen=True, slots=True, init=False)
class Request:
    """What a client asks for. Every name and address in it is canonical; past the edge nothing is parsed again."""

    host: Host
    """The destination the client names: request URI, CONNECT or SOCKS target; in transparent modes the name in SNI or
    Host, or the original address where there is no name."""
    port: int
    spoken: Spoken = Spoken.UNKNOWN
    sni: Hostname | None = None
    """The server name of the ClientHello; None where there is none."""
    authority: Host | None = None
    """The host of the Host header (or `:authority`); None where there is none."""
    original: Address | None = None
    """Transparent modes: the address that the client itself dialled."""

    # Made for every request: what a frozen dataclass makes of itself costs three times as much, since it looks up each
    # field by its name to set it.
    def __init__(
        self,
        host: Host,
        port: int,
        spoken: Spoken = Spoken.UNKNOWN,
        sni: Hostname | None = None,
        authority: Host | None = None,
        original: Address | None = None,
    ) -> None:
        _set_host(self, host)
        _set_port(self, port)
        _set_spoken(self, spoken)
        _set_sni(self, sni)
        _set_authority(self, authority)
        _set_original(self, original)


_set_host, _set_port, _set_spoken, _set_sni, _set_authority, _set_original = (
    getattr(Request, field.name).__set__ for field in fields(Request)
)
