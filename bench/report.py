"""A whole run, for programs: figures, judgements, and what they were measured with."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.figures import OURS, Figures
from bench.stage import Scale
from bench.targets import Judgement


def machine() -> dict[str, Any]:
    cpu = memory = ""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("MemTotal"):
            memory = f"{int(line.split()[1]) / (1 << 20):.0f} GiB"
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory": memory,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def document(
    *,
    command: Sequence[str],
    figures: Figures,
    judgements: Sequence[Judgement],
    wrong: Sequence[str],
    code: str,
    missing: Sequence[str],
    versions: Mapping[str, str],
    scale: Scale,
    log: bool,
    slack: float,
) -> dict[str, Any]:
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(command),
        "machine": machine(),
        "programs": dict(versions),
        "gateway": code,
        "settings": asdict(scale) | {"log": log, "slack": slack},
        "figures": [
            {
                "key": metric.key,
                "title": metric.title,
                "unit": metric.unit,
                "subjects": {
                    subject: {
                        "median": figures.median(metric, subject),
                        "rounds": figures.rounds(metric, subject),
                        "ratio": figures.ratio(metric, subject),
                        "ratios": figures.ratios(metric, subject),
                    }
                    if metric.compared and subject != OURS
                    else {"median": figures.median(metric, subject), "rounds": figures.rounds(metric, subject)}
                    for subject in figures.subjects(metric)
                },
            }
            for metric in figures.metrics()
        ],
        "targets": [
            {
                "part": each.target.part,
                "text": each.target.text,
                "measured": each.figure,
                "must": each.target.must,
                "want": each.target.want,
                "at_least": each.target.at_least,
                "holds": each.holds,
                "wanted": each.wanted,
            }
            for each in judgements
        ],
        "wrong": list(wrong),
        "missing": list(missing),
    }
