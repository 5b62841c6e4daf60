"""What can be observed, as plain values. Deciding and relaying know only this base class, which observes nothing."""

from __future__ import annotations

from typing import Final

from .hostname import Address, Host
from .reason import ANSWERS, Reason
from .verdict import Verdict, refuse

_ESCAPES = str.maketrans({chr(code): f"\\x{code:02x}" for code in (*range(0x20), 0x7F)} | {"\\": "\\\\"})


def printable(text: str, limit: int = 2048) -> str:
    """`text` in printable ASCII, safe in a log, a header or a terminal; all else is written `\\xNN`.

    What is longer than `limit` characters is cut, and ends in three dots.
    """
    safe = text[: limit + 1]
    if not (safe.isascii() and safe.isprintable() and "\\" not in safe):
        safe = safe.translate(_ESCAPES).encode("ascii", "backslashreplace").decode("ascii")
    return safe if len(safe) <= limit else safe[: max(0, limit - 3)] + "..."


_UNDECIDED: Final = refuse(Reason.INTERNAL_ERROR)


class Exchange:
    """One request or tunnel, from its first byte to its end. Filled in as it goes, reported once when it is over.

    Texts that come from the client are raw here; who writes them somewhere escapes them. One is made for each request,
    so it is neither a dataclass nor has it slots: a new one need not be filled with what every new one has.
    """

    start_time: float
    """Seconds since the epoch."""
    client: tuple[str, int]
    protocol: str = ""
    """`HTTP/1.1`, `HTTP/2`, `TLS`, `TCP`, `DNS`, or the empty string where nothing was understood."""
    method: str = ""
    """Of a question to the gateway as a name server: its type, where that is a common one."""
    path: str = ""
    authority: str = ""
    """The destination as `host:port`, canonical where it could be parsed."""
    host: Host | None = None
    port: int = 0
    requested_server_name: str = ""
    original_destination: tuple[str, int] | None = None
    user: str = ""
    """The proxy user, where the gateway asks for one."""
    verdict: Verdict = _UNDECIDED
    """Refused until decided: an exchange that ends before its decision was not allowed."""
    failure: Reason | None = None
    """What ended an allowed exchange early."""
    detail: str
    """One line for people about a refusal or failure, e.g. the certificate error."""
    response_code: int = 0
    """HTTP status sent to the client; 0 where none was."""
    bytes_received: int = 0
    """Body or tunnel bytes from the client."""
    bytes_sent: int = 0
    """Body or tunnel bytes to the client."""
    duration: float = 0.0
    """Seconds."""
    upstream: tuple[Address, int] | None = None
    resolved: tuple[Address, ...] = ()
    address_check: str = ""
    """Transparent modes: a value of `address_check.Agreement`; empty where nothing was compared."""
    tls_mode: str = ""
    """`originate`, `passthrough`, `inspect`, or empty."""
    ech: bool = False
    request_id: str
    hint: str = ""

    def __init__(
        self, start_time: float, client: tuple[str, int] = ("", 0), request_id: str = "", detail: str = ""
    ) -> None:
        self.start_time, self.client, self.request_id, self.detail = start_time, client, request_id, detail

    @property
    def reason(self) -> Reason:
        """The reason to show: the failure if there was one, else the verdict's."""
        return self.failure or self.verdict.reason

    @property
    def response_flags(self) -> str:
        return ANSWERS[self.reason].flag

    @property
    def is_tunnel(self) -> bool:
        return self.protocol in ("TLS", "TCP")

    @property
    def is_question(self) -> bool:
        """Whether the gateway was asked as a name server; only refused questions become an exchange."""
        return self.protocol == "DNS"


class Observer:
    """Receives events; this one ignores them. Every method must be cheap and must not raise."""

    def decided(self, verdict: Verdict, protocol: str, seconds: float) -> None:
        """A decision was made. `protocol` is `http`, `tls`, `tcp`, `connect`, `dns` or `unknown`; never client text."""

    def mismatch(self, claim: str) -> None:
        """A claim contradicts the destination: `sni`, `host`, `connect` or `address`."""

    def finished(self, exchange: Exchange) -> None:
        """A request or tunnel is over, or was refused; or a question to the name server was."""

    def connection_opened(self, protocol: str) -> None:
        """A client connected; `protocol` is the proxy mode's name."""

    def connection_closed(self, protocol: str) -> None:
        """A client is gone."""

    def turned_away(self, cause: str) -> None:
        """There was no room for a client; `cause` is `descriptors` or `max_connections`."""

    def hello_seen(self, ech: bool) -> None:
        """A ClientHello was read; `ech`: it carries encrypted_client_hello."""

    def tunnel_opened(self, exchange: Exchange) -> None:
        """Bytes of a TLS or TCP tunnel are about to flow."""

    def looked_up(self, result: str, seconds: float) -> None:
        """A name was resolved; `result` is `success`, `cached` or a kind of failure."""

    def connected(self, seconds: float) -> None:
        """A connection to a destination was made."""

    def secured(self, seconds: float) -> None:
        """TLS to a destination was established."""

    def upstream_failed(self, reason: Reason) -> None:
        """A destination could not be reached or used."""

    def internal_error(self, where: str) -> None:
        """Code of ours raised where it must not; `where` is a fixed word."""

    def reloaded(self, rules: int, *, successful: bool) -> None:
        """The rules were read again; `rules` is how many are in force now."""
