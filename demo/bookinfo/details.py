"""details v1: what is known of a book, by heart. It asks nobody."""

from __future__ import annotations

import re

from .service import Answer, as_json, serve


def answer(path: str) -> Answer | None:
    asked = re.fullmatch(r"/details/(\d+)", path)
    if asked is None:
        return None
    return as_json(
        {
            "id": int(asked[1]),
            "title": "The Comedy of Errors",
            "author": "William Shakespeare",
            "year": 1594,
            "pages": 80,
            "publisher": "from the card index of the shop",
            "language": "en",
            "ISBN-10": "0486424618",
            "ISBN-13": "9780486424613",
        }
    )


if __name__ == "__main__":
    serve("details", answer)
