"""One canonical form for a host, made once at the edge and used everywhere inside.

A host is either a name (ASCII lower case, IDNA A-labels, no trailing dot: RFC 1123, RFC 5890, UTS 46) or an address.
Text that a resolver would read as an address (`127.1`, `0x7f000001`, `2130706433`, `0177.0.0.1`, full-width digits)
is an address here as well, so that it is judged as one. Everything else raises `MalformedHost`: a name is never
repaired, because whoever repairs differently downstream would reach another host than the one that was judged.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NewType

import idna

Hostname = NewType("Hostname", str)
Address = IPv4Address | IPv6Address
Host = Hostname | IPv4Address | IPv6Address
"""A canonical host name, or an address."""

MAX_NAME = 253
MAX_LABEL = 63

_LABELS = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\Z")
# The WHATWG URL standard calls this "ends in a number": such a host is an IPv4 address or an error, never a name.
_NUMERIC_END = re.compile(r"(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)\Z")
_HEXADECIMAL = re.compile(r"0x[0-9a-f]*\Z")
_OCTAL = re.compile(r"0[0-7]+\Z")
_DECIMAL = re.compile(r"(?:0|[1-9][0-9]*)\Z")
_FORBIDDEN = re.compile(r"[^a-z0-9._\-\x80-\U0010ffff]", re.IGNORECASE)


class MalformedHost(ValueError):
    """The text is neither a host name nor an address; the message says why, without quoting the text."""


@lru_cache(maxsize=8192)
def parse_host(text: str) -> Host:
    """The host that `text` names: a name, an IPv4 address in any spelling, or an IPv6 address in brackets or bare.

    Raises `MalformedHost`.
    """
    if text.startswith("["):
        if not text.endswith("]"):
            raise MalformedHost("an IPv6 address in brackets must end with ]")
        return _ipv6(text[1:-1])
    if ":" in text:
        return _ipv6(text)
    name = canonical_name(text)
    if _NUMERIC_END.search(name):
        return _ipv4(name)
    return Hostname(name)


def canonical_name(text: str) -> str:
    """`text` as a canonical domain name, whether or not it looks like an address. Raises `MalformedHost`."""
    if not text:
        raise MalformedHost("empty host")
    if len(text) > 4 * MAX_NAME:
        raise MalformedHost(f"a host name has at most {MAX_NAME} characters")
    bad = _FORBIDDEN.search(text)
    if bad:
        raise MalformedHost(f"character U+{ord(bad.group()):04X} cannot be part of a host name")
    name = text.lower() if text.isascii() else _to_ascii(text)
    name = name.removesuffix(".")
    if not _LABELS.match(name):
        raise MalformedHost(_why_not_labels(name))
    if len(name) > MAX_NAME:
        raise MalformedHost(f"a host name has at most {MAX_NAME} characters, this one has {len(name)}")
    return name


def _to_ascii(text: str) -> str:
    # UTS 46 maps full-width forms, case and the ideographic full stops before anything is compared.
    try:
        mapped = idna.uts46_remap(text, std3_rules=False, transitional=False)
        return ".".join(
            label if label.isascii() else idna.alabel(label).decode("ascii") for label in mapped.split(".")
        ).lower()
    except (idna.IDNAError, UnicodeError) as error:
        raise MalformedHost(f"not an internationalised domain name (UTS 46): {_printable(str(error))}") from None


def _printable(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode("ascii")[:120]


def _why_not_labels(name: str) -> str:
    if not name:
        return "empty host"
    if any(not label for label in name.split(".")):
        return "empty label in a host name (two dots, or a dot in front)"
    if any(len(label) > MAX_LABEL for label in name.split(".")):
        return f"a label of a host name has at most {MAX_LABEL} characters"
    return "a label may hold only letters, digits, - and _"


def _ipv6(text: str) -> Address:
    try:
        address = ip_address(text)
    except ValueError:
        raise MalformedHost("not an IPv6 address") from None
    if isinstance(address, IPv4Address):
        raise MalformedHost("brackets are for IPv6 addresses")
    if address.scope_id is not None:
        raise MalformedHost("an IPv6 zone is local to one machine and cannot be part of a destination")
    # Sockets treat the two as one place, so a rule about one spelling must hold for the other.
    return address.ipv4_mapped or address


def _ipv4(name: str) -> IPv4Address:
    """The address that inet_aton(3) reads in `name`: one to four decimal, octal (0…) or hexadecimal (0x…) parts."""
    parts = name.split(".")
    if len(parts) > 4:
        raise MalformedHost("a name cannot end in a number, and an IPv4 address has at most four parts")
    numbers = [_ipv4_part(part) for part in parts]
    last_limit = 256 ** (5 - len(numbers))
    if any(number > 255 for number in numbers[:-1]) or numbers[-1] >= last_limit:
        raise MalformedHost("a part of an IPv4 address is too large")
    value = numbers[-1]
    for position, number in enumerate(numbers[:-1]):
        value += number << (8 * (3 - position))
    return IPv4Address(value)


def _ipv4_part(part: str) -> int:
    # Digits are matched before `int` sees them: it takes signs and underscores as well.
    if _HEXADECIMAL.match(part):
        return int(part[2:] or "0", 16)
    if _OCTAL.match(part):
        return int(part, 8)
    if _DECIMAL.match(part):
        return int(part, 10)
    raise MalformedHost("not an IPv4 address, and a name cannot end in a number")


@lru_cache(maxsize=8192)
def parse_authority(text: str, default_port: int | None = None) -> tuple[Host, int]:
    """The host and port of an RFC 3986 authority without userinfo, e.g. `www.example.com:443` or `[2001:db8::1]:80`.

    Raises `MalformedHost`; a missing port is `default_port`, or an error where that is None.
    """
    host_text, port_text = _split_authority(text)
    host = parse_host(host_text)
    if isinstance(host, IPv6Address) and not host_text.startswith("["):
        raise MalformedHost("an IPv6 address in an authority stands in brackets")
    if port_text is None or (port_text == "" and default_port is not None):
        if default_port is None:
            raise MalformedHost("port missing")
        return host, default_port
    return host, parse_port(port_text)


def _split_authority(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        end = text.find("]")
        rest = text[end + 1 :]
        if end < 0 or (rest and not rest.startswith(":")):
            raise MalformedHost("an IPv6 address in brackets is followed by nothing or by :port")
        return text[: end + 1], rest[1:] if rest else None
    host, colon, port = text.partition(":")
    if ":" in port:
        raise MalformedHost("more than one colon; an IPv6 address stands in brackets")
    return host, port if colon else None


def parse_port(text: str) -> int:
    """A TCP port in plain decimal, 1..65535. Raises `MalformedHost`."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise MalformedHost("a port is a number in the range 1..65535")
    return int(text)


def format_host(host: Host) -> str:
    """`host` as it stands in an authority: IPv6 in brackets."""
    return f"[{host}]" if isinstance(host, IPv6Address) else str(host)


def format_authority(host: Host, port: int, default_port: int | None = None) -> str:
    """`host:port`, without the port where it is `default_port`."""
    return format_host(host) if port == default_port else f"{format_host(host)}:{port}"
