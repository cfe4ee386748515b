"""The stages of a point up to the scores of its branches, each computed once for all points.

    prefix       model, site, questions                  in the memory of a process
    feedback     model, SAE, feedback, how it is read    on disk
    directions   encoded feedback, selection, mode       on disk
    branches     prefix, directions, coefficient         on disk
    readout      branches, merge, alpha, tau             `saepd.sweeps.point.measure`: no forward

A key hashes all that a stage depends on (`saepd.sweeps.point.dependencies`). A prefix is not
written to disk: it holds keys and values of every lower block, so that writing and reading it takes
about as long as running these blocks again, and it would push all else out of the cache. It runs
only where branch scores are missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from saepd.branches.neutral import NEUTRAL_PROMPTS, kl_to_base
from saepd.directions.direction import Direction
from saepd.directions.edits import EditLatents
from saepd.evaluation.fold import Draw
from saepd.features.encode import Pairs, encode_pairs
from saepd.feedback.schema import Item
from saepd.fit.config import FitConfig
from saepd.fit.recipe import fit_pairs, lineage
from saepd.models.wording import ReadoutConfig
from saepd.sweeps.point.bench import Bench, LoadedModel, counting_forwards, for_neutral
from saepd.sweeps.point.dependencies import STAGES, fit_ingredients, stage_keys
from saepd.sweeps.point.question import asked_items, draw_of, task_of
from saepd.sweeps.point.stage_cache import StageCache, StageResult, Tensors
from saepd.sweeps.space.parameters import PointConfig
from saepd.tasks.task import Task

_PAIR_TENSORS = ("latents", "residuals", "density", "special_density", "positive_latents")


@dataclass(frozen=True)
class StageUse:
    """One stage as a point used it.

    Attributes:
        kind: Name of the stage's kind.
        key: Hash of all that the stage depends on.
        reused: Whether its result was there already.
        n_forwards: Calls of the model that computing it takes.
    """

    kind: str
    key: str
    reused: bool
    n_forwards: int


@dataclass(frozen=True)
class ScoredPoint:
    """What a point's branches say.

    Attributes:
        task: Questions and people's answers to them.
        draw: Which questions are held out, and the feedback on the others.
        items: The questions that were scored.
        scores: Item id -> log-likelihood of each option, nats: of the base, then of each direction.
        kl: Nats that each direction moves neutral text by, on average.
        directions: The directions as they ran, one for each perspective.
        stages: The stages that were used, and which of them were there already.
        loaded: Fingerprints of the model's weights and of the dictionary, the SAE.
    """

    task: Task
    draw: Draw
    items: list[Item]
    scores: dict[str, Tensor]
    kl: Tensor
    directions: list[Direction]
    stages: list[StageUse]
    loaded: dict[str, str]


def score_point(bench: Bench, cache: StageCache, config: PointConfig) -> ScoredPoint:
    """Scores of all branches of a point, computed only where the cache does not hold them.

    Raises:
        InputError: whatever loading, drawing, fitting or scoring refuses.
    """
    loaded = bench.load(config.where)
    task, draw = task_of(config.task), draw_of(config.task, config.draw)
    items = asked_items(task, draw)
    prompts = [task.wording.text(item.prompt) for item in items]
    fit = replace(config.fit, readout=ReadoutConfig(template=task.wording.plain))
    keys = keys_by_content(loaded, items, prompts, draw, fit)
    fitted = cache.get_or_compute(
        "directions", keys["directions"], lambda: _fit(loaded, cache, keys, draw, fit)
    )
    uses = _with_input(keys, "directions", fitted)
    directions = _unpacked(fitted.tensors, loaded, draw, fit)

    def run() -> tuple[Tensors, int]:
        prefix, held = bench.prefix(keys["prefix"], loaded, items, prompts, fit.direction.positions)
        with counting_forwards(loaded.model) as calls:
            scored = prefix.questions.score_continuations(directions)
            kl = kl_to_base(prefix.neutral.branch(for_neutral(directions)))

        scores = torch.cat([row.log_probs for row in scored], dim=1)
        return {"scores": scores, "kl": kl, **_input(held, prefix.n_forwards)}, len(calls)

    branches = cache.get_or_compute("branches", keys["branches"], run)
    uses += _with_input(keys, "branches", branches)
    split = branches.tensors["scores"].split([len(item.options) for item in items], dim=1)
    scores = dict(zip([item.id for item in items], split, strict=True))
    fingerprints = {"weights": loaded.model_fingerprint, "dictionary": loaded.sae_fingerprint}
    return ScoredPoint(
        task, draw, items, scores, branches.tensors["kl"], directions, uses, fingerprints
    )


def keys_by_content(
    loaded: LoadedModel, items: Sequence[Item], prompts: Sequence[str], draw: Draw, fit: FitConfig
) -> dict[str, str]:
    """Kind -> key of each stage whose result is kept.

    Results hold tensors by row of the feedback and by place of its perspective, so the order of the
    rows is part of what they depend on.
    """
    named = {
        "model": [loaded.model_fingerprint, loaded.model_settings, str(loaded.model.cfg.dtype)],
        "site": loaded.hook_name,
        "sae": loaded.sae_fingerprint,
        "questions": [
            NEUTRAL_PROMPTS,
            *([prompt, *item.options] for prompt, item in zip(prompts, items, strict=True)),
        ],
        "feedback": [row.model_dump(mode="json", exclude_none=True) for row in draw.feedback],
    }
    return stage_keys(named | fit_ingredients(fit))


def _fit(
    loaded: LoadedModel, cache: StageCache, keys: Mapping[str, str], draw: Draw, fit: FitConfig
) -> tuple[Tensors, int]:
    """Directions at a coefficient of 1, or at the one that the KL budget allows."""

    def encode() -> tuple[Tensors, int]:
        with counting_forwards(loaded.model) as calls:
            encoded = encode_pairs(
                loaded.model, loaded.sae, draw.feedback, fit.features, fit.readout
            )
        return {name: getattr(encoded, name) for name in _PAIR_TENSORS}, len(calls)

    feedback = cache.get_or_compute("feedback", keys["feedback"], encode)
    tensors_of: dict[str, Any] = {name: feedback.tensors[name] for name in _PAIR_TENSORS}
    pairs = Pairs(rows=list(draw.feedback), positive_texts=[], **tensors_of)
    unit = replace(fit, direction=replace(fit.direction, coefficient=1.0))
    with counting_forwards(loaded.model) as calls:
        directions = fit_pairs(loaded.model, loaded.sae, pairs, unit).directions
    tensors: dict[str, Tensor] = dict(_input(feedback.reused, feedback.n_forwards))
    edits = [direction.edit for direction in directions if isinstance(direction.edit, EditLatents)]
    for i, edit in enumerate(edits):
        tensors[f"latents.{i}"] = edit.latents
        if edit.values is not None:
            tensors[f"values.{i}"] = edit.values
    tensors["coefficients"] = torch.tensor([d.coefficient for d in directions], dtype=torch.float64)
    return tensors, len(calls)


def _unpacked(tensors: Tensors, loaded: LoadedModel, draw: Draw, fit: FitConfig) -> list[Direction]:
    story = lineage(loaded.model, loaded.sae, draw.feedback, fit)
    scale = 1.0 if fit.direction.kl_budget else fit.direction.coefficient
    names = list(dict.fromkeys(row.perspective for row in draw.feedback))
    return [
        Direction(
            perspective=name,
            hook_name=loaded.hook_name,
            edit=EditLatents(
                loaded.sae,
                tensors[f"latents.{i}"],
                tensors.get(f"values.{i}"),
                fit.direction.mode,
            ),
            positions=fit.direction.positions,
            coefficient=float(tensors["coefficients"][i]) * scale,
            lineage=story,
        )
        for i, name in enumerate(names)
    ]


def _input(reused: bool, n_forwards: int) -> dict[str, Tensor]:
    """What the stage before took: kept with the result, since the stage itself may be gone."""
    return {"input": torch.tensor([reused, n_forwards])}


def _with_input(keys: Mapping[str, str], kind: str, stored: StageResult) -> list[StageUse]:
    """How a stage and the one that feeds it were used."""
    was_there, n_forwards = stored.tensors["input"].tolist()
    before = STAGES[kind].after[0]
    return [
        StageUse(before, keys[before], stored.reused or bool(was_there), int(n_forwards)),
        StageUse(kind, keys[kind], stored.reused, stored.n_forwards),
    ]
