"""The resolver the gateway dials by: ask for a host, get addresses to judge and dial.

In this order, and the first that knows the host answers:

1. a literal address is itself; a name whose last label is a number is an address in a strange spelling,
   and malformed;
2. `localhost` and names under it are loopback (RFC 6761 section 6.3);
3. the hosts file, when the system's files count;
4. what is remembered, answers and failures (RFC 2308), each in a bounded store of its own, so that a
   flood of names that do not exist cannot push out those that do;
5. the name servers, with the search list when the system's files count.

The rules of the last step:

- Callers that ask for the same host at the same time share one lookup. It belongs to none of them: who
  gives up goes, the lookup goes on for the others, and ends within `total_timeout`.
- The search list is that of resolver(5): a host with at least `ndots` dots is first asked as it is, else
  last. Only "no such name" and "no data" lead to the next name: where a server failed, another name's
  address must not stand in.
- When resolv.conf or the hosts file says something new, all is forgotten: the same host may now mean
  something else.
- A time to live of 0 is honoured: nobody who asks later is given that answer.
- Whatever goes wrong is a `ResolveError`.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import dns.exception
import dns.name

from egress_gateway.dns.answer import Address, Answer, ResolveError, ResolveFailure
from egress_gateway.dns.cache import TtlCache
from egress_gateway.dns.chain import Nothing
from egress_gateway.dns.hosts_file import parse_hosts
from egress_gateway.dns.lookup import Addresses, Route, look_up
from egress_gateway.dns.resolv_conf import ResolvConf, parse_resolv_conf
from egress_gateway.dns.settings import ResolverSettings, parse_servers
from egress_gateway.dns.watched_file import WatchedFile

__all__ = ["Answer", "ResolveError", "ResolveFailure", "Resolver", "ResolverSettings", "parse_servers"]

logger = logging.getLogger(__name__)

HOSTS_TTL = 10.0  # seconds: how long a hosts file's answer may be used without looking there again
INCOMPLETE_TTL = 5.0  # seconds: how long an answer that lacks a family is kept at most

_LOOPBACK: tuple[Address, ...] = (IPv6Address("::1"), IPv4Address("127.0.0.1"))
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

type Hosts = Mapping[str, tuple[Address, ...]]
type Outcome = Answer | ResolveError
type Flight = asyncio.Future[Outcome]  # never cancelled, always gets a result


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
        self._answers: TtlCache[Answer] = TtlCache(settings.cache_size)
        self._failures: TtlCache[ResolveError] = TtlCache(settings.cache_size)
        self._flights: dict[str, Flight] = {}
        self._tasks: set[asyncio.Task[Outcome]] = set()
        self._closed = False

    async def resolve(self, host: str) -> Answer:
        """Addresses of `host` (canonical: lower-case ASCII, no trailing dot). Raises ResolveError."""
        started = self._clock()
        try:
            label, outcome = await self._resolve(host, started)
        except Exception as error:
            logger.exception("resolving failed in an unforeseen way")
            unforeseen = ResolveError(ResolveFailure.MALFORMED, host, f"unexpected {type(error).__name__}")
            label, outcome = unforeseen.kind, unforeseen
        self._tell(label, self._clock() - started)
        if isinstance(outcome, ResolveError):
            raise outcome.again()
        return outcome

    def known(self) -> int:
        """How many names are remembered with an answer."""
        return len(self._answers)

    async def close(self) -> None:
        """End all lookups; those who wait for one are told, and nothing is looked up any more."""
        self._closed = True
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _resolve(self, host: str, now: float) -> tuple[str, Outcome]:
        conf, hosts = self._read_files(now)
        if (remembered := self._answers.get(host, now)) is not None:
            return "cached", remembered
        outcome = self._known_here(host, hosts, now) or self._failures.get(host, now)
        if outcome is None:
            outcome = await asyncio.shield(self._flight(host, conf))
        return (outcome.kind if isinstance(outcome, ResolveError) else "success"), outcome

    def _known_here(self, host: str, hosts: Hosts, now: float) -> Outcome | None:
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

    def _read_files(self, now: float) -> tuple[ResolvConf, Hosts]:
        """What the system's files say now, if they count."""
        if self._fixed is not None:
            return self._fixed, {}
        conf, hosts = self._resolv_conf.get(now), self._hosts.get(now)
        if self._valid_for is None or self._valid_for[0] is not conf or self._valid_for[1] is not hosts:
            self._valid_for = conf, hosts
            self._answers.clear()
            self._failures.clear()
        return conf, hosts

    def _flight(self, host: str, conf: ResolvConf) -> Flight:
        """The lookup of `host` that is under way, or a new one."""
        flight = self._flights.get(host)
        if flight is not None and not flight.done():
            return flight
        flight = asyncio.get_running_loop().create_future()
        if self._closed or len(self._tasks) >= self._settings.max_inflight:
            why = "closed" if self._closed else f"{len(self._tasks)} lookups are under way"
            flight.set_result(ResolveError(ResolveFailure.OVERLOADED, host, why))
            return flight
        self._flights[host] = flight
        task = asyncio.create_task(self._look_up(host, conf))
        self._tasks.add(task)

        def land(task: asyncio.Task[Outcome]) -> None:
            self._tasks.discard(task)
            if self._flights.get(host) is flight:
                del self._flights[host]
            closed = ResolveError(ResolveFailure.OVERLOADED, host, "closed")
            flight.set_result(closed if task.cancelled() else task.result())

        task.add_done_callback(land)
        return flight

    async def _look_up(self, host: str, conf: ResolvConf) -> Outcome:
        """Ask the servers and remember what they said. Raises nothing but CancelledError."""
        try:
            async with asyncio.timeout(self._settings.total_timeout):
                outcome, expires_at = await self._search(host, conf)
        except TimeoutError:
            detail = f"no answer in {self._settings.total_timeout:g} s in all"
            return ResolveError(ResolveFailure.TIMEOUT, host, detail)
        except ResolveError as error:
            return ResolveError(error.kind, host, error.detail)
        except Exception as error:
            logger.exception("a lookup failed in an unforeseen way")
            return ResolveError(ResolveFailure.MALFORMED, host, f"unexpected {type(error).__name__}")
        if self._valid_for is None or self._valid_for[0] is conf:
            memory: TtlCache[Any] = self._answers if isinstance(outcome, Answer) else self._failures
            memory.put(host, outcome, expires_at=expires_at, now=self._clock())
        return outcome

    async def _search(self, host: str, conf: ResolvConf) -> tuple[Outcome, float]:
        """Try the names of the search list; what came out, and until when to remember it."""
        route = Route(conf.servers, conf.timeout or self._settings.timeout, conf.attempts or self._settings.attempts)
        nothing: list[Nothing] = []
        for candidate in candidates(host, conf):
            try:
                name = dns.name.from_text(candidate)
            except dns.exception.DNSException:  # too long with this search domain
                continue
            match await look_up(name, route):
                case Addresses(addresses, seconds, complete):
                    ttl = max(self._settings.min_ttl, min(seconds, self._settings.max_ttl))
                    ttl = ttl if complete else min(ttl, INCOMPLETE_TTL)
                    expires_at = self._clock() + ttl
                    return Answer(addresses, expires_at, candidate), expires_at
                case Nothing() as said:
                    nothing.append(said)
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


def _literal(host: str) -> Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return None if getattr(address, "scope_id", None) is not None else address
