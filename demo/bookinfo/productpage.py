"""productpage: the page of a book, made of what details and reviews say; what they cannot say is said on the page."""

from __future__ import annotations

from . import page
from .service import Answer, ask, serve

PATH = "/productpage"
_BOOK = 0


def answer(path: str) -> Answer | None:
    if path != PATH:
        return None
    details = ask("details", f"/details/{_BOOK}")
    reviews = ask("reviews", f"/reviews/{_BOOK}")
    html = page.render(details, reviews["reviews"] if reviews else None)
    return Answer(200, html.encode(), "text/html; charset=utf-8")


if __name__ == "__main__":
    serve("productpage", answer)
