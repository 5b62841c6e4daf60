"""reviews: what readers wrote of a book, with the stars that the ratings service knows of."""

from __future__ import annotations

import re

from .service import Answer, as_json, ask, serve

TEXTS = {
    "Adriana": "Two masters, two servants, and nobody who is sure whose dinner is getting cold. I read it on the "
    "train, laughed aloud, and missed my stop.",
    "Egeon": "Everybody here is taken for somebody else, and pays for it. A fine case for asking people to prove who "
    "they are.",
}


def answer(path: str) -> Answer | None:
    asked = re.fullmatch(r"/reviews/(\d+)", path)
    if asked is None:
        return None
    rated = ask("ratings", f"/ratings/{asked[1]}")
    stars = rated["ratings"] if rated else {}
    reviews = [{"reviewer": who, "text": text, "stars": stars.get(who)} for who, text in TEXTS.items()]
    return as_json({"id": int(asked[1]), "reviews": reviews})


if __name__ == "__main__":
    serve("reviews", answer)
