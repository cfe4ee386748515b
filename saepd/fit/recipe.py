"""From feedback to one direction per perspective, with everything recorded that led to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from saepd.common.checks import check_part
from saepd.common.html import card, table
from saepd.common.messages import shortlist
from saepd.common.versions import package_versions
from saepd.directions.direction import Direction
from saepd.directions.edits import EditLatents
from saepd.directions.saving import made_with
from saepd.features.encode import Pairs, encode_pairs
from saepd.features.select import Features, overlap, select_all
from saepd.feedback.accepting import FeedbackLike, as_feedback
from saepd.feedback.reading import feedback_hash
from saepd.feedback.schema import Feedback
from saepd.fit.budget import fit_kl_budget
from saepd.fit.config import DirectionConfig, FitConfig
from saepd.saes.abilities import check_writes
from saepd.saes.load import written_site

if TYPE_CHECKING:
    import pandas as pd
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True, repr=False)
class Fit:
    """Directions, the features they are made of, and the encoded feedback behind both.

    Attributes:
        directions: One direction for each perspective.
        features: The latents that each direction is made of.
        pairs: The encoded feedback.
    """

    directions: list[Direction]
    features: list[Features]
    pairs: Pairs

    def __repr__(self) -> str:
        counts = [f"{f.perspective!r}: {len(f.latents)} latents" for f in self.features]
        return f"Fit({shortlist(counts)}; {len(self.pairs.rows)} rows of feedback)"

    def frame(self) -> pd.DataFrame:
        """The latents of every perspective, one row each, as a pandas frame.

        Raises:
            InputError: pandas is missing.
        """
        import pandas as pd

        return pd.concat([features.frame() for features in self.features], ignore_index=True)

    def _repr_html_(self) -> str:
        rows = [
            [f.perspective, len(f.latents), f.n_stable, f.n_by_chance, d.coefficient, d.hook_name]
            for f, d in zip(self.features, self.directions, strict=True)
        ]
        columns = ["perspective", "latents", "stable", "by chance", "coefficient", "site"]
        shared = [
            [f"{one} / {other}", share.same, share.opposite]
            for (one, other), share in overlap(self.features).items()
        ]
        return card(
            f"directions of {len(self.pairs.rows)} rows of feedback",
            table(columns, rows),
            table(["latents shared", "same sign", "opposite signs"], shared) if shared else "",
        )


def fit_directions(
    model: TransformerBridge,
    sae: SAE[Any],
    feedback: FeedbackLike,
    config: FitConfig | None = None,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> Fit:
    """Select features of every perspective in the feedback and make a direction of each.

    Args:
        model: The language model.
        sae: A dictionary of one of its sites.
        feedback: Rows of one or more perspectives, a file of them or a pandas frame.
        config: How latents are chosen, what is done with them, and how options are read.
        progress: Called with what is being done, the texts that are done, and how many there are.

    Raises:
        InputError: an SAE that cannot steer, rows that are wrong, or whatever `encode_pairs`,
            `select_features` or `Direction` refuses.
    """
    check_writes(sae)
    config = config or FitConfig()
    check_part("config", config, FitConfig)
    rows = as_feedback(feedback)
    pairs = encode_pairs(model, sae, rows, config.features, config.readout, progress)
    return fit_pairs(model, sae, pairs, config)


def fit_pairs(model: TransformerBridge, sae: SAE[Any], pairs: Pairs, config: FitConfig) -> Fit:
    """`fit_directions` for feedback that is already encoded."""
    features = select_all(pairs, config.features)
    story = lineage(model, sae, pairs.rows, config)
    directions = [_direction(sae, pairs, chosen, config, story) for chosen in features]
    return Fit(scaled_to_config(model, directions, config.direction), features, pairs)


def lineage(
    model: TransformerBridge, sae: SAE[Any], rows: Sequence[Feedback], config: FitConfig
) -> dict[str, Any]:
    """What a direction was made from, as JSON values: model, SAE, feedback, settings, versions."""
    return {
        **made_with(model, sae),
        "feedback_sha256": feedback_hash(rows),
        "n_feedback": len(rows),
        "config": asdict(config),
        "versions": package_versions(),
    }


def scaled_to_config(
    model: TransformerBridge, directions: Sequence[Direction], config: DirectionConfig
) -> list[Direction]:
    """The directions with the coefficients that the configuration asks for."""
    if config.kl_budget:
        return fit_kl_budget(model, directions, config.kl_budget)
    return [direction.scaled(config.coefficient) for direction in directions]


def _direction(
    sae: SAE[Any], pairs: Pairs, features: Features, config: FitConfig, story: dict[str, Any]
) -> Direction:
    mode = config.direction.mode
    if mode == "ablate":
        values = None
    elif mode == "add":
        values = features.value
    elif mode == "clamp":
        indices = pairs.of(features.perspective)
        values = pairs.positive_latents[indices][:, features.latents].mean(0)
    else:
        values = torch.full((len(features.latents),), config.direction.factor)
    return Direction(
        perspective=features.perspective,
        hook_name=written_site(sae),
        edit=EditLatents(sae, features.latents, values, mode),
        positions=config.direction.positions,
        lineage=story,
    )
