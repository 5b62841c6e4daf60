"""What /etc/resolv.conf says, as resolver(5) reads it.

- A keyword starts in the first column; `#` and `;` there start a comment; what cannot be understood is
  skipped, as the system's resolver does, because a gateway must come up on a host whose file has a stray
  line.
- The last `search` or `domain` line wins. At most three name servers count; without one it is this
  host's.
- Of the options, `ndots`, `timeout` and `attempts` count, cut to the limits that resolver(5) states.
- Not taken over: the search list that the C library derives from the host name when the file has none,
  and the environment variables LOCALDOMAIN and RES_OPTIONS. What a gateway asks for must stand in a file.
"""

import contextlib
from dataclasses import dataclass
from ipaddress import ip_address

from egress_gateway.dns.settings import DNS_PORT, Server

_MAX_SERVERS = 3
_MAX_NDOTS = 15
_MAX_TIMEOUT = 30
_MAX_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class ResolvConf:
    servers: tuple[Server, ...] = (("127.0.0.1", DNS_PORT),)
    search: tuple[str, ...] = ()  # lower case, without leading or trailing dot
    ndots: int = 1
    timeout: float | None = None  # seconds; None: the file does not say
    attempts: int | None = None


def parse_resolv_conf(text: str) -> ResolvConf:
    """Never raises: see the rules above."""
    servers: list[Server] = []
    search: tuple[str, ...] = ()
    options: dict[str, int] = {}
    for line in text.splitlines():
        if not line or line[0].isspace():
            continue
        match line.split():
            case ["nameserver", address, *_]:
                with contextlib.suppress(ValueError):
                    servers.append((str(ip_address(address)), DNS_PORT))
            case ["search", *domains]:
                search = _domains(domains)
            case ["domain", *domains]:
                search = _domains(domains[:1])
            case ["options", *words]:
                options.update(_options(words))
    return ResolvConf(
        servers=tuple(servers[:_MAX_SERVERS]) or ResolvConf().servers,
        search=search,
        ndots=min(options.get("ndots", 1), _MAX_NDOTS),
        timeout=_between(1, options.get("timeout"), _MAX_TIMEOUT),
        attempts=_between(1, options.get("attempts"), _MAX_ATTEMPTS),
    )


def _domains(words: list[str]) -> tuple[str, ...]:
    names = (word.strip(".").lower() for word in words)
    return tuple(dict.fromkeys(name for name in names if name))


def _options(words: list[str]) -> dict[str, int]:
    pairs = (word.partition(":") for word in words)
    return {name: int(value) for name, _, value in pairs if value.isascii() and value.isdecimal() and len(value) < 10}


def _between(least: int, value: int | None, most: int) -> int | None:
    return None if value is None else max(least, min(value, most))
