"""How far one distribution over options is from another, each measure as its source gives it.

Every measure comes back per question, so that it can be averaged, paired and resampled.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import rel_entr

from saepd.common.errors import InputError
from saepd.metrics.distributions import Distributions, PerQuestion, normalised, paired

# Below this the uniform distribution is the answer, up to rounding.
_EVEN = 1e-9


def js_divergence(
    predicted: Distributions, gold: Distributions, *, base: float = 2.0
) -> PerQuestion:
    """Jensen-Shannon divergence (Lin 1991) of each question; in bits at base 2, nats at base e.

    D(p || m) / 2 + D(q || m) / 2 with m = (p + q) / 2, from 0 to log_base(2).

    Raises:
        InputError: a distribution is invalid, the two sets do not match, or base is not above 1.
    """
    if not base > 1:
        raise InputError(f"the base of the logarithm is {base}: it must be above 1")
    divergences = [
        (rel_entr(p, (p + q) / 2).sum() + rel_entr(q, (p + q) / 2).sum()) / 2
        for p, q in paired(predicted, gold)
    ]
    # For near-equal distributions rounding goes below 0; scipy's jensenshannon gives NaN there.
    return np.maximum(divergences, 0.0) / np.log(base)


def js_distance(predicted: Distributions, gold: Distributions, *, base: float = 2.0) -> PerQuestion:
    """Jensen-Shannon distance of each question: the square root of the divergence.

    A metric (Endres and Schindelin 2003), from 0 to 1 at base 2; what survey-alignment papers
    report and what ``scipy.spatial.distance.jensenshannon`` returns.

    Raises:
        InputError: as ``js_divergence``.
    """
    return np.sqrt(js_divergence(predicted, gold, base=base))


def total_variation(predicted: Distributions, gold: Distributions) -> PerQuestion:
    """Half the summed absolute difference of each question: the share that would have to move.

    Raises:
        InputError: a distribution is invalid, or the two sets do not match.
    """
    return np.array([np.abs(p - q).sum() / 2 for p, q in paired(predicted, gold)])


def wasserstein(predicted: Distributions, gold: Distributions) -> PerQuestion:
    """Wasserstein-1 distance of each question whose options are ordered, from 0 to 1.

    Options lie at 0, 1, ... n - 1 and the distance is divided by n - 1, its largest value, as in
    Santurkar et al. (2023, arXiv 2303.17548): unlike the other distances, it counts
    mass on the neighbour of an answer as nearly right. It means nothing where the order of the
    options means nothing, and options off the scale ("refused") have to be left out first.

    Raises:
        InputError: a distribution is invalid, or the two sets do not match.
    """
    # In one dimension it is the area between the distribution functions (Vallender 1974).
    return np.array(
        [np.abs(np.cumsum(p - q)[:-1]).sum() / (len(p) - 1) for p, q in paired(predicted, gold)]
    )


def simbench_score(
    predicted: Distributions,
    gold: Distributions,
    *,
    datasets: Sequence[object] | None = None,
) -> PerQuestion:
    """SimBench's score of each question: 100 is a perfect prediction, 0 no better than uniform.

    100 * (1 - TV(predicted, gold) / U), with TV the total variation and U the mean of
    TV(uniform, gold) over the questions of the same dataset (Hu et al. 2025, arXiv 2510.17516). It
    goes below 0 where uniform is the better guess. The paper's score of a model is the mean over
    all questions, whatever their dataset. That U is the dataset's mean, and not the question's own
    value, is what the released script computes: a question that divides people evenly would
    otherwise divide by 0.

    Args:
        predicted: The model's distributions.
        gold: What people answered.
        datasets: The dataset of each question; None: they are all of one.

    Raises:
        InputError: a distribution is invalid, the sets do not match, or people were divided evenly
            on every question of a dataset.
    """
    distances = total_variation(predicted, gold)
    uniform = [np.full(len(p), 1 / len(p)) for p in normalised("gold", gold)]
    baseline = total_variation(uniform, gold)
    names = [None] * len(baseline) if datasets is None else list(datasets)
    if len(names) != len(baseline):
        raise InputError(
            f"there are {len(baseline)} questions but {len(names)} dataset names: give one for each"
        )
    of_dataset = {
        name: float(np.mean([b for b, n in zip(baseline, names, strict=True) if n == name]))
        for name in dict.fromkeys(names)
    }
    for name, mean in of_dataset.items():
        if mean < _EVEN:
            which = "" if name is None else f" of dataset {name!r}"
            raise InputError(f"every gold distribution{which} is uniform: nothing to score against")
    return 100 * (1 - distances / np.array([of_dataset[name] for name in names]))
