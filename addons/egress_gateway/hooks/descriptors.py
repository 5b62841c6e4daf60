"""How many descriptors the process may have open: as many as the system lets it."""

from __future__ import annotations

import resource


def raise_limit() -> int:
    """Raises the soft limit of open descriptors to the hard one; returns it. Each connection costs two or more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return soft
    return hard
