"""Words and figures that metrics, log and terminal share, spelled once."""

from __future__ import annotations

from typing import Literal

from egress_gateway.policy.verdict import Verdict


def action(verdict: Verdict) -> Literal["allow", "deny"]:
    return "allow" if verdict.allowed else "deny"


def address(host: object, port: int) -> str:
    """`192.0.2.1:443`, `[2001:db8::1]:443`, or the empty string where there is no host."""
    text = str(host)
    if not text:
        return ""
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"


def size(count: int) -> str:
    """Bytes for people: `0b`, `1.2k`, `37m`."""
    if count < 1024:
        return f"{count}b"
    value = float(count)
    for unit in "kmgt":
        value /= 1024
        if value < 1024 or unit == "t":
            return f"{value:.1f}{unit}" if value < 10 else f"{value:.0f}{unit}"
    raise AssertionError("unreachable")


def duration(seconds: float) -> str:
    """Seconds for people: `35ms`, `2.1s`, `3m20s`, `2h05m`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest:02}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02}m"
