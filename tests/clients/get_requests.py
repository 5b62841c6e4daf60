"""Python's requests."""

import requests
from telling import tell_each


def get(url: str) -> tuple[int, str]:
    answer = requests.get(url, timeout=10)
    return answer.status_code, answer.text


tell_each(get)
