"""Python's httpx, with HTTP/2."""

import httpx
from telling import tell_each

with httpx.Client(http2=True, timeout=10) as client:

    def get(url: str) -> tuple[int, str]:
        answer = client.get(url)
        return answer.status_code, answer.text

    tell_each(get)
