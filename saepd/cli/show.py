"""Tables that several commands print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from saepd.cli.options import print_table
from saepd.features.evidence import LatentEvidence
from saepd.features.select import Features, Overlap

# The characters of a context that are shown: its end, where latents are read.
_CONTEXT = 60


def show_evidence(evidence: Sequence[LatentEvidence], title: str) -> None:
    """One line a latent: what it promotes and how it was chosen."""
    print_table(
        title,
        ["latent", "promotes", "score", "stability", "density", "output score"],
        [
            [
                str(e.latent),
                " ".join(map(repr, e.tokens[:6])),
                f"{e.score:+.2f}",
                f"{e.stability:.2f}",
                f"{e.density:.3f}",
                f"{e.output_score:+.4f}",
            ]
            for e in evidence
        ],
    )


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
            text, names = context.text, ", ".join(context.perspectives)
            end = text if len(text) <= _CONTEXT else "..." + text[-_CONTEXT:]
            print(f"  {one.latent}: {context.activation:.2f} {end!r} ({names})")


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
