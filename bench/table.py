"""The figures as text for people."""

from __future__ import annotations

from collections.abc import Sequence

from bench.figures import OURS, Figures, Metric
from bench.targets import Judgement

_NONE = "-"


def figures_table(figures: Figures) -> str:
    """A line for each metric; in brackets what the gateway took of what the peer took in the same round."""
    subjects = _subjects(figures)
    rows = [["", "", *subjects]]
    for metric in figures.metrics():
        rows.append([metric.title, metric.unit, *(_cell(figures, metric, subject) for subject in subjects)])
    return aligned(rows, left=2)


def judgement_table(judgements: Sequence[Judgement]) -> str:
    return aligned([["", "measured", "must", "want", ""], *_judgement_rows(judgements)], left=1)


def _judgement_rows(judgements: Sequence[Judgement]) -> list[list[str]]:
    rows = []
    for each in judgements:
        target = each.target
        verdict = {True: "holds", False: "FAILS", None: "not measured"}[each.holds]
        sign = ">=" if target.at_least else "<="
        rows.append(
            [
                target.text,
                _NONE if each.figure is None else f"{each.figure:.{target.digits}f}",
                f"{sign} {target.must:g}",
                "" if target.want is None else f"{sign} {target.want:g}",
                verdict + (", as wanted" if each.wanted else ""),
            ]
        )
    return rows


def markdown(figures: Figures, judgements: Sequence[Judgement]) -> str:
    """Both tables as they stand in docs/performance.md."""
    subjects = _subjects(figures)
    lines = [_row(["", "", *subjects]), "|---|---|" + "---:|" * len(subjects)]
    for metric in figures.metrics():
        cells = [_cell(figures, metric, subject) for subject in subjects]
        lines.append(_row([metric.title, metric.unit, f"**{cells[0]}**", *cells[1:]]))
    lines += ["", _row(["", "measured", "must", "want", ""]), "|---|---:|---:|---:|---|"]
    lines += [_row(row) for row in _judgement_rows(judgements)]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def aligned(rows: Sequence[Sequence[str]], left: int) -> str:
    """Columns of their own width: the first `left` begin at the left, the others end at the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _subjects(figures: Figures) -> list[str]:
    """Ours first, the others in the order in which they were met."""
    found = dict.fromkeys(subject for metric in figures.metrics() for subject in figures.subjects(metric))
    return sorted(found, key=lambda subject: subject != OURS)


def _cell(figures: Figures, metric: Metric, subject: str) -> str:
    rounds = figures.rounds(metric, subject)
    if not rounds:
        return _NONE
    median = figures.median(metric, subject)
    if median is None:
        return "void"
    text = f"{median:,.{metric.digits}f}"
    ratio = figures.ratio(metric, subject) if metric.compared and subject != OURS else None
    return text if ratio is None else f"{text} ({ratio:.2f})"
