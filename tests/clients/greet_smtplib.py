"""Python's own mail client, which says nothing before the server has greeted it."""

import smtplib
from urllib.parse import urlsplit

from telling import tell_each


def greet(url: str) -> tuple[int, str]:
    parts = urlsplit(url)
    with smtplib.SMTP(parts.hostname or "", parts.port or 25, local_hostname="desk", timeout=10) as server:
        status, text = server.noop()
        return status, text.decode()


tell_each(greet)
