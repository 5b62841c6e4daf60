"""How the page of a book looks: one document that loads nothing else, so that a picture of it is always the same."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

TITLE, AUTHOR = "The Comedy of Errors", "William Shakespeare"
_BLURB = (
    "A merchant looks for his lost family in a town that takes each of its visitors for his twin. By evening there "
    "have been two arrests, one locked door, and an explanation."
)
DETAILS_ERROR = "Error fetching product details"
REVIEWS_ERROR = "Error fetching product reviews"
_STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
_ROWS = (
    ("Publisher", "publisher"),
    ("Year", "year"),
    ("Pages", "pages"),
    ("Language", "language"),
    ("ISBN-10", "ISBN-10"),
    ("ISBN-13", "ISBN-13"),
)


def render(details: dict[str, Any] | None, reviews: Sequence[dict[str, Any]] | None) -> str:
    """The page; None stands for a service that had no answer."""
    return f"""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<link rel="icon" href="data:,">
<title>Bookinfo: {TITLE}</title>
<style>
{_STYLE}</style>
<header><b>Bookinfo</b><span>a small shop for small books</span></header>
<main>
<section class="book">
<figure><i>{AUTHOR}</i><strong>{TITLE}</strong><i>a comedy</i></figure>
<div class="about">
<h1>{TITLE}</h1>
<p class="author">by {AUTHOR}</p>
<p class="blurb">{_BLURB}</p>
{_details(details)}
</div>
</section>
<section>
<h2>What readers say</h2>
{_reviews(reviews)}
</section>
</main>
</html>
"""


def _details(details: dict[str, Any] | None) -> str:
    if details is None:
        return _error(DETAILS_ERROR, "The details of this book are not to be had at the moment.")
    rows = "\n".join(
        f"<tr><th>{label}</th><td>{escape(str(details[key]))}</td></tr>" for label, key in _ROWS if key in details
    )
    return f'<h2>Details</h2>\n<table class="details">\n{rows}\n</table>'


def _reviews(reviews: Sequence[dict[str, Any]] | None) -> str:
    if reviews is None:
        return _error(REVIEWS_ERROR, "The reviews of this book are not to be had at the moment.")
    return '<div class="reviews">\n' + "\n".join(map(_review, reviews)) + "\n</div>"


def _review(review: dict[str, Any]) -> str:
    stars = review.get("stars")
    shown = f'<p class="stars">{"★" * stars}<s>{"★" * (5 - stars)}</s></p>' if isinstance(stars, int) else ""
    return (
        f"<blockquote>{shown}<p>{escape(str(review['text']))}</p><cite>{escape(str(review['reviewer']))}</cite>"
        "</blockquote>"
    )


def _error(what: str, more: str) -> str:
    return f'<div class="error"><strong>{what}</strong><p>{more}</p></div>'
