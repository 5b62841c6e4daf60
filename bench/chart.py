"""The figures as a picture: an SVG with a panel for each metric that has a peer, and a bar for each subject."""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape

from bench.figures import OURS, Figures, Metric

_WIDTH, _BAR, _GAP, _HEAD, _PADDING = 420, 18, 6, 46, 20
_NAMES, _VALUES = 84, 92
"""Room left and right of the bars."""
_COLUMNS = 2
_OURS, _OTHERS = "#0b7a75", "#b4bcc4"


def svg(figures: Figures, caption: str) -> str:
    panels = [metric for metric in figures.metrics() if metric.compared and len(_values(figures, metric)) > 1]
    rows = [panels[i : i + _COLUMNS] for i in range(0, len(panels), _COLUMNS)]
    parts: list[str] = []
    top = _PADDING
    for row in rows:
        for column, metric in enumerate(row):
            parts += _panel(figures, metric, _PADDING + column * (_WIDTH + _PADDING), top)
        top += _HEAD + max(len(_values(figures, metric)) for metric in row) * (_BAR + _GAP) + _PADDING
    width = _PADDING + _COLUMNS * (_WIDTH + _PADDING)
    parts.append(_text(_PADDING, top + 10, caption, size=11, colour="#57606a"))
    height = top + _PADDING + 6
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui, sans-serif">\n<rect width="100%" height="100%" fill="#ffffff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _panel(figures: Figures, metric: Metric, left: int, top: int) -> Iterator[str]:
    values = _values(figures, metric)
    most = max(values.values())
    # One that is many times the others would make them all invisible: it is cut, and its number tells.
    shown = sorted(values.values())
    scale = min(most, 2.5 * shown[-2]) or 1
    yield _text(left, top + 14, metric.title, size=14, weight="600")
    yield _text(left, top + 32, f"{metric.unit}, less is better", size=11, colour="#57606a")
    room = _WIDTH - _NAMES - _VALUES
    for number, (subject, value) in enumerate(values.items()):
        y = top + _HEAD + number * (_BAR + _GAP)
        length = max(1.0, min(value / scale, 1.0) * room)
        colour = _OURS if subject == OURS else _OTHERS
        weight = "600" if subject == OURS else "400"
        yield _text(left + _NAMES - 8, y + 13, subject, size=12, anchor="end", weight=weight)
        yield f'<rect x="{left + _NAMES}" y="{y}" width="{length:.1f}" height="{_BAR}" fill="{colour}" rx="2"/>'
        if value > scale:
            x = left + _NAMES + length - 14
            yield f'<path d="M{x:.1f} {y + _BAR} l5 -{_BAR} h4 l-5 {_BAR} z" fill="#ffffff"/>'
        yield _text(int(left + _NAMES + length + 6), y + 13, f"{value:,.{metric.digits}f}", size=12, weight=weight)


def _values(figures: Figures, metric: Metric) -> dict[str, float]:
    found = {subject: figures.median(metric, subject) for subject in figures.subjects(metric)}
    ordered = sorted(found, key=lambda subject: subject != OURS)
    return {subject: value for subject in ordered if (value := found[subject]) is not None and value > 0}


def _text(
    x: int, y: int, text: str, *, size: int, colour: str = "#1f2328", anchor: str = "start", weight: str = "400"
) -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" font-weight="{weight}">'
        f"{escape(text)}</text>"
    )
