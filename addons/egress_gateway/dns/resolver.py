"""The resolver the gateway dials by: ask for a host, get addresses to judge and dial.

In this order, and the first that knows the host answers:

1. a literal address is itself; a name whose last label is a number is an address in a strange spelling,
   and malformed;
2. `localhost` and names under it are loopback (RFC 6761 section 6.3);
3. the hosts file, when the system's files count;
4. what is remembered, answers and failures (RFC 2308), each in a bounded store of its own, so that a
   flood of names that do not exist cannot push out those that do;
5. the name servers, with the search list when the system's files count; those that are silent are passed over
   (see `upstream`).

The rules of the last step:

- Callers that ask for the same host at the same time share one lookup. It belongs to none of them: who
  gives up goes, the lookup goes on for the others, and ends within `total_timeout`.
- The search list is that of resolver(5): a host with at least `ndots` dots is first asked as it is, else
  last. Only "no such name" and "no data" lead to the next name: where a server failed, another name's
  address must not stand in.
- When resolv.conf or the hosts file says something new, all is forgotten: the same host may now mean
  something else.
- A time to live of 0 is honoured: nobody who asks later is given that answer.
- Service bindings (HTTPS, SVCB) are asked of the servers alone, for the very name whose addresses are used: what a
  file pins has none, and the search list must not lead to bindings of one name and addresses of another. They are
  remembered for fewer names, since one answer can be much larger.
- Whatever goes wrong is a `ResolveError`.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Literal

import dns.exception
import dns.name
import dns.rdatatype

from egress_gateway.dns.answer import Address, Answer, Bindings, ResolveError, ResolveFailure
from egress_gateway.dns.cache import TtlCache
from egress_gateway.dns.chain import Nothing
from egress_gateway.dns.hosts_file import parse_hosts
from egress_gateway.dns.lookup import Addresses, Route, look_up, look_up_bindings
from egress_gateway.dns.resolv_conf import ResolvConf, parse_resolv_conf
from egress_gateway.dns.settings import ResolverSettings, parse_servers
from egress_gateway.dns.upstream import Upstream
from egress_gateway.dns.watched_file import WatchedFile

__all__ = ["Answer", "ResolveError", "ResolveFailure", "Resolver", "ResolverSettings", "parse_servers"]

logger = logging.getLogger(__name__)

HOSTS_TTL = 10.0  # seconds: how long a hosts file's answer may be used without looking there again
INCOMPLETE_TTL = 5.0  # seconds: how long an answer that lacks a family is kept at most

_LOOPBACK: tuple[Address, ...] = (IPv6Address("::1"), IPv4Address("127.0.0.1"))
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

type Hosts = Mapping[str, tuple[Address, ...]]
type Outcome[V] = V | ResolveError
type Kind = Literal["HTTPS", "SVCB"]


class _Book[V]:
    """What is remembered of one kind of question, and what is being looked up."""

    def __init__(self, size: int) -> None:
        self.answers: TtlCache[V] = TtlCache(size)
        self.failures: TtlCache[ResolveError] = TtlCache(size)
        self.flights: dict[str, asyncio.Future[Outcome[V]]] = {}  # never cancelled, each always gets a result

    def clear(self) -> None:
        self.answers.clear()
        self.failures.clear()


type _Search[V] = Callable[[ResolvConf], Awaitable[tuple[Outcome[V], float]]]
type _Here[V] = Callable[[str, Hosts, float], Outcome[V] | None]


class Resolver:
    """Belongs to one event loop. `on_lookup` is told each result and the seconds it took.

    The result is "success", "cached" for an answer from memory, or the failure, be it remembered or new.
    """

    def __init__(
        self,
        settings: ResolverSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        on_lookup: Callable[[str, float], None] | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._on_lookup = on_lookup
        self._hosts = WatchedFile(settings.hosts, parse_hosts)
        self._resolv_conf = WatchedFile(settings.resolv_conf, parse_resolv_conf)
        self._fixed = ResolvConf(servers=settings.servers) if settings.servers else None
        self._valid_for: tuple[ResolvConf, Hosts] | None = None  # what the files said when memory was filled
        self._addresses: _Book[Answer] = _Book(settings.cache_size)
        self._bindings: _Book[Bindings] = _Book(max(1, settings.cache_size // 10))
        self._upstream = Upstream(clock)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def resolve(self, host: str) -> Answer:
        """Addresses of `host` (canonical: lower-case ASCII, no trailing dot). Raises ResolveError."""
        now = self._clock()
        self._read_files(now)
        remembered = self._addresses.answers.get(host, now)
        if remembered is not None:
            self._tell("cached", self._clock() - now)
            return remembered
        return await self._answer(self._addresses, host, host, partial(self._search, host), self._known_here)

    async def bindings(self, host: str, kind: Kind) -> Bindings:
        """What the records of `kind` say of `host`. Raises ResolveError, NO_DATA where there are none."""
        search = partial(self._search_bindings, host, dns.rdatatype.from_text(kind))
        return await self._answer(self._bindings, f"{kind} {host}", host, search, self._unbound_here)

    async def close(self) -> None:
        """End all lookups; those who wait for one are told, and nothing is looked up any more."""
        self._closed = True
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._upstream.close()

    async def _answer[V: (Answer, Bindings)](
        self, book: _Book[V], key: str, host: str, search: _Search[V], here: _Here[V]
    ) -> V:
        started = self._clock()
        try:
            label, outcome = await self._find(book, key, host, search, here)
        except Exception as error:
            logger.exception("resolving failed in an unforeseen way")
            unforeseen = ResolveError(ResolveFailure.MALFORMED, host, f"unexpected {type(error).__name__}")
            label, outcome = unforeseen.kind, unforeseen
        self._tell(label, self._clock() - started)
        if isinstance(outcome, ResolveError):
            raise outcome.again()
        return outcome

    async def _find[V: (Answer, Bindings)](
        self, book: _Book[V], key: str, host: str, search: _Search[V], here: _Here[V]
    ) -> tuple[str, Outcome[V]]:
        now = self._clock()
        conf, hosts = self._read_files(now)
        if (remembered := book.answers.get(key, now)) is not None:
            return "cached", remembered
        outcome = here(host, hosts, now) or book.failures.get(key, now)
        if isinstance(outcome, Answer):
            # Known without asking anybody, but not for nothing. What the files say anew clears it.
            self._addresses.answers.put(host, outcome, expires_at=outcome.expires_at, now=now)
        if outcome is None:
            outcome = await asyncio.shield(self._flight(book, key, host, search, conf))
        return (outcome.kind if isinstance(outcome, ResolveError) else "success"), outcome

    def _known_here(self, host: str, hosts: Hosts, now: float) -> Outcome[Answer] | None:
        """What needs no server."""
        if (literal := _literal(host)) is not None:
            return Answer((literal,), now + self._settings.max_ttl, host)
        labels = host.split(".")
        if not all(_LABEL.fullmatch(label) for label in labels) or _NUMBER.fullmatch(labels[-1]):
            return ResolveError(ResolveFailure.MALFORMED, host, "not a host name")
        if labels[-1] == "localhost":
            return Answer(_LOOPBACK, now + self._settings.max_ttl, host)
        if pinned := hosts.get(host):
            return Answer(pinned, now + HOSTS_TTL, host)
        return None

    def _unbound_here(self, host: str, hosts: Hosts, now: float) -> ResolveError | None:
        known = self._known_here(host, hosts, now)
        return ResolveError(ResolveFailure.NO_DATA, host) if isinstance(known, Answer) else known

    def _read_files(self, now: float) -> tuple[ResolvConf, Hosts]:
        """What the system's files say now, if they count."""
        if self._fixed is not None:
            return self._fixed, {}
        conf, hosts = self._resolv_conf.get(now), self._hosts.get(now)
        if self._valid_for is None or self._valid_for[0] is not conf or self._valid_for[1] is not hosts:
            self._valid_for = conf, hosts
            self._addresses.clear()
            self._bindings.clear()
        return conf, hosts

    def _flight[V: (Answer, Bindings)](
        self, book: _Book[V], key: str, host: str, search: _Search[V], conf: ResolvConf
    ) -> asyncio.Future[Outcome[V]]:
        """The lookup that is under way, or a new one."""
        flight = book.flights.get(key)
        if flight is not None and not flight.done():
            return flight
        flight = asyncio.get_running_loop().create_future()
        if self._closed or len(self._tasks) >= self._settings.max_inflight:
            why = "closed" if self._closed else f"{len(self._tasks)} lookups are under way"
            flight.set_result(ResolveError(ResolveFailure.OVERLOADED, host, why))
            return flight
        book.flights[key] = flight
        task = asyncio.create_task(self._look_up(book, key, host, search, conf))
        self._tasks.add(task)

        def land(task: asyncio.Task[Outcome[V]]) -> None:
            self._tasks.discard(task)
            if book.flights.get(key) is flight:
                del book.flights[key]
            closed = ResolveError(ResolveFailure.OVERLOADED, host, "closed")
            flight.set_result(closed if task.cancelled() else task.result())

        task.add_done_callback(land)
        return flight

    async def _look_up[V: (Answer, Bindings)](
        self, book: _Book[V], key: str, host: str, search: _Search[V], conf: ResolvConf
    ) -> Outcome[V]:
        """Ask the servers and remember what they said. Raises nothing but CancelledError."""
        try:
            async with asyncio.timeout(self._settings.total_timeout):
                outcome, expires_at = await search(conf)
        except TimeoutError:
            detail = f"no answer in {self._settings.total_timeout:g} s in all"
            return ResolveError(ResolveFailure.TIMEOUT, host, detail)
        except ResolveError as error:
            return ResolveError(error.kind, host, error.detail)
        except Exception as error:
            logger.exception("a lookup failed in an unforeseen way")
            return ResolveError(ResolveFailure.MALFORMED, host, f"unexpected {type(error).__name__}")
        if self._valid_for is None or self._valid_for[0] is conf:
            memory: TtlCache[Any] = book.failures if isinstance(outcome, ResolveError) else book.answers
            memory.put(key, outcome, expires_at=expires_at, now=self._clock())
        return outcome

    async def _search(self, host: str, conf: ResolvConf) -> tuple[Outcome[Answer], float]:
        """Try the names of the search list; what came out, and until when to remember it."""
        nothing: list[Nothing] = []
        route: Route | None = None
        for candidate in candidates(host, conf):
            try:
                name = dns.name.from_text(candidate)
            except dns.exception.DNSException:  # too long with this search domain
                continue
            route = route or await self._route(name, conf)
            match await look_up(name, route):
                case Addresses() as found:
                    seconds = self._kept(found.ttl)
                    expires_at = self._clock() + (seconds if found.complete else min(seconds, INCOMPLETE_TTL))
                    aliases = tuple(map(_text, found.aliases))
                    return Answer(found.addresses, expires_at, candidate, aliases, found.complete), expires_at
                case Nothing() as said:
                    nothing.append(said)
        return self._no_such(host, nothing)

    async def _search_bindings(
        self, host: str, rdtype: dns.rdatatype.RdataType, conf: ResolvConf
    ) -> tuple[Outcome[Bindings], float]:
        """Ask for the name that `host` stands for; what came out, and until when to remember it."""
        asked = (await self.resolve(host)).name if conf.search else host
        name = dns.name.from_text(asked)
        found = await look_up_bindings(name, rdtype, await self._route(name, conf))
        if isinstance(found, Nothing):
            return self._no_such(host, [found])
        expires_at = self._clock() + self._kept(found.ttl)
        owner = _text(found.aliases[-1]) if found.aliases else asked
        return Bindings(found.bindings, expires_at, asked, owner), expires_at

    async def _route(self, name: dns.name.Name, conf: ResolvConf) -> Route:
        """Whom to ask, for `name` first. Raises ResolveError where there is nobody."""
        # Each server has a full turn before the time for all of them is over.
        timeout = conf.timeout or min(self._settings.timeout, self._settings.total_timeout / (len(conf.servers) + 1))
        servers = await self._upstream.ready(conf.servers, name)
        return Route(servers, timeout, conf.attempts or self._settings.attempts, self._upstream.ask)

    def _kept(self, ttl: float) -> float:
        return max(self._settings.min_ttl, min(ttl, self._settings.max_ttl))

    def _no_such(self, host: str, nothing: list[Nothing]) -> tuple[ResolveError, float]:
        if not nothing:
            return ResolveError(ResolveFailure.MALFORMED, host, "longer than a name can be"), self._clock()
        no_data = any(said.kind is ResolveFailure.NO_DATA for said in nothing)
        kind = ResolveFailure.NO_DATA if no_data else ResolveFailure.NXDOMAIN
        ttl = min(*(said.ttl for said in nothing), self._settings.negative_ttl_max)
        return ResolveError(kind, host), self._clock() + ttl

    def _tell(self, label: str, seconds: float) -> None:
        if self._on_lookup is None:
            return
        try:
            self._on_lookup(label, seconds)
        except Exception:  # who watches must not decide
            logger.exception("telling about a lookup failed")


def candidates(host: str, conf: ResolvConf) -> Iterator[str]:
    """The names to ask for, in the order of resolver(5)."""
    as_it_is_first = host.count(".") >= conf.ndots
    if as_it_is_first:
        yield host
    for domain in conf.search:
        yield f"{host}.{domain}"
    if not as_it_is_first:
        yield host


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()


def _literal(host: str) -> Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return None if getattr(address, "scope_id", None) is not None else address
