"""Which form of a body an `Accept` header asks for (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence

_MAX_LENGTH = 2048
_MAX_RANGES = 32


def preferred(accept: str, offered: Sequence[str]) -> str:
    """The one of `offered` media types that `accept` likes best.

    The highest quality wins; then the type named more precisely, then the one earlier in `accept`, then the
    one earlier in `offered`. A header that is empty, or that likes none of them, gets the first: an answer in
    another form beats no answer.
    """
    ranges = [_parse(item) for item in accept[:_MAX_LENGTH].split(",")[:_MAX_RANGES]]
    best, best_rank = offered[0], (0.0, 0, 0)
    for media_type in offered:
        main = media_type.partition("/")[0]
        # What names a type most precisely says its quality, whatever a wider range says.
        named = [
            (precision, -position, quality)
            for position, (name, quality) in enumerate(ranges)
            if (precision := _precision(name, media_type, main))
        ]
        if not named:
            continue
        precision, position, quality = max(named)
        rank = (quality, precision, position)
        if quality > 0 and rank > best_rank:
            best, best_rank = media_type, rank
    return best


def _precision(name: str, media_type: str, main: str) -> int:
    if name == media_type:
        return 3
    if name == f"{main}/*":
        return 2
    return 1 if name == "*/*" else 0


def _parse(item: str) -> tuple[str, float]:
    """The media range and its quality; a quality that is not a number between 0 and 1 is 0."""
    name, *parameters = (part.strip().lower() for part in item.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            return name, _quality(parameter[2:])
    return name, 1.0


def _quality(text: str) -> float:
    digits = text.replace(".", "", 1)
    if not (digits.isascii() and digits.isdigit() and len(text) <= 5):
        return 0.0
    quality = float(text)
    return quality if quality <= 1 else 0.0
