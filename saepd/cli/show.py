"""Tables that several commands print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from saepd.cli.options import print_table
from saepd.evaluation.report import EVERYBODY
from saepd.features.evidence import LatentEvidence


def show_results(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """The results table: each method over all perspectives, and its JS distance for each."""
    perspectives = [p for p in dict.fromkeys(row["perspective"] for row in rows) if p != EVERYBODY]
    by_key = {(row["method"], row["perspective"]): row for row in rows}
    everybody = [row for row in rows if row["perspective"] == EVERYBODY]
    everybody.sort(key=lambda row: row["js_distance"])
    lines = []
    for row in everybody:
        low, high = row["js_ci"]
        versus = row.get("js_minus_zero_shot")
        lines.append(
            [
                row["method"],
                f"{row['js_distance']:.3f}",
                f"{low:.3f}-{high:.3f}",
                f"{row['tv']:.3f}",
                f"{row['accuracy']:.2f}",
                f"{versus[0]:+.3f}{'' if versus[1] <= 0 <= versus[2] else ' *'}" if versus else "",
            ]
        )
    columns = ["method", "JS", "95% interval", "TV", "accuracy", "vs zero-shot"]
    print_table(title, columns, lines)
    print("JS distance, base 2; * the 95% interval of the difference excludes 0")
    by_perspective = [
        [row["method"], *(f"{by_key[row['method'], p]['js_distance']:.3f}" for p in perspectives)]
        for row in everybody
    ]
    print_table("JS distance for each perspective", ["method", *perspectives], by_perspective)


def show_evidence(evidence: Sequence[LatentEvidence], title: str) -> None:
    """One line a latent: what it promotes and how it was chosen."""
    print_table(
        title,
        ["latent", "promotes", "score", "stability", "density", "output score"],
        [
            [
                str(e.latent),
                " ".join(repr(token)[1:-1] for token in e.tokens[:6]),
                f"{e.score:+.2f}",
                f"{e.stability:.2f}",
                f"{e.density:.3f}",
                f"{e.output_score:+.4f}",
            ]
            for e in evidence
        ],
    )


def show_distributions(
    title: str, options: Sequence[str], distributions: Mapping[str, Sequence[float] | np.ndarray]
) -> None:
    """One row a distribution, one column an option."""
    print_table(
        title,
        ["", *options],
        [[name, *(f"{p:.2f}" for p in values)] for name, values in distributions.items()],
    )
