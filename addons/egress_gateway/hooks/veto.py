"""Options of mitmproxy that would open a hole: set at the start they are fatal, set later they are rolled back.

Two defaults of mitmproxy are holes themselves. They are changed when the gateway loads: `connection_strategy` (eager
connects before the client has said where to) and `rawtcp` (unknown bytes pass as raw TCP).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mitmproxy import optmanager
from mitmproxy.proxy.mode_specs import ProxyMode

from .modes import MODES

CHANGED_DEFAULTS: dict[str, Any] = {"connection_strategy": "lazy", "rawtcp": False}

_OLD_TLS = frozenset({"UNBOUNDED", "SSL3", "TLS1", "TLS1_1"})


def _is_set(value: Any) -> bool:
    return bool(value)


# Option → whether its value is a hole, and why.
_HOLES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "ignore_hosts": (_is_set, "it would let connections pass unjudged; write an egress rule instead"),
    "allow_hosts": (_is_set, "it would let all other connections pass unjudged; write an egress rule instead"),
    "tcp_hosts": (_is_set, "it would let connections pass unjudged; write a tcp egress rule instead"),
    "udp_hosts": (_is_set, "it would let datagrams pass unjudged"),
    "connection_strategy": (
        lambda value: value != "lazy",
        "it would connect before the client has said where to; the gateway needs lazy",
    ),
    "rawtcp": (_is_set, "unknown protocols would pass as raw TCP; write a tcp egress rule instead"),
    "ssl_insecure": (
        _is_set,
        "certificates would not be verified; name a private CA with ssl_verify_upstream_trusted_ca instead",
    ),
    "validate_inbound_headers": (lambda value: not value, "requests could be smuggled past their verdict"),
    "tls_version_server_min": (
        lambda value: value in _OLD_TLS,
        "TLS before 1.2 is broken; use TLS1_2 or TLS1_3",
    ),
}


def holes(options: Any, names: Iterable[str]) -> list[str]:
    """One line for each of the options `names` whose value would open a hole."""
    found: list[str] = []
    for name in names:
        if name == "mode":
            found += _unsupported_modes(options.mode)
        elif name in _HOLES and name in options:
            is_hole, why = _HOLES[name]
            if is_hole(getattr(options, name)):
                found.append(f"the gateway refuses option {name}: {why}")
    return found


def set_by_the_operator(options: Any, names: Iterable[str]) -> list[str]:
    """Which of the options `names` were set at all, be it to mitmproxy's own default."""
    # Nothing public tells a default that was written from one that was not.
    return [name for name in names if options._options[name].value is not optmanager.unset]


def _unsupported_modes(modes: Iterable[str]) -> list[str]:
    found = []
    for text in modes:
        try:
            kind = ProxyMode.parse(text).type_name
        except ValueError:
            continue  # mitmproxy itself says so
        if kind not in MODES:
            supported = ", ".join(sorted(MODES))
            found.append(f"the gateway does not support mode {kind} yet (use one of: {supported})")
    return found


WATCHED = (*_HOLES, "mode")
"""The options that are looked at."""
