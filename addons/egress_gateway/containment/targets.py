"""Whom the check tries to reach if the user names nobody: public services that are known to listen."""

from __future__ import annotations

from dataclasses import dataclass

from .attempt.family import Family


@dataclass(frozen=True)
class Targets:
    """Addresses of one family. A tuple may be empty: then its checks are left out."""

    hosts: tuple[str, ...]
    """Hosts outside, for everything that is not below."""
    dns_servers: tuple[tuple[str, str], ...]
    """Resolvers outside, each with the name that its DNS over HTTPS has."""
    time_servers: tuple[str, ...]


_CLOUDFLARE, _GOOGLE = "cloudflare-dns.com", "dns.google"
DOH_NAME = _GOOGLE
"""For a resolver that the user named, whose own name is not known: any name will do that no rule allows."""

PUBLIC = {
    Family.V4: Targets(
        hosts=("1.1.1.1",),
        dns_servers=(("8.8.8.8", _GOOGLE), ("1.1.1.1", _CLOUDFLARE)),
        time_servers=("162.159.200.1",),  # time.cloudflare.com
    ),
    Family.V6: Targets(
        hosts=("2606:4700:4700::1111",),
        dns_servers=(("2001:4860:4860::8888", _GOOGLE), ("2606:4700:4700::1111", _CLOUDFLARE)),
        time_servers=("2606:4700:f1::1",),
    ),
}

TCP_PORTS = {
    22: "SSH",
    25: "SMTP",
    587: "submission",
    3128: "proxy",
    8080: "HTTP",
    8443: "HTTPS",
    50022: "",
}
UDP_PORTS = {
    443: "QUIC",
    123: "NTP",
    853: "DNS over QUIC",
    3478: "STUN",
    5353: "DNS",
    51820: "WireGuard",
    33434: "",
}
GATEWAY_PORTS = {22: "SSH", 8081: "mitmweb", 9464: "metrics"}
DNS_OVER_TLS = 853
DENIED_NAME = "denied.gateway-check.invalid"
