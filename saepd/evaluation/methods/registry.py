"""The methods that can be compared, by id.

To add one, write a function from a `Fold` to the probabilities of every pair in ``fold.asked``, and
an entry below. A method must use no more of what people said than ``fold.feedback``.
"""

from __future__ import annotations

from functools import partial

from saepd.evaluation.methods import (
    few_shot,
    fitted,
    gated,
    merged,
    nulls,
    population,
    probes,
    steered,
)
from saepd.evaluation.methods.method import Method
from saepd.merge.config import MergeConfig

# The mean of what learned directions say for each group.
_GROUPS_MEAN = ("fitted-scales", "gated-directions")
_ADDED = tuple(f"added-learned-{kind}" for kind in population.ADDED)
# Merge of learned directions -> what it has to beat: simpler pools, and one branch for all.
_POOLS = {
    "pluralistic": ("merged-learned-mixture", "merged-learned-product", *_GROUPS_MEAN, *_ADDED),
    "mixture": _ADDED,
    "product": _ADDED,
}

METHODS: dict[str, Method] = {
    "uniform": Method("uniform", nulls.uniform, "the same probability for every option"),
    "train-mean": Method(
        "train-mean",
        nulls.train_mean,
        "mean of the perspective's feedback on items with as many options",
    ),
    "train-mean-pooled": Method(
        "train-mean, pooled",
        nulls.train_mean_pooled,
        "mean of everybody's feedback on items with as many options",
    ),
    "zero-shot": Method(
        "zero-shot", nulls.zero_shot, "base model, likelihood of each option's text"
    ),
    "zero-shot-persona": Method(
        "zero-shot, persona prompt",
        nulls.zero_shot_persona,
        "the same after a prompt that names the perspective",
    ),
    "zero-shot-letters": Method(
        "zero-shot, letters",
        nulls.zero_shot_letters,
        "base model, probability of each option's letter",
    ),
    "zero-shot-letters-over-orders": Method(
        "zero-shot, letters over orders",
        nulls.zero_shot_letters_over_orders,
        "letters, averaged over cyclic orders of the options",
        costly=True,
    ),
    "contextual-calibration": Method(
        "contextual calibration",
        nulls.contextual_calibration,
        "text scores less their mean over the feedback's questions",
    ),
    "temperature": Method(
        "temperature",
        nulls.temperature,
        "text scores at a temperature fitted on own feedback",
    ),
    "position-bias": Method(
        "temperature and position bias",
        nulls.position_bias,
        "text scores at a temperature plus a bias per option position, fitted on own feedback",
    ),
    "position-bias-pooled": Method(
        "temperature and position bias, pooled",
        nulls.position_bias_pooled,
        "the same, fitted on everybody's feedback",
    ),
    "position-bias-pooled-and-own": Method(
        "temperature and position bias, pooled + own",
        nulls.position_bias_pooled_and_own,
        "the pooled fit, and how own feedback differs from it",
    ),
    "few-shot": Method(
        "few-shot prompt", few_shot.few_shot, "text scores after examples of own feedback"
    ),
    "sae-reconstruction": Method(
        "SAE reconstruction only",
        steered.predict_reconstruction,
        "no steering, the reconstruction in the activation's place",
        costly=True,
        branches=steered.reconstruction,
    ),
    "difference-in-means": Method(
        "dense difference in means",
        partial(steered.predict_mean_difference, kind="dense"),
        "mean difference of the residual, without an SAE",
        costly=True,
        branches=partial(steered.mean_difference_branches, kind="dense"),
    ),
    "random-latents": Method(
        "random latents",
        partial(steered.predict_mean_difference, kind="random"),
        "as many latents as selected, drawn at random",
        costly=True,
        branches=partial(steered.mean_difference_branches, kind="random"),
    ),
    "shuffled-labels": Method(
        "shuffled labels",
        partial(steered.predict_mean_difference, kind="shuffled"),
        "latents selected on feedback whose perspectives were shuffled",
        costly=True,
    ),
    "paper": Method(
        "paper's recipe",
        steered.predict_paper,
        "all latents, mean difference, coefficient 1, error term kept, scores as they are",
        null=False,
        costly=True,
        branches=lambda fold: steered.paper(fold).directions,
    ),
    "paper-without-error-term": Method(
        "paper's recipe, no error term",
        steered.predict_paper_without_error,
        "the same with the reconstruction in the activation's place",
        null=False,
        costly=True,
        branches=steered.paper_without_error,
    ),
    "paper-calibrated": Method(
        "paper's recipe, calibrated",
        steered.predict_paper_calibrated,
        "the paper's recipe, read at a fitted temperature and position bias",
        null=False,
        costly=True,
    ),
    "selected-latents": Method(
        "selected latents",
        partial(steered.predict_mean_difference, kind="selected"),
        "stable latents, mean difference, coefficient chosen on own feedback",
        null=False,
        costly=True,
        branches=partial(steered.mean_difference_branches, kind="selected"),
        controls=("random-latents", "shuffled-labels", "difference-in-means"),
    ),
    "selected-latents-kl-budget": Method(
        "selected latents, KL budget",
        steered.predict_within_budget,
        f"the same at the largest coefficient within {steered.KL_BUDGET} nats on neutral text",
        null=False,
        costly=True,
        branches=lambda fold: steered.within_budget(fold).directions,
    ),
    **{
        f"merged-{operator}": Method(
            f"merged, {operator}",
            partial(merged.merge_perspectives, config=MergeConfig(operator)),
            f"selected latents of all perspectives and the base, {operator}: one answer for all",
            null=False,
            costly=True,
            for_population=True,
        )
        for operator in merged.COMPARED_OPERATORS
    },
    **{
        f"merged-with-base-{operator}": Method(
            f"merged with base, {operator}",
            partial(merged.merge_with_base, config=MergeConfig(operator)),
            f"own selected latents and the base, {operator}",
            null=False,
            costly=True,
        )
        for operator in merged.COMPARED_OPERATORS
    },
    "as-fit": Method(
        "learned, gated where supported",
        fitted.predict_as_fit,
        "saepd fit as it is: directions of few chosen latents, learned as they run, with gates "
        "where cross-validation supports them",
        null=False,
        branches=fitted.as_fit,
        controls=("fitted-scales",),
    ),
    "fitted-scales": Method(
        "learned latents",
        partial(fitted.predict_fitted, kind="latents"),
        "saepd fit --gate never: directions of few chosen latents, learned as they run",
        null=False,
        branches=partial(fitted.fitted_directions, kind="latents"),
        controls=(
            "fitted-scales-random-latents",
            "fitted-scales-shuffled-labels",
            "fitted-dense-vector",
        ),
    ),
    "fitted-scales-random-latents": Method(
        "learned, random latents",
        partial(fitted.predict_fitted, kind="random"),
        "control: the same with as many latents drawn at random",
        null=False,
    ),
    "fitted-scales-shuffled-labels": Method(
        "learned, shuffled labels",
        partial(fitted.predict_fitted, kind="shuffled"),
        "control: the same on feedback whose perspectives were shuffled",
        null=False,
    ),
    "fitted-dense-vector": Method(
        "learned dense vector",
        partial(fitted.predict_fitted, kind="vector"),
        "saepd fit --n-latents 0: a vector of the residual stream, without a dictionary",
        null=False,
        branches=partial(fitted.fitted_directions, kind="vector"),
    ),
    **{
        f"merged-learned-{operator}": Method(
            f"learned, merged, {operator}",
            partial(population.predict_merged, config=MergeConfig(operator)),
            f"learned directions of all perspectives and the base, {operator}: one answer for all",
            null=False,
            for_population=True,
            controls=_POOLS[operator],
        )
        for operator in _POOLS
    },
    "merged-learned-fitted-weights": Method(
        "learned, merged, fitted weights",
        population.predict_weighted,
        "mean of what the learned directions' branches say, weights fitted on everybody's feedback",
        null=False,
        costly=True,
        for_population=True,
        controls=_GROUPS_MEAN,
    ),
    **{
        f"added-learned-{kind}": Method(
            f"learned, added, {kind}",
            partial(population.predict_added, kind=kind),
            f"control: one branch that writes the {kind} of all learned directions",
            null=False,
            costly=True,
            for_population=True,
            branches=partial(population.added_branch, kind=kind),
        )
        for kind in population.ADDED
    },
    "gated-directions": Method(
        "gated directions",
        gated.gated_directions,
        "a direction whose amount a gate reads from the item's own latents, over the prompt",
        null=False,
        for_labels=True,
        branches=gated.gated_branches,
        controls=("gated-directions-shuffled-answers",),
    ),
    "gated-directions-shuffled-answers": Method(
        "gated directions, shuffled answers",
        gated.gated_shuffled,
        "control: gates fitted on answers dealt to other items",
        null=False,
        for_labels=True,
    ),
    "linear-probe-residual": Method(
        "linear probe, residual",
        probes.probe_residuals,
        "logistic regression on the residual, mean over the prompt",
        for_labels=True,
    ),
    "linear-probe-latents": Method(
        "linear probe, latents",
        probes.probe_latents,
        "logistic regression on the SAE's latents, mean over the prompt",
        for_labels=True,
    ),
}
