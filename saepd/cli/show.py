"""Tables that several commands print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from saepd.cli.options import print_table
from saepd.evidence import LatentEvidence
from saepd.report import EVERYBODY


def show_results(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """The results table: each method over all perspectives, and its JS distance for each."""
    perspectives = [p for p in dict.fromkeys(row["perspective"] for row in rows) if p != EVERYBODY]
    by_key = {(row["method"], row["perspective"]): row for row in rows}
    everybody = [row for row in rows if row["perspective"] == EVERYBODY]
    lines = []
    for row in sorted(everybody, key=lambda row: row["js_distance"]):
        low, high = row["js_ci"]
        versus = row.get("js_minus_zero_shot")
        lines.append(
            [
                row["method"],
                f"{row['js_distance']:.3f}",
                f"{low:.3f}-{high:.3f}",
                f"{row['tv']:.3f}",
                f"{row['accuracy']:.2f}",
                "{:+.3f} [{:+.3f}, {:+.3f}]".format(*versus) if versus else "",
                *(f"{by_key[row['method'], p]['js_distance']:.3f}" for p in perspectives),
            ]
        )
    columns = ["method", "JS distance", "95% interval", "TV", "accuracy", "minus zero-shot"]
    print_table(title, [*columns, *perspectives], lines)


def show_evidence(evidence: Sequence[LatentEvidence], title: str) -> None:
    """One line a latent: what it promotes and how it was chosen."""
    print_table(
        title,
        ["latent", "promotes", "effect", "stability", "density", "output score"],
        [
            [
                str(e.latent),
                " ".join(repr(token)[1:-1] for token in e.tokens[:6]),
                f"{e.effect[e.perspective]:+.2f}",
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
