"""Which latents encode whose feedback: the one table that terminal, notebooks and pages show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from saepd.common.checks import check_number
from saepd.common.frames import as_frame
from saepd.common.html import card, note, table
from saepd.features.alone import run_alone
from saepd.features.config import FeatureConfig
from saepd.features.encode import Pairs, encode_pairs
from saepd.features.evidence import LatentEvidence, explain
from saepd.features.held_out import held_out_gain
from saepd.features.index.feature_index import FeatureIndex
from saepd.features.index.latent_page import given_line
from saepd.features.select import Features, Overlap, overlap, select_all
from saepd.features.sureness import N_SHUFFLES, SURE, Sureness, surenesses
from saepd.feedback.accepting import FeedbackLike
from saepd.metrics.intervals import Interval
from saepd.models.wording import ReadoutConfig
from saepd.saes.abilities import abilities

if TYPE_CHECKING:
    import pandas as pd
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True, repr=False)
class FeatureTable:
    """Which latents encode whose feedback, and how sure that is.

    Attributes:
        features: The latents chosen for each perspective.
        rows: Evidence for the strongest of each, perspective after perspective.
        sureness: How sure the signs of each perspective's effects are, beside shuffled ones.
        pairs: The encoded feedback that all of this was read from.
    """

    features: list[Features]
    rows: list[LatentEvidence]
    sureness: list[Sureness]
    pairs: Pairs

    def __repr__(self) -> str:
        return f"FeatureTable({self.sentence})"

    @property
    def sentence(self) -> str:
        """What comes out, in one sentence."""
        n_sure = sum(one.n_sure for one in self.sureness)
        by_chance = sum(one.n_by_chance for one in self.sureness)
        if n_sure == 0:
            any_ = max(one.shuffles_with_any for one in self.sureness)
            return (
                "No latent tells whose feedback it is with a false-sign rate below "
                f"{SURE:g}; shuffled perspectives give one in {any_} of {N_SHUFFLES} draws."
            )
        best = min(self.rows, key=lambda row: (row.false_sign_rate >= SURE, -abs(row.score)))
        label = f" ({best.label})" if best.label else ""
        many = "1 latent is" if n_sure == 1 else f"{n_sure} latents are"
        return (
            f"Latent {best.latent}{label} tells the feedback of {best.perspective} best "
            f"(score {best.score:+.2f}, false-sign rate {best.false_sign_rate:.2g}); {many} below "
            f"{SURE:g} in all, {by_chance:.1f} where perspectives are shuffled."
        )

    @property
    def overlap(self) -> dict[tuple[str, str], Overlap]:
        """How far every two perspectives share their chosen latents."""
        return overlap(self.features)

    def of(self, perspective: str) -> list[LatentEvidence]:
        """The rows of one perspective."""
        return [row for row in self.rows if row.perspective == perspective]

    def to_dict(self) -> dict[str, Any]:
        """The table as JSON values."""
        counts = [
            {
                "perspective": features.perspective,
                "n_stable": features.n_stable,
                "n_by_chance": features.n_by_chance,
                "n_candidates": features.n_candidates,
                "n_unstable": features.n_unstable,
                "n_sure": sure.n_sure,
                "n_sure_by_chance": sure.n_by_chance,
                "shuffles_with_any_sure": sure.shuffles_with_any,
                "share_of_none": sure.share_of_none,
                "notes": features.notes,
            }
            for features, sure in zip(self.features, self.sureness, strict=True)
        ]
        shared = {f"{a} / {b}": share._asdict() for (a, b), share in self.overlap.items()}
        return {
            "sentence": self.sentence,
            "features": [row.to_dict() for row in self.rows],
            "counts": counts,
            "overlap": shared,
        }

    def frame(self) -> pd.DataFrame:
        """One row a latent and perspective, as a pandas frame.

        Raises:
            InputError: pandas is missing.
        """
        return as_frame([_flat(row) for row in self.rows])

    def _repr_html_(self) -> str:
        columns = [
            "latent",
            "label",
            "score",
            "false sign",
            "stability",
            "held-out gain",
            "answers",
        ]
        parts: list[str] = [note(self.sentence)]
        for sure in self.sureness:
            rows = [
                [
                    row.latent,
                    row.label or " ".join(row.tokens[:6]),
                    row.score,
                    row.false_sign_rate,
                    row.stability,
                    row.gain and row.gain.estimate,
                    row.alone and row.alone.gain and row.alone.gain.estimate,
                ]
                for row in self.of(sure.perspective)
            ]
            said = [row for row in self.of(sure.perspective) if row.given]
            parts += [note(sure.perspective), table(columns, rows)]
            parts += [note(f"of {row.latent} others say: {given_line(row.given)}") for row in said]
        return card("Which latents encode whose feedback", *parts)


def feature_table(
    model: TransformerBridge,
    sae: SAE[Any],
    feedback: FeedbackLike,
    config: FeatureConfig | None = None,
    readout: ReadoutConfig | None = None,
    *,
    index: FeatureIndex | None = None,
    top: int = 5,
    progress: Callable[[str, int, int], None] | None = None,
) -> FeatureTable:
    """Which latents encode whose feedback, with all that speaks for and against each.

    Args:
        model: The language model.
        sae: A dictionary of one of its sites.
        feedback: Rows of one or more perspectives, a file of them or a pandas frame.
        config: How latents are read and chosen.
        readout: How a question is put to the model.
        index: What latents do in other texts, for labels and contexts.
        top: Number of latents of each perspective that are explained.
        progress: Called with what is being done, how much of it is done, and of how much.

    Raises:
        InputError: whatever `encode_pairs` or `select_features` refuses.
    """
    config, readout = config or FeatureConfig(), readout or ReadoutConfig()
    check_number("the number of latents to explain", top, at_least=1, whole=True)
    pairs = encode_pairs(model, sae, feedback, config, readout, progress)
    features = select_all(pairs, config)
    sureness = surenesses(pairs, config)
    alone = {}
    if abilities(sae).writes:
        if progress is not None:
            progress("writing latents alone", 0, 1)
        alone = run_alone(model, sae, pairs, features, top, readout)
    signs = {
        one.perspective: dict(zip(one.latents.tolist(), (one.value > 0).tolist(), strict=True))
        for one in features
    }
    rows = []
    for one, sure in zip(features, sureness, strict=True):
        for row in explain(model, sae, pairs, one, top, index=index):
            rows.append(
                replace(
                    row,
                    false_sign_rate=float(sure.false_sign_rate[row.latent]),
                    shared=_shared_with(signs, one.perspective, row.latent),
                    gain=held_out_gain(pairs, one.perspective, row.latent),
                    alone=alone.get((one.perspective, row.latent)),
                )
            )
    return FeatureTable(features, rows, sureness, pairs)


def _shared_with(
    signs: dict[str, dict[int, bool]], perspective: str, latent: int
) -> dict[str, str]:
    sign = signs[perspective][latent]
    return {
        name: "same" if chosen[latent] == sign else "opposite"
        for name, chosen in signs.items()
        if name != perspective and latent in chosen
    }


def _flat(row: LatentEvidence) -> dict[str, Any]:
    """One row of a frame: numbers and words alone."""
    effects: dict[str, Any] = {}
    for name, effect in row.effect.items():
        effects[f"effect/{name}"] = effect
        low, high = row.interval.get(name) or (None, None)
        effects |= {f"effect_low/{name}": low, f"effect_high/{name}": high}
    alone = row.alone
    return {
        "perspective": row.perspective,
        "latent": row.latent,
        "label": row.label,
        "label_auroc": row.label_auroc,
        "given": given_line(row.given),
        "promotes": " ".join(row.tokens),
        "score": row.score,
        "false_sign_rate": row.false_sign_rate,
        "stability": row.stability,
        "density": row.density,
        "output_score": row.output_score,
        "shared": ", ".join(f"{name} ({how})" for name, how in row.shared.items()),
        **_with_ends("gain", row.gain),
        **_with_ends("answer_gain", alone and alone.gain),
        "answers_moved": alone and alone.moved,
        **effects,
        "for": row.contexts[0].text if row.contexts else None,
        "against": row.against[0].text if row.against else None,
        "index_context": row.index_contexts[0].text if row.index_contexts else None,
    }


def _with_ends(name: str, gain: Interval | None) -> dict[str, float | None]:
    estimate, low, high = gain or (None, None, None)
    return {name: estimate, f"{name}_low": low, f"{name}_high": high}
