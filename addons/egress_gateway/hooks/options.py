"""The `egress_*` options of mitmproxy, and their values as plain, checked types.

mitmproxy's options know integers, so times are whole seconds.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Protocol

from mitmproxy.exceptions import OptionsError

from egress_gateway.dns.settings import ResolverSettings, parse_servers
from egress_gateway.gate.settings import Limits, NameServerSettings, Settings, UpstreamTls
from egress_gateway.policy.addresses import Network
from egress_gateway.policy.name_table import NameLimits

PREFIX = "egress_"


@dataclass(frozen=True, slots=True)
class Option:
    name: str
    default: str | int
    help: str
    choices: tuple[str, ...] | None = None
    least: int = 1
    """Of a number."""


OPTIONS = (
    Option("egress_rules", "rules", "The directory with the egress rules; a change in it is in force within a second."),
    Option(
        "egress_data_path",
        "auto",
        "How connections are handled: relay (fast, no flows), inspect (through mitmproxy's own layers, as flows), "
        "or auto: inspect in mitmweb and mitmproxy and where an option or script needs flows, relay otherwise.",
        ("auto", "relay", "inspect"),
    ),
    Option(
        "egress_tls",
        "passthrough",
        "What happens to TLS that a client opens itself: it passes undecrypted (passthrough), or is decrypted with "
        "mitmproxy's CA and every request in it judged (inspect).",
        ("passthrough", "inspect"),
    ),
    Option(
        "egress_ech",
        "allow",
        "A ClientHello with encrypted_client_hello is judged by its outer name (allow) or refused (deny).",
        ("allow", "deny"),
    ),
    Option(
        "egress_dns_servers",
        "",
        "Name servers to ask instead of the system's, e.g. 127.0.0.1:5353,[::1]:53. With them, /etc/hosts and search "
        "domains are not used.",
    ),
    Option(
        "egress_public_ranges",
        "",
        "Networks to be treated as public whatever they are registered for, e.g. 203.0.113.0/24,2001:db8::/32.",
    ),
    Option(
        "egress_refusal_detail",
        "full",
        "What a refused client is told: the nearest rule and the smallest one that would allow it (full), or only "
        "the reason (reason).",
        ("full", "reason"),
    ),
    Option(
        "egress_metrics_listen",
        "127.0.0.1:9464",
        "Where /metrics, /healthz and /readyz are served, as host:port; empty: nowhere.",
    ),
    Option("egress_access_log", "", "File for the access log, JSON lines; - is standard output, empty: none."),
    Option("egress_max_header_bytes", 65_536, "Largest header section of a request or response, in bytes."),
    Option("egress_max_header_fields", 256, "Most fields in the header section of a message."),
    Option("egress_header_timeout", 10, "Time for a request's header section, in seconds."),
    Option("egress_max_hello_bytes", 65_536, "Largest TLS ClientHello, in bytes."),
    Option("egress_hello_timeout", 10, "Time for the first bytes of a tunnel, or a whole ClientHello, in seconds."),
    Option("egress_idle_timeout", 300, "A connection on which nothing moves for so long is closed, in seconds."),
    Option("egress_connect_timeout", 10, "Time to connect to a destination, and again for TLS with it, in seconds."),
    Option("egress_max_connections_per_client", 1000, "Most open connections from one client address."),
    Option(
        "egress_max_connections",
        0,
        "Most open connections of all clients together; 0: as many as the limit of open files leaves room for.",
        least=0,
    ),
    Option(
        "egress_listen_backlog",
        4096,
        "Most clients that wait to be accepted on a port of scripts/gateway, in each of its workers.",
    ),
    Option("egress_max_lookups_per_client", 100, "Most names being resolved at a time for one client address."),
    Option(
        "egress_names_grace",
        300,
        "How long an address that a client was told for a name still counts as the name's after its time to live, in "
        "seconds. Transparent modes.",
    ),
    Option("egress_max_names", 20_000, "Most names whose addresses are remembered."),
    Option("egress_max_names_per_client", 2_000, "Most names that are remembered on behalf of one client address."),
    Option("egress_max_name_addresses", 100_000, "Most addresses that are remembered, of all names together."),
    Option("egress_max_addresses_per_name", 1_000, "Most addresses that are remembered of one name."),
    Option(
        "egress_max_names_per_dial",
        16,
        "Most names of tcp rules that are resolved to find out whether one has the address that a client dialled. "
        "Transparent modes.",
    ),
    Option(
        "egress_names_file",
        "",
        "A file in which all gateway processes of this machine share what they know of names, best below /run or "
        "/dev/shm; empty: those of one scripts/gateway share it in memory.",
    ),
    Option("egress_dns_timeout", 5, "Time to resolve a name, over all name servers, in seconds."),
    Option("egress_dns_cache_size", 10_000, "Most names kept in the resolver's cache."),
    Option(
        "egress_dns_denied",
        "refused",
        "Mode dns: what is said of a name that no rule allows, that it is refused or that it does not exist.",
        ("refused", "nxdomain"),
    ),
    Option("egress_dns_max_ttl", 300, "Mode dns: the longest time for which a client may keep an answer, in seconds."),
    Option(
        "egress_dns_max_label",
        48,
        "Mode dns: the longest label that the star of a wildcard rule may stand for, in characters. Names that a rule "
        "spells out are not limited.",
    ),
    Option(
        "egress_dns_queries_per_second",
        100,
        "Mode dns: most questions a second from one client address, which may ask twice as many at once.",
    ),
    Option(
        "egress_dns_max_waiting", 4_000, "Mode dns: most questions of all clients together that wait for an answer."
    ),
    Option("egress_dns_max_connections_per_client", 100, "Mode dns: most TCP connections from one client address."),
    Option(
        "egress_dns_idle_timeout",
        10,
        "Mode dns: a TCP connection without a question for so long after its last answer is closed, in seconds.",
    ),
)


class Loader(Protocol):
    def add_option(
        self, name: str, typespec: type, default: Any, help: str, choices: Sequence[str] | None = None
    ) -> None: ...


def declare(loader: Loader) -> None:
    """Adds every option to mitmproxy."""
    for option in OPTIONS:
        loader.add_option(option.name, type(option.default), option.default, option.help, option.choices)


@dataclass(frozen=True, slots=True)
class Configuration:
    """All options, checked."""

    rules: str
    data_path: str
    tls: str
    metrics_listen: str
    access_log: str
    names_file: str
    flow_detail: int
    settings: Settings
    resolver: ResolverSettings


def read(options: Any) -> Configuration:
    """The options' values. Raises OptionsError with one line that names the option and says what to write."""
    for option in OPTIONS:
        problem = _problem(option, getattr(options, option.name))
        if problem:
            raise OptionsError(f"{option.name}: {problem}")
    return Configuration(
        rules=os.path.expanduser(options.egress_rules),
        data_path=options.egress_data_path,
        tls=options.egress_tls,
        metrics_listen=options.egress_metrics_listen,
        access_log=os.path.expanduser(options.egress_access_log),
        names_file=os.path.expanduser(options.egress_names_file),
        flow_detail=options.flow_detail if "flow_detail" in options else 0,
        settings=_settings(options),
        resolver=_resolver(options),
    )


