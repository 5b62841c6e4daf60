"""How an operator writes an address to listen on."""

from __future__ import annotations

_EXAMPLES = "write it as 127.0.0.1:9464, [::1]:9464 or :9464 (all addresses)"


def parse_listen(text: str) -> tuple[str, int]:
    """The host (empty: all addresses) and the port of `text`. Raises ValueError, which says what to write."""
    host, colon, port = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or (":" in host and not bracketed):
        raise ValueError(f"{text!r} is not an address to listen on; {_EXAMPLES}")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError(f"{port!r} is not a port (use 0-65535); {_EXAMPLES}")
    return host[1:-1] if bracketed else host, int(port)
