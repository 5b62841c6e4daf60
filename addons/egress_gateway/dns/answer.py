"""What a lookup gives: an `Answer` or `Bindings`, or a `ResolveError` that says why there is none.

- An answer has at least one address, IPv6 and IPv4 in turn with IPv6 first, which is the order that RFC
  8305 section 4 asks a dialler to try them in. Within a family the server's order is kept.
- Each family is cut after `MAX_ADDRESSES`: whoever owns a zone must not decide how much memory an answer
  costs, or how many hosts one connection makes us knock at.
- `ResolveFailure` values are labels of metrics and fields of logs, spelled once, here.
- Whatever came from a client or a server is escaped before it stands in an error's text.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from itertools import chain, zip_longest
from typing import Self

from dns.rdtypes.svcbbase import SVCBBase

type Address = IPv4Address | IPv6Address

MAX_ADDRESSES = 64


class ResolveFailure(StrEnum):
    """Why there is no answer."""

    NXDOMAIN = "nxdomain"  # the name does not exist
    NO_DATA = "no_data"  # it exists, without an address
    TIMEOUT = "timeout"  # no server said anything in time
    SERVFAIL = "servfail"  # a server, or the way to it, failed
    REFUSED = "refused"  # a server does not answer us, or nobody listens at its address
    MALFORMED = "malformed"  # the name cannot be asked for, or the answer cannot be understood
    OVERLOADED = "overloaded"  # this gateway has too much to do, or is closing


_SENTENCES = {
    ResolveFailure.NXDOMAIN: "no such name",
    ResolveFailure.NO_DATA: "the name has no address",
    ResolveFailure.TIMEOUT: "no name server answered in time",
    ResolveFailure.SERVFAIL: "the name server failed",
    ResolveFailure.REFUSED: "the name server refused the question",
    ResolveFailure.MALFORMED: "the name or its answer is malformed",
    ResolveFailure.OVERLOADED: "the resolver takes no more questions",
}


class ResolveError(Exception):
    """A name that has no address for us now. `str` says it in one line of printable ASCII."""

    def __init__(self, kind: ResolveFailure, name: str, detail: str = "") -> None:
        shown = name[:255].encode("unicode_escape").decode("ascii")
        super().__init__(f"{shown}: {_SENTENCES[kind]}{f' ({detail})' if detail else ''}")
        self.kind = kind
        self.name = name
        self.detail = detail

    def again(self) -> Self:
        """An equal error that nobody has raised: one that is raised twice collects the tracebacks of both."""
        return type(self)(self.kind, self.name, self.detail)


@dataclass(frozen=True, slots=True)
class Answer:
    """Addresses to judge and to dial."""

    addresses: tuple[Address, ...]  # at least one; IPv6 and IPv4 in turn, IPv6 first
    expires_at: float  # monotonic seconds
    name: str  # the name that was asked finally, after the search list
    aliases: tuple[str, ...] = ()  # that led from there to the addresses, in order; none where the families differ
    complete: bool = True  # False: the question for one family failed


@dataclass(frozen=True, slots=True)
class Bindings:
    """What HTTPS or SVCB records (RFC 9460) say of a name. Nobody has judged them."""

    records: tuple[SVCBBase, ...]  # at least one, in the server's order
    expires_at: float  # monotonic seconds
    name: str  # the name that was asked finally, after the search list
    owner: str  # whose records they are, after aliases


def interleave(addresses: Iterable[Address]) -> tuple[Address, ...]:
    """Without repetition, IPv6 and IPv4 in turn, each family in the order given and cut to size."""
    once = dict.fromkeys(addresses)
    sixes = [address for address in once if address.version == 6][:MAX_ADDRESSES]
    fours = [address for address in once if address.version == 4][:MAX_ADDRESSES]
    return tuple(address for address in chain(*zip_longest(sixes, fours)) if address is not None)