def _problem(option: Option, value: Any) -> str:
    """What is wrong with the value of an option, or the empty string."""
    if isinstance(option.default, int) and value < option.least:
        return f"{value} is too small (use {option.least} or more)"
    if option.choices and value not in option.choices:
        return f"{value!r} is not a choice (use {' or '.join(option.choices)})"
    return ""


def take_unusable(options: Any) -> list[str]:
    """Takes values of our options that mitmproxy could not convert out of those it has put aside for us.

    Returns one line for each. mitmproxy converts them when the options are declared, and fails as a whole.
    """
    found = []
    for option in OPTIONS:
        if option.name not in options.deferred:
            continue
        problem = _unusable(option, options.deferred[option.name])
        if problem:
            del options.deferred[option.name]
            found.append(f"{option.name}: {problem}")
    return found


def _unusable(option: Option, given: Any) -> str:
    """`given` is a value from a file, or what stood on the command line, as a list of texts in its `val`."""
    texts = getattr(given, "val", None)
    if texts is None:
        fits = isinstance(given, type(option.default)) and not isinstance(given, bool)
        return "" if fits else f"{given!r} is not {_KIND[type(option.default)]}"
    if len(texts) > 1:
        return "it is given more than once"
    if isinstance(option.default, str):
        return "" if texts else "it has no value"
    text = texts[0] if texts else ""
    return "" if text.strip().isascii() and text.strip().isdigit() else f"{text!r} is not {_KIND[int]}"


