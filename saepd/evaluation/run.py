"""Every method on every draw, part by part, and the files that tell what came out."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saepd.branches.engine.plan import Branch
from saepd.branches.neutral import SideEffects, side_effects
from saepd.common.errors import InputError
from saepd.common.files import write_atomically, write_json
from saepd.evaluation.config import EvaluationConfig
from saepd.evaluation.fold import Draw, Fold, fold_of, make_draws
from saepd.evaluation.item_cache import ItemCache
from saepd.evaluation.methods.choice import methods_of
from saepd.evaluation.results.parts import Parts, Prediction
from saepd.evaluation.results.population import population_rows
from saepd.evaluation.results.result import (
    ITEMS_FILE,
    PREDICTIONS_FILE,
    SUMMARY_FILE,
    EvaluationResult,
)
from saepd.evaluation.results.summary import EVERYBODY, summary_rows
from saepd.evaluation.results.table import markdown_table
from saepd.fit.at_sites import by_site
from saepd.models.identity import settings_fingerprint, weights_fingerprint
from saepd.saes.load import sae_fingerprint, sae_hook_name, sae_settings
from saepd.tasks.task import Task

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

_PACKAGES = (
    *("saepd", "torch", "transformers", "transformer-lens", "sae-lens"),
    *("numpy", "scipy", "scikit-learn"),
)
# Raised when a method, or what all of them are given, comes to mean other numbers.
VERSION = 7

Report = Callable[[str, int, int], None]


def evaluate(
    model: TransformerBridge,
    sae: SAE[Any] | Sequence[SAE[Any]],
    task: Task,
    config: EvaluationConfig,
    out: str | Path,
    methods: Sequence[str] | None = None,
    progress: Report | None = None,
    first: Fold | None = None,
) -> EvaluationResult:
    """Compare methods on a task; a folder that an interrupted call left is finished.

    Writes ``predictions.parquet``, ``items.json``, ``summary.json``, ``table.md`` and ``run.json``,
    of which only the last says anything about time. Where a method answers for the whole population
    there is a ``population.md``, in which all are held against the population's answers.

    Args:
        model: The language model.
        sae: A dictionary of one of its sites; or several, of which learned directions use all, and
            other methods the first.
        task: Questions and answers; all of its perspectives take part.
        config: Which questions are held out, and how much feedback all methods are given.
        out: Folder that the files are written to.
        methods: Ids in `METHODS`, or ``all``; those that the task allows and that are not costly
            if None.
        progress: Called with what is being done, the step, and the number of steps.
        first: From `first_fold`, for a caller who goes on with what methods computed in it.

    Returns:
        What ``summary.json`` holds.

    Raises:
        InputError: settings that do not fit the task, too few questions, several SAEs of which two
            are of one site or one cannot steer, the folder belongs to another configuration, or
            pandas and pyarrow are missing.
    """
    chosen = methods_of(task, methods)
    check_task(task)
    out = Path(out)
    draws = make_draws(task, config.draw)
    saes = [*sae] if isinstance(sae, Sequence) else [sae]
    if len(saes) > 1:
        by_site(saes)
    settings = _settings(model, saes, task, config)
    parts = Parts(out, settings)
    cache = _cache(model, saes, task, draws, parts)
    report: Report = progress or (lambda *_: None)
    began, seconds = time.time(), {}
    steps = [(number, name) for number in range(len(draws)) for name in chosen]
    fold, of_draw = first, 0
    for step, (number, name) in enumerate(steps):
        report(f"draw {number + 1}: {name}", step, len(steps))
        if parts.path(number, name).exists():
            continue
        start = time.perf_counter()
        if fold is None or of_draw != number:
            # One for all methods of a draw, since some share what they compute.
            fold = fold_of(draws[number], task, cache, config.few_shot_tokens)
            of_draw = number
        predictions = chosen[name].predict(fold)
        if set(predictions) != set(fold.asked):
            raise RuntimeError(f"the method {name} did not predict exactly what it was asked")
        branches = chosen[name].branches
        parts.write(number, name, predictions, _side_effects(fold, branches) if branches else None)
        seconds[f"{number}: {name}"] = round(time.perf_counter() - start, 2)
    report("done", len(steps), len(steps))
    all_predictions = [row for number, name in steps for row in parts.read(number, name)]
    effects = {
        name: [parts.side_effects(number, name) for number in range(len(draws))] for name in chosen
    }
    seed = config.draw.seed
    of_groups = {name: method for name, method in chosen.items() if not method.for_population}
    rows = summary_rows(
        [row for row in all_predictions if row.method in of_groups], of_groups, task, seed, effects
    )
    population = population_rows(all_predictions, chosen, task, seed, effects)
    summary = EvaluationResult(
        rows=rows,
        population=population,
        methods={name: method.description for name, method in chosen.items()},
        config=settings,
        n_test_items=[len(draw.test) for draw in draws],
        left_out=dict(task.left_out),
    )
    _write_files(out, task, all_predictions, summary)
    times = {"began": began, "ended": time.time(), "seconds": seconds}
    write_json(out / "run.json", times)
    return summary


def _write_files(
    out: Path, task: Task, predictions: Sequence[Prediction], summary: EvaluationResult
) -> None:
    """Write what came out, none of which says anything about time."""
    write_atomically(out / PREDICTIONS_FILE, _parquet(predictions, task))
    asked = {row.item for row in predictions}
    write_json(
        out / ITEMS_FILE,
        [
            {"id": item.id, "prompt": item.prompt, "options": list(item.options)}
            for item in task.items
            if item.id in asked
        ],
    )
    write_json(out / SUMMARY_FILE, summary)
    write_atomically(out / "table.md", (markdown_table(summary["rows"]) + "\n").encode())
    if population := summary.population:
        write_atomically(out / "population.md", (markdown_table(population) + "\n").encode())


def first_fold(
    model: TransformerBridge, sae: SAE[Any], task: Task, config: EvaluationConfig, out: Path
) -> Fold:
    """What methods saw of the first draw, to look at one by one; arguments as of `evaluate`.

    Raises:
        InputError: as `evaluate`.
    """
    check_task(task)
    draws = make_draws(task, config.draw)
    cache = _cache(model, [sae], task, draws, Parts(out, _settings(model, [sae], task, config)))
    return fold_of(draws[0], task, cache, config.few_shot_tokens)


def check_task(task: Task) -> None:
    """Refuse what would fail only after a long time.

    Raises:
        InputError: a perspective has the name of everybody or is not known to have answered
            anything, an item has no options, or pandas or pyarrow is not installed.
    """
    if EVERYBODY in task.perspectives:
        raise InputError(
            f"a perspective is called {EVERYBODY!r}, which stands for all of them in the "
            "results: rename it"
        )
    known = {name for item in task.items for name in item.distributions}
    for name in task.perspectives:
        if name not in known:
            raise InputError(
                f"no item of the task {task.name} has a distribution of {name!r}: without one, "
                "what is predicted for it cannot be compared with anything"
            )
    for item in task.items:
        if not item.options:
            raise InputError(f"item {item.id!r} has no options to compare: leave it out")
    for package in ("pandas", "pyarrow"):
        if find_spec(package) is None:
            raise InputError(f"{package} is not installed: pip install 'saepd[explore]'")


def _side_effects(
    fold: Fold, branches: Callable[[Fold], Mapping[str, Branch]]
) -> dict[str, SideEffects]:
    by_perspective = branches(fold)
    effects = side_effects(fold.model, list(by_perspective.values()))
    return dict(zip(by_perspective, effects, strict=True))


def _cache(
    model: TransformerBridge,
    saes: Sequence[SAE[Any]],
    task: Task,
    draws: Sequence[Draw],
    parts: Parts,
) -> ItemCache:
    tests = {id_ for draw in draws for id_ in draw.test}
    answered = {row.item for draw in draws for row in draw.feedback}
    ids = [item.id for item in task.items]
    return ItemCache(
        model,
        saes[0],
        task,
        [id_ for id_ in ids if id_ in tests | answered],
        [id_ for id_ in ids if id_ in tests],
        parts.folder / "items",
        answered=[id_ for id_ in ids if id_ in answered],
        further=saes[1:],
    )


def _settings(
    model: TransformerBridge, saes: Sequence[SAE[Any]], task: Task, config: EvaluationConfig
) -> dict[str, Any]:
    """All that the predictions depend on, as JSON values."""
    digest = hashlib.sha256()
    for piece in (*task.items, *task.feedback):
        digest.update(piece.model_dump_json().encode() + b"\n")
    sae, *further = saes
    rest = (asdict(task.wording), dict(task.groups), task.positive, dict(task.population))
    digest.update(json.dumps(rest, sort_keys=True).encode())
    return {
        "task": task.name,
        "task_sha256": digest.hexdigest(),
        "perspectives": list(task.perspectives),
        **asdict(config.draw),
        "few_shot_tokens": config.few_shot_tokens,
        "model": str(model.cfg.model_name),
        "model_fingerprint": weights_fingerprint(model),
        "model_settings": settings_fingerprint(model),
        # The fingerprint is the same in every precision, which the numbers are not.
        "dtype": str(next(model.original_model.parameters()).dtype),
        "site": sae_hook_name(sae),
        "sae_fingerprint": sae_fingerprint(sae),
        "sae_settings": sae_settings(sae),
        "sae_dtype": str(sae.dtype),
        **{
            f"also {sae_hook_name(one)}": [sae_fingerprint(one), sae_settings(one), str(one.dtype)]
            for one in further
        },
        "version": VERSION,
        **{f"version of {name}": version(name) for name in _PACKAGES},
    }


def _parquet(predictions: Sequence[Prediction], task: Task) -> bytes:
    """One row per draw, item, perspective and method."""
    import pandas as pd

    frame = pd.DataFrame(
        {
            "draw": [row.draw for row in predictions],
            "method": [row.method for row in predictions],
            "item": [row.item for row in predictions],
            "perspective": [row.perspective for row in predictions],
            "probabilities": [row.probabilities.tolist() for row in predictions],
            "readable": [row.readable for row in predictions],
            "gold": [list(task.by_id[r.item].distributions[r.perspective]) for r in predictions],
        }
    )
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()
