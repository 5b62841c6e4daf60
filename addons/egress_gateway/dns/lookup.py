"""Look one full name up: both families at once, or its service bindings; server after server, alias after alias.

- A and AAAA are asked at the same time. When one has addresses, the other gets `RESOLUTION_DELAY` more;
  then what there is must do (RFC 8305 section 3 does the same, for less time). An answer that lacks a
  family because that family's question failed is `complete = False`: good enough to dial, not to be
  remembered for long.
- "No such name" and "no data" need both families to say so. One of them saying nothing at all is a
  failure, since the name may well have an address there.
- A server that is silent is asked again, `attempts` times in turn with the others. One that said
  SERVFAIL, REFUSED or nonsense is not asked again in this lookup; the next one is.
- Of several failures, what a server said tells more than that another was silent.
- The aliases on the way are told, if both families passed the same ones: then they are the name's, and not
  one server's momentary choice.
"""

import asyncio
from dataclasses import dataclass, replace
from typing import Protocol

import dns.message
import dns.name
import dns.rdatatype

from egress_gateway.dns import chain, client
from egress_gateway.dns.answer import Address, ResolveError, ResolveFailure, interleave
from egress_gateway.dns.chain import Elsewhere, Found, Nothing
from egress_gateway.dns.settings import Server

RESOLUTION_DELAY = 0.25


class Ask(Protocol):
    """Puts one question to one server, as `client.ask` does."""

    async def __call__(
        self, server: Server, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, /, *, within: float
    ) -> dns.message.Message: ...


@dataclass(frozen=True, slots=True)
class Route:
    """Whom to ask, and how patiently."""

    servers: tuple[Server, ...]
    timeout: float  # seconds, one question to one server
    attempts: int
    ask: Ask = client.ask


@dataclass(frozen=True, slots=True)
class Addresses:
    """What both families gave together."""

    addresses: tuple[Address, ...]  # at least one, in the order to dial them
    ttl: int
    complete: bool  # False: one family's question failed
    aliases: tuple[dns.name.Name, ...] = ()  # that both families passed, in order; none where they differ


async def look_up(name: dns.name.Name, route: Route) -> Addresses | Nothing:
    """Ask for the addresses of `name`. Raises ResolveError when the servers failed."""
    tasks = [asyncio.create_task(_outcome(name, rdtype, route)) for rdtype in _FAMILIES]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        enough = any(isinstance(task.result(), Found) for task in done)
        done, _ = await asyncio.wait(tasks, timeout=RESOLUTION_DELAY if enough else None)
        return _together(str(name), [task.result() for task in done])
    finally:
        for task in tasks:
            task.cancel()


async def look_up_bindings(name: dns.name.Name, rdtype: dns.rdatatype.RdataType, route: Route) -> Found | Nothing:
    """Ask for the HTTPS or SVCB records of `name`. Raises ResolveError when the servers failed."""
    outcome = await _outcome(name, rdtype, route)
    if isinstance(outcome, ResolveError):
        raise outcome
    return outcome


_FAMILIES = (dns.rdatatype.AAAA, dns.rdatatype.A)


def _together(name: str, outcomes: list[Found | Nothing | ResolveError]) -> Addresses | Nothing:
    found = [outcome for outcome in outcomes if isinstance(outcome, Found)]
    nothing = [outcome for outcome in outcomes if isinstance(outcome, Nothing)]
    if found:
        return Addresses(
            addresses=interleave(address for outcome in found for address in outcome.addresses),
            ttl=min(outcome.ttl for outcome in found),
            complete=len(found) + len(nothing) == len(_FAMILIES),
            aliases=found[0].aliases if len({outcome.aliases for outcome in found}) == 1 else (),
        )
    if len(nothing) < len(_FAMILIES):
        raise _most_telling(name, [outcome for outcome in outcomes if isinstance(outcome, ResolveError)])
    exists = [outcome for outcome in nothing if outcome.kind is ResolveFailure.NO_DATA]
    ttl = min(outcome.ttl for outcome in nothing)
    return Nothing(ResolveFailure.NO_DATA if exists else ResolveFailure.NXDOMAIN, ttl)


def _most_telling(name: str, errors: list[ResolveError]) -> ResolveError:
    told = [error for error in errors if error.kind is not ResolveFailure.TIMEOUT] or errors
    return told[0] if told else ResolveError(ResolveFailure.TIMEOUT, name)


async def _outcome(
    name: dns.name.Name, rdtype: dns.rdatatype.RdataType, route: Route
) -> Found | Nothing | ResolveError:
    """One type. A failure is a value here, so that no task ends with an exception that nobody reads."""
    try:
        return await _one_type(name, rdtype, route)
    except ResolveError as error:
        return error.again()
    except Exception as error:
        return ResolveError(ResolveFailure.MALFORMED, str(name), f"unexpected {type(error).__name__}")


async def _one_type(name: dns.name.Name, rdtype: dns.rdatatype.RdataType, route: Route) -> Found | Nothing:
    """Follow aliases from message to message, no more of them in all than one message may have."""
    aliases: tuple[dns.name.Name, ...] = ()
    target, ttl, passed = name, chain.NO_LIMIT, {name}
    while True:
        outcome = await _one_name(target, rdtype, route)
        ttl = min(ttl, outcome.ttl)
        match outcome:
            case Found():
                return replace(outcome, ttl=ttl, aliases=(*aliases, *outcome.aliases))
            case Nothing(kind, _):
                return Nothing(kind, ttl)
            case Elsewhere(target, more, _):
                aliases = (*aliases, *more)
                if target in passed or len(aliases) > chain.MAX_ALIASES:
                    raise ResolveError(ResolveFailure.MALFORMED, str(name), "its aliases lead nowhere")
                passed.add(target)


async def _one_name(name: dns.name.Name, rdtype: dns.rdatatype.RdataType, route: Route) -> Found | Nothing | Elsewhere:
    errors: list[ResolveError] = []
    servers = list(route.servers)
    for _ in range(route.attempts):
        for server in tuple(servers):
            try:
                return chain.read(await route.ask(server, name, rdtype, within=route.timeout), name, rdtype)
            except ResolveError as error:
                errors.append(error.again())
                if error.kind is not ResolveFailure.TIMEOUT:
                    servers.remove(server)
    raise _most_telling(str(name), errors)
