"""Conditions learned from texts: steer prompts of one kind, and leave others alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from saepd.branches.engine.plan import check_prompts
from saepd.common.errors import InputError
from saepd.common.messages import shortened
from saepd.directions.gate import Gate, Reader, read_amounts
from saepd.metrics.intervals import Interval, draw_weights, interval
from saepd.metrics.weighted import auroc
from saepd.saes.abilities import WRITABLE_SITE
from saepd.saes.fits import check_sae
from saepd.saes.load import sae_hook_name

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

FEWEST = 5
# Inverse penalties to try, on readings whose root mean square norm is 1.
_STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)


@dataclass(frozen=True, repr=False)
class Condition:
    """A gate that opens on prompts of one kind, and how well it tells them apart.

    Attributes:
        gate: The gate, whose rule is ``above``.
        auroc: How well its score ranks texts that it was not fitted to, with its interval over
            texts; 0.5 is chance.
        opens: Share of the texts to steer, held out, on which it opens.
        opens_wrongly: Share of the texts to leave alone, held out, on which it opens.
    """

    gate: Gate = field(repr=False)
    auroc: Interval
    opens: float
    opens_wrongly: float

    @property
    def supported(self) -> bool:
        """Whether it tells texts apart that it was not fitted to, by its interval."""
        return self.auroc.low > 0.5

    def __str__(self) -> str:
        start = "Tells the kinds apart" if self.supported else "Does not tell the kinds apart"
        area = f"AUROC {self.auroc.estimate:.3f} [{self.auroc.low:.3f}, {self.auroc.high:.3f}]"
        return (
            f"{start}: {area} on texts not seen; opens on {self.opens:.0%} of those to steer and "
            f"on {self.opens_wrongly:.0%} of the others."
        )

    def __repr__(self) -> str:
        return f"Condition({self})"


def learn_condition(
    model: TransformerBridge,
    site: str | SAE[Any],
    steered: Sequence[str],
    others: Sequence[str],
) -> Condition:
    """Fit a gate that opens on prompts like some texts, and stays shut on prompts like others.

    ``dataclasses.replace(direction, gate=learn_condition(...).gate)`` then writes the direction
    into prompts of the first kind alone. That is conditional activation steering (Lee et al., arXiv
    2409.05907) with a logistic regression on what the gate reads, both kinds weighing alike, in the
    place of a principal component and a search for the threshold.

    Args:
        model: The language model.
        site: Where the prompt is read: the hook name of a residual site, not above the
            direction's own, or an SAE whose latents are read.
        steered: Prompts as the model will get them, to write the direction into; at least five.
        others: Prompts to leave alone; at least five.

    Raises:
        InputError: fewer than five texts of a kind, a text of both kinds, one that cannot be run,
            a site that cannot be read, or an SAE of another width.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict

    texts, is_steered = _texts(steered, others)
    hook_name, sae = _read_at(model, site)
    reader = Reader(hook_name, sae)
    readings = read_amounts(model, check_prompts(model, texts), [reader])[reader]
    seen = readings.double().cpu().numpy()
    centre = seen.mean(0)
    scale = float(np.sqrt(np.square(seen - centre).sum(1).mean())) or 1.0
    inputs = (seen - centre) / scale
    # Penalties are compared within the texts that each fold is fitted to.
    regression = GridSearchCV(
        LogisticRegression(class_weight="balanced", max_iter=1000),
        {"C": _STRENGTHS},
        scoring="neg_log_loss",
        cv=StratifiedKFold(FEWEST - 1, shuffle=True, random_state=0),
    )
    folds = StratifiedKFold(FEWEST, shuffle=True, random_state=0)
    scores = cross_val_predict(regression, inputs, is_steered, cv=folds, method="decision_function")
    fitted = regression.fit(inputs, is_steered).best_estimator_
    gate = Gate(
        hook_name,
        torch.from_numpy(fitted.coef_[0] / scale),
        torch.from_numpy(centre),
        bias=float(fitted.intercept_[0]),
        sae=sae,
        rule="above",
    )
    return _measured(gate, np.asarray(scores), is_steered)


def _read_at(model: TransformerBridge, site: str | SAE[Any]) -> tuple[str, SAE[Any] | None]:
    """The site that is read, and the SAE whose latents are; None for the residual itself."""
    if not isinstance(site, str):
        check_sae(site, model)
        return sae_hook_name(site), site
    if not WRITABLE_SITE.fullmatch(site):
        raise InputError(
            f"a condition cannot read {shortened(site)}: give a residual site, such as "
            "blocks.10.hook_resid_post, or an SAE"
        )
    return site, None


def _texts(
    steered: Sequence[str], others: Sequence[str]
) -> tuple[list[str], Bool[np.ndarray, " texts"]]:
    steered, others = _listed("to steer", steered), _listed("to leave alone", others)
    both = set(steered) & set(others)
    if both:
        raise InputError(
            f"the text {shortened(min(both))} is both to be steered and to be left alone: take it "
            "out of one of them"
        )
    return [*steered, *others], np.arange(len(steered) + len(others)) < len(steered)


def _listed(name: str, given: Sequence[str]) -> list[str]:
    """Each of the texts once: one that is there twice would be held out and fitted to at once."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InputError(f"the texts {name} are {shortened(given)}: give a list of them")
    texts = list(given)
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"{shortened(text)} is no text: give the prompts themselves")
    texts = list(dict.fromkeys(texts))
    if len(texts) < FEWEST:
        raise InputError(
            f"a condition is learned from at least {FEWEST} texts of each kind, and those "
            f"{name} are {len(texts)}: give more"
        )
    return texts


def _measured(
    gate: Gate, scores: Float[np.ndarray, " texts"], is_steered: Bool[np.ndarray, " texts"]
) -> Condition:
    weights = draw_weights(list(range(len(scores))), seed=0)
    area = interval(auroc(scores, is_steered, weights))
    assert area is not None
    is_open = (scores > 0).astype(float)
    return Condition(
        gate,
        area,
        opens=float(is_open[is_steered].mean()),
        opens_wrongly=float(is_open[~is_steered].mean()),
    )
