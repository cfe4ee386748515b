"""Tables that several commands print."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from saepd.cli.options import print_table
from saepd.features.evidence import Excited, LatentEvidence
from saepd.features.index.latent_page import Context
from saepd.features.select import Features, Overlap
from saepd.metrics.intervals import Interval

# The characters of a context that are shown: its end, where latents are read.
_CONTEXT = 60
_LABEL = 40


def show_evidence(evidence: Sequence[LatentEvidence], title: str) -> None:
    """One line a latent: what it is about, how it was chosen, and what speaks for it.

    What was not computed has no column.
    """
    columns: dict[str, list[str]] = {
        "latent": [str(e.latent) for e in evidence],
        "label": [_cut(e.label or "", _LABEL) for e in evidence],
        "promotes": [" ".join(map(repr, e.tokens[:6])) for e in evidence],
        "score": [f"{e.score:+.2f}" for e in evidence],
        "false sign": [_number(e.false_sign_rate, ".2g") for e in evidence],
        "stability": [f"{e.stability:.2f}" for e in evidence],
        "foretells": [_number(e.gain and e.gain.estimate, "+.3f") for e in evidence],
        "answers": [_number(e.alone and _estimate(e.alone.gain), "+.3f") for e in evidence],
    }
    if not any(columns["false sign"]):
        columns["density"] = [f"{e.density:.3f}" for e in evidence]
        columns["output score"] = [f"{e.output_score:+.4f}" for e in evidence]
    if any(columns["label"]):
        # Labels come out of texts; promoted tokens are often nothing but fragments of words.
        del columns["promotes"]
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    print_table(
        title,
        list(shown),
        [list(row) for row in zip(*shown.values(), strict=True)],
        sentences=("label", "promotes"),
    )


def _estimate(interval: Interval | None) -> float | None:
    return None if interval is None else interval.estimate


def _number(value: float | None, form: str) -> str:
    return "" if value is None or math.isnan(value) else f"{value:{form}}"


def stable_sentence(features: Features) -> str:
    """How many latents are stable, and how many would be if perspectives were dealt out."""
    if bool(features.stability.isnan().all()):
        return f"{features.perspective}: {len(features.latents)} latents, unscreened"
    chance = features.n_by_chance
    beside = "" if chance is None else f" (by chance {chance:.1f})"
    return (
        f"{features.perspective}: {features.n_stable} stable{beside} of "
        f"{features.n_candidates} candidates; {features.n_unstable} strong ones dropped as unstable"
        f"{', the most stable one kept all the same' if features.kept_unstable else ''}"
    )


def show_contexts(evidence: Sequence[LatentEvidence], n: int = 2) -> None:
    """The ends of the texts at which each latent is strongest, and whose feedback they are."""
    print("strongest in the feedback of all perspectives, with activations:")
    for one in evidence:
        for context in one.contexts[:n]:
            print(f"  {one.latent}: {_context(context)}")
        for context in one.against[:1]:
            print(f"  {one.latent}, against: {_context(context)}")
        for context in one.index_contexts[:n]:
            shown = _cut(strip(context, 6), _CONTEXT)
            print(f"  {one.latent}, in other texts: {context.activation:.2f} {shown}")
        for label in one.given:
            print(f"  {one.latent}, {label.source} says: {label.text}")
        for name, sign in one.shared.items():
            print(f"  {one.latent}: chosen for {name}, too, with the {sign} sign")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _context(context: Excited) -> str:
    text, names = context.text, ", ".join(context.perspectives)
    end = text if len(text) <= _CONTEXT else "..." + text[-_CONTEXT:]
    return f"{context.activation:.2f} {end!r} ({names})"


def strip(context: Context, n_before: int) -> str:
    """A context in one line, with the token that counts in brackets."""
    peak = context.peak
    before = "".join(context.tokens[max(0, peak - n_before) : peak])
    token, behind = context.tokens[peak], "".join(context.tokens[peak + 1 :])
    blank = " " if token.startswith(" ") else ""
    return " ".join(f"{before}{blank}[{token.strip()}]{behind}".split())


def shared_sentence(names: str, share: Overlap) -> str:
    """How far two perspectives share their latents."""
    return (
        f"latents shared by {names}: {share.same:.0%} with the same sign, {share.opposite:.0%} "
        "with opposite signs"
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


def show_verdict(verdict: Mapping[str, Any], title: str) -> None:
    """What a fit gains and costs by perspective, what chance gains, and one sentence."""
    costs = verdict["costs"]
    columns = ["perspective", "rows", "gain, nats", "95%"]
    columns += ["dose", "KL", "perplexity", "repeated"] if costs else []
    rows = []
    for name, gain in verdict["by_perspective"].items():
        cells = [name, str(verdict["n_answers"][name]), *_gain_cells(gain)]
        if cost := costs.get(name):
            cells += [
                f"{cost['dose']:.2f}",
                f"{cost['kl']:.3f}",
                f"x{cost['perplexity_ratio']:.2f}",
                f"{cost['repetition']:.2f}",
            ]
        rows.append(cells)
    print_table(title, columns, rows)
    print(verdict["sentence"])
    if gate := verdict.get("gate"):
        print(f"Each item's own prompt decides how much is written: a gate {gate}.")
    controls = [
        f"{name} {gain['estimate']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]"
        for name, gain in verdict["controls"].items()
        if gain is not None
    ]
    if controls:
        print(f"For comparison: {'; '.join(controls)}.")


def _gain_cells(gain: Mapping[str, float] | None) -> list[str]:
    if gain is None:
        return ["", ""]
    return [f"{gain['estimate']:+.4f}", f"[{gain['low']:+.4f}, {gain['high']:+.4f}]"]