_KIND = {int: "a whole number (write e.g. 300)", str: "text"}


def _settings(options: Any) -> Settings:
    return Settings(
        limits=Limits(
            header_bytes=options.egress_max_header_bytes,
            header_fields=options.egress_max_header_fields,
            header_timeout=options.egress_header_timeout,
            hello_bytes=options.egress_max_hello_bytes,
            hello_timeout=options.egress_hello_timeout,
            idle_timeout=_idle_timeout(options),
            connect_timeout=options.egress_connect_timeout,
            lookups_per_client=options.egress_max_lookups_per_client,
            names_per_dial=options.egress_max_names_per_dial,
            connections_per_client=options.egress_max_connections_per_client,
            connections=options.egress_max_connections,
        ),
        names=NameLimits(
            grace=options.egress_names_grace,
            names=options.egress_max_names,
            addresses=options.egress_max_name_addresses,
            addresses_per_name=options.egress_max_addresses_per_name,
            names_per_client=options.egress_max_names_per_client,
        ),
        name_server=NameServerSettings(
            denied=options.egress_dns_denied,
            max_ttl=options.egress_dns_max_ttl,
            max_label=options.egress_dns_max_label,
            queries_per_second=options.egress_dns_queries_per_second,
            waiting=options.egress_dns_max_waiting,
            connections_per_client=options.egress_dns_max_connections_per_client,
            idle_timeout=options.egress_dns_idle_timeout,
        ),
        public_ranges=_networks(options.egress_public_ranges),
        tls=UpstreamTls(
            ca_file=_readable(options.ssl_verify_upstream_trusted_ca, "ssl_verify_upstream_trusted_ca"),
            ca_directory=options.ssl_verify_upstream_trusted_confdir,
            min_version=options.tls_version_server_min,
            max_version=options.tls_version_server_max,
            ciphers=options.ciphers_server,
            client_certificates=options.client_certs,
        ),
        ech=options.egress_ech,
        refusal_detail=options.egress_refusal_detail,
        local_address=options.connect_addr,
    )


def _idle_timeout(options: Any) -> int:
    """mitmproxy's `tcp_timeout` means the same; whoever sets only that one gets it."""
    ours, theirs = options.egress_idle_timeout, options.tcp_timeout
    untouched = ours == options.default("egress_idle_timeout") and theirs != options.default("tcp_timeout")
    return int(theirs if untouched else ours)


def _resolver(options: Any) -> ResolverSettings:
    try:
        servers = parse_servers(options.egress_dns_servers)
    except ValueError as error:
        raise OptionsError(f"egress_dns_servers: {error}") from None
    total = float(options.egress_dns_timeout)
    return ResolverSettings(
        servers=servers,
        timeout=min(2.0, total),
        total_timeout=total,
        cache_size=options.egress_dns_cache_size,
    )


def _networks(text: str) -> tuple[Network, ...]:
    networks: list[Network] = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        try:
            networks.append(ip_network(entry, strict=False))
        except ValueError:
            raise OptionsError(
                f"egress_public_ranges: {entry!r} is not a network (write e.g. 203.0.113.0/24)"
            ) from None
    return tuple(networks)


def _readable(path: str | None, option: str) -> str | None:
    if not path:
        return None
    path = os.path.expanduser(path)
    try:
        with open(path, "rb"):
            return path
    except OSError as error:
        raise OptionsError(f"{option}: cannot read {path}: {error.strerror} (give a readable PEM file)") from None


def did_you_mean(name: str) -> str:
    """A hint after an unknown option's name."""
    near = get_close_matches(name, [option.name for option in OPTIONS], n=1)
    return f" (did you mean {near[0]}?)" if near else ""


_OUR_SCRIPT = Path(__file__).resolve().parents[2] / "egress.py"


def other_scripts(options: Any) -> list[str]:
    """The scripts in use besides `addons/egress.py`."""
    return [path for path in options.scripts if Path(path).expanduser().resolve() != _OUR_SCRIPT]
