"""``saepd fit``: feedback in, directions out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from saepd.cli.feedback import FeedbackOptions
from saepd.cli.options import (
    check_folder,
    load_model_and_saes,
    print_json,
    print_table,
)
from saepd.common.errors import InputError
from saepd.common.progress import progress_bar
from saepd.features.config import FeatureConfig
from saepd.fit.config import FitConfig, LearningConfig
from saepd.fit.learnable import check_learnable
from saepd.models.choice import ModelConfig

if TYPE_CHECKING:
    from saepd.feedback.schema import Feedback
    from saepd.fit.learn import LearnedFit
    from saepd.fit.recipe import Fit

EXAMPLES = """\
  saepd fit --out steering         (packaged survey answers, 50 per group)
  saepd fit --feedback mine.jsonl --out steering
  saepd fit --feedback mine.csv --skip-bad --n-latents 16 --out steering
  saepd fit --feedback mine.jsonl --method differences --k 16 --out steering
  saepd fit --feedback ten.jsonl --like steering --out new_voice
  saepd fit --block 10 --also 15 20 --out steering      (three sites in each)
  saepd fit --config mine.yaml --block 20

A feedback row:

  {"id": "r1", "perspective": "A", "prompt": "Should buses be free?",
   "options": ["Yes", "No"], "answer": "Yes", "comment": "..."}"""

FIRST = ("feedback", "out", "method", "n_latents", "gate", "anyway", "model", "sae")

Method = Literal["learned", "differences"]


@dataclass(kw_only=True)
class Options:
    """What is fitted.

    Attributes:
        out: Folder that steering.safetensors and steering.json are written to.
        method: How directions come about: learned as they will run, with a verdict on whether that
            foretells answers better than no steering; or differences of means of chosen latents,
            which is how the paper makes them.
        also: Further SAEs, each the block of a shipped one or a folder: directions then write at
            the sites of all, learned together.
        like: Folder of directions of perspectives that are known already; the feedback is then that
            of one new perspective, about 5 to 20 answers, and is learned as a mixture of these.
        json: Print what was written as JSON.
    """

    out: Path
    method: Method = "learned"
    also: list[str] = field(default_factory=list)
    like: Path | None = None
    json: bool = False
    rows: FeedbackOptions = field(default_factory=FeedbackOptions)
    where: ModelConfig = field(default_factory=ModelConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    learning: LearningConfig = field(default_factory=LearningConfig)


def run(options: Options) -> None:
    """Fit, save, and say what was made."""
    from saepd.directions.saving import save_to_disk
    from saepd.fit.recipe import fit_directions

    check_folder(options.out)
    learns = options.method == "learned"
    if learns and options.fit.features != FeatureConfig():
        raise InputError(
            "learning chooses latents itself: add --method differences, or leave out the options "
            "that choose latents for differences of means (--k, --contrast and those beside them "
            "in saepd fit --help-all)"
        )
    if not learns and options.learning != LearningConfig():
        raise InputError(
            "--method differences learns nothing: leave out the options of learning (--n-latents, "
            "--anyway and those beside them in saepd fit --help-all)"
        )
    if options.also and not (learns and options.like is None):
        raise InputError(
            "--also is for directions that are learned alone: leave it out with --method "
            "differences and with --like"
        )
    untouched = (options.method, options.fit, options.learning) == (
        "learned",
        FitConfig(),
        LearningConfig(),
    )
    if options.like is not None and not untouched:
        raise InputError(
            "--like mixes directions that were fitted already, as they are: leave out --method and "
            "the options of fitting (--n-latents, --positions and those beside them in saepd fit "
            "--help-all)"
        )
    if options.like is not None and options.like.resolve() == options.out.resolve():
        raise InputError(
            f"--out {options.out} is the folder of --like, whose directions would be lost: name "
            "another"
        )
    rows = options.rows.load()
    if learns or options.like is not None:
        # Before a model is loaded for it.
        check_learnable(rows, options.learning.n_folds)
    if options.like is not None:
        _mix(options, options.like, rows)
        return
    model, saes = load_model_and_saes(options.where, [None, *options.also])
    if learns:
        from saepd.fit.learn import learn_directions

        with progress_bar(f"learning from {len(rows)} rows") as report:
            learned = learn_directions(
                model, saes, rows, options.fit, options.learning, progress=report
            )
        save_to_disk(learned.directions, options.out, verdict=learned.verdict.as_json())
        _show_learned(learned, options)
        return
    with progress_bar(f"fitting on {len(rows)} rows") as report:
        fitted = fit_directions(model, saes[0], rows, options.fit, progress=report)
    save_to_disk(fitted.directions, options.out)
    _show_fitted(fitted, options)


def _mix(options: Options, like: Path, rows: Sequence[Feedback]) -> None:
    """Learn a new voice from what is known, save it, and say what it is made of."""
    from saepd.cli.steering import SteeringOptions
    from saepd.directions.saving import save_to_disk
    from saepd.fit.voice import learn_voice

    model, known = SteeringOptions(like).load(options.where)
    voice = learn_voice(model, known, rows)
    verdict = {
        "sentence": str(voice),
        "weights": voice.weights,
        "gain": None if voice.gain is None else voice.gain._asdict(),
        "in_span": voice.in_span,
    }
    save_to_disk([voice.direction], options.out, model=model, verdict=verdict)
    if options.json:
        print_json({"out": str(options.out), **verdict})
        return
    print_table(
        f"{voice.direction.perspective} in {options.out}, a mixture of",
        ["perspective", "weight"],
        [[name, f"{weight:+.2f}"] for name, weight in voice.weights.items()],
    )
    print(verdict["sentence"])


def _show_learned(fit: LearnedFit, options: Options) -> None:
    from saepd.cli.show import show_verdict

    summary = [
        {
            "perspective": direction.perspective,
            "coefficient": direction.coefficient,
            "hook_names": [part.hook_name for part in direction.parts],
            "positions": direction.positions,
        }
        for direction in fit.directions
    ]
    if options.json:
        print_json({"out": str(options.out), "directions": summary, **fit.verdict.as_json()})
        return
    first = fit.directions[0]
    sites = ", ".join(part.hook_name for part in first.parts)
    show_verdict(fit.verdict.as_json(), f"Directions in {options.out}: {sites}, {first.positions}")


def _show_fitted(fitted: Fit, options: Options) -> None:
    from saepd.cli.show import shared_sentence
    from saepd.features.select import overlap

    summary = [
        {
            "perspective": features.perspective,
            "n_feedback": len(fitted.pairs.of(features.perspective)),
            "n_latents": len(features.latents),
            "lowest_stability": _lowest(features.stability.tolist()),
            "n_by_chance": features.n_by_chance,
            "n_unstable": features.n_unstable,
            "coefficient": direction.coefficient,
            "hook_name": direction.hook_name,
            "positions": direction.positions,
        }
        for features, direction in zip(fitted.features, fitted.directions, strict=True)
    ]
    shared = {f"{a} / {b}": share for (a, b), share in overlap(fitted.features).items()}
    if options.json:
        print_json(
            {
                "out": str(options.out),
                "directions": summary,
                "overlap": {pair: share._asdict() for pair, share in shared.items()},
                "notes": [note for features in fitted.features for note in features.notes],
            }
        )
        return
    names = ["n_feedback", "n_latents", "lowest_stability", "n_by_chance", "n_unstable"]
    names.append("coefficient")
    _print_directions(summary, options.out, names)
    for pair, share in shared.items():
        print(shared_sentence(pair, share))
    for features in fitted.features:
        for note in features.notes:
            print(note)


def _print_directions(summary: Sequence[dict[str, Any]], out: Path, names: Sequence[str]) -> None:
    columns = ["perspective", *names]
    # Words that leave the table room in 80 columns.
    short = {"n_feedback": "rows", "coefficient": "strength"}
    print_table(
        f"Directions in {out}: {summary[0]['hook_name']}, {summary[0]['positions']}",
        [short.get(n, n.removeprefix("n_").replace("_", " ")) for n in columns],
        [[_cell(row[n]) for n in columns] for row in summary],
    )


def _lowest(stability: Sequence[float]) -> float | None:
    """The least stability; None where latents were taken without measuring it."""
    lowest = min(stability, default=math.nan)
    return None if math.isnan(lowest) else lowest


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
