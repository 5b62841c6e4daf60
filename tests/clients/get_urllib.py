"""Python's own HTTP client."""

import urllib.error
import urllib.request

from telling import tell_each


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


tell_each(get)
