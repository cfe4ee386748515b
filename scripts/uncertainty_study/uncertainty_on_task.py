"""What a model's uncertainty is worth on a task: calibrated or not, and who should be asked.

One answer stands for everybody: it is right if it is what most people say, all perspectives
weighing the same, and people are divided as much as that mean of theirs is spread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy.stats import entropy

from saepd.evaluation.fold import Fold, Options
from saepd.evaluation.methods.nulls import POOLED_RIDGE, fit_biases, read_biased
from saepd.evaluation.results.labelled import label_of
from saepd.feedback.schema import Feedback, Item
from saepd.metrics.classification import accuracy
from saepd.metrics.distances import total_variation
from saepd.tasks.task import Task
from saepd.uncertainty.assessment import SCORES
from saepd.uncertainty.triage import REASONS, needs, reason_ranks
from uncertainty_study.assessed import BASE, OPERATORS, RANDOM, TEMPERATURE, TEMPERED, Assessed
from uncertainty_study.overconfidence import calibration_rows
from uncertainty_study.triage_simulation import learning_curve, simulation_rows
from uncertainty_study.usefulness import usefulness_rows

# The claim, and what it has to be better than.
CLAIMS = {
    "pluralistic": (BASE, "mixture", TEMPERATURE, f"pluralistic{RANDOM}"),
    f"pluralistic{TEMPERED}": (
        TEMPERATURE,
        f"mixture{TEMPERED}",
        f"pluralistic{RANDOM}{TEMPERED}",
    ),
    **{name: (BASE,) for name in OPERATORS if name != "pluralistic"},
}
TRIAGE = "triage"
_N_BATCHES, _N_RANDOM_ORDERS = 5, 4

Loss = Literal["error", "total variation"]
Columns = Mapping[str, Float[np.ndarray, " items"]]


@dataclass(frozen=True)
class Asked:
    """What people say about the items of one draw, told apart into a person and the others.

    Attributes:
        rows: Places of the items among the draw's, since a person must have answered them.
        person: What the person says who is asked.
        truth: Mean of what the others say; the person's own answer where nobody else is.
    """

    rows: tuple[int, ...]
    person: tuple[Options, ...]
    truth: tuple[Options, ...]


@dataclass(frozen=True)
class Measured:
    """All rows of a task, and what its pictures show.

    Attributes:
        summary: ``calibration``, ``scores``, ``triage`` and ``learning`` rows.
        answers: Method -> one distribution per item of all draws.
        labels: What most people say, per item.
        scores: Score -> its values per item; among them `TRIAGE`, the need of a person.
        wrong: Whether the base model's answer is wrong, per item.
        unasked: Loss of the model's answer, per item of the simulation.
        asked: Loss of the person's.
        orders: Score -> its values per item of the simulation.
    """

    summary: dict[str, Any]
    answers: dict[str, list[Options]]
    labels: list[int]
    scores: Columns
    wrong: Float[np.ndarray, " items"]
    unasked: Float[np.ndarray, " asked"]
    asked: Float[np.ndarray, " asked"]
    orders: Columns


def measure(
    draws: Sequence[tuple[Fold, Assessed]], people: Task, held_out: str, loss: Loss, seed: int
) -> Measured:
    """Everything about one task.

    Args:
        draws: Folds with their assessed test items.
        people: The task with everybody's gold, also of those who gave no feedback.
        held_out: Who is asked in the simulation; one of each item's perspectives at random if
            empty, or the only one there is.
        loss: What counts in the simulation: whether the most probable answer is what most of the
            others say, or how far the distribution is from theirs.
        seed: Of the bootstrap and of who is asked.
    """
    items = [people.by_id[item.id] for _, assessed in draws for item in assessed.items]
    questions = [question for _, assessed in draws for question in assessed.questions]
    golds = [_mean(item) for item in items]
    labels = [_label(gold, item, people) for gold, item in zip(golds, items, strict=True)]
    methods = draws[0][1].answers
    answers = {
        name: [p for _, assessed in draws for p in assessed.answers[name]] for name in methods
    }
    scores = _with_triage(
        [dict(one.scores) for _, assessed in draws for one in assessed.assessments],
        [len(assessed.items) for _, assessed in draws],
    )
    wrong = 1 - accuracy(answers[BASE], labels)
    divided = {"divided": np.array([entropy(gold) for gold in golds])}
    between = np.array([_between(item) for item in items])
    if between.any() and len({len(item.distributions) for item in items}) > 1:
        divided["groups_differ"] = between
    simulated = [_simulated(assessed, people, held_out, seed) for _, assessed in draws]
    unasked, asked = [], []
    for (_, assessed), simulation in zip(draws, simulated, strict=True):
        model = [assessed.answers[TEMPERATURE][i] for i in simulation.rows]
        unasked.append(_losses(model, simulation.truth, loss))
        asked.append(_losses(simulation.person, simulation.truth, loss))
    starts = np.cumsum([0, *(len(assessed.items) for _, assessed in draws)])
    kept = np.concatenate(
        [
            start + np.array(simulation.rows)
            for start, simulation in zip(starts, simulated, strict=False)
        ]
    ).astype(int)
    orders = {name: values[kept] for name, values in scores.items()}
    before, after = np.concatenate(unasked), np.concatenate(asked)
    summary: dict[str, Any] = {
        "n_items": len(items),
        "n_questions": len(set(questions)),
        "n_options": round(float(np.mean([len(item.options) for item in items])), 2),
        "perspectives": list(draws[0][0].perspectives),
        "n_feedback": len(draws[0][0].feedback),
        "temperature": [round(assessed.temperature, 3) for _, assessed in draws],
        "n_warned": sum(bool(one.warning) for _, assessed in draws for one in assessed.assessments),
        "share_divided": round(float(np.mean(divided["divided"] > 0)), 3),
        "calibration": calibration_rows(answers, labels, questions, CLAIMS, seed),
        "scores": usefulness_rows(scores, wrong > 0, divided, questions, seed),
        "loss": loss,
        "person": held_out
        or ("a perspective at random" if len(people.perspectives) > 1 else "gold"),
        "person_loss": round(float(after.mean()), 4),
        "triage": simulation_rows(orders, before, after, [questions[i] for i in kept], seed),
        "learning": _learning(draws, simulated, scores, loss, seed),
    }
    return Measured(summary, answers, labels, scores, wrong, before, after, orders)


def _with_triage(scores: Sequence[Mapping[str, float]], sizes: Sequence[int]) -> Columns:
    """Columns of every score, and of the need that triage gives; ranks are within a draw."""
    columns = {name: np.array([one[name] for one in scores]) for name in SCORES}
    ends = np.cumsum(sizes)
    parts = [scores[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    ranks = [reason_ranks(part) for part in parts]
    for reason in REASONS:
        columns[reason] = np.concatenate([of_draw[reason] for of_draw in ranks])
    columns[TRIAGE] = np.concatenate([needs(of_draw) for of_draw in ranks])
    return {name: values for name, values in columns.items() if np.isfinite(values).any()}


def _mean(item: Item) -> Options:
    return np.mean(list(item.distributions.values()), axis=0)


def _between(item: Item) -> float:
    """Generalised Jensen-Shannon divergence of the perspectives' answers, nats."""
    answers = list(item.distributions.values())
    return max(0.0, float(entropy(_mean(item)) - np.mean([entropy(p) for p in answers])))


def _label(gold: Options, item: Item, task: Task) -> int:
    if task.positive:
        return label_of(gold.tolist(), item.options.index(task.positive))
    return int(gold.argmax())


def _losses(
    answers: Sequence[Options], truth: Sequence[Options], loss: Loss
) -> Float[np.ndarray, " items"]:
    if loss == "error":
        return 1 - accuracy(answers, [int(p.argmax()) for p in truth])
    return total_variation(answers, truth)


def _simulated(assessed: Assessed, people: Task, held_out: str, seed: int) -> Asked:
    rng = np.random.default_rng(seed)
    rows, person, truth = [], [], []
    for row, item in enumerate(assessed.items):
        golds = people.by_id[item.id].distributions
        if len(people.perspectives) == 1:
            [gold] = golds.values()
            others = [gold]
        else:
            if len(golds) < 2 or (held_out and held_out not in golds):
                continue
            name = held_out or str(rng.choice(sorted(golds)))
            gold = golds[name]
            others = [p for other, p in golds.items() if other != name]
        rows.append(row)
        person.append(np.array(gold))
        truth.append(np.mean(others, axis=0))
    return Asked(tuple(rows), tuple(person), tuple(truth))


def _learning(
    draws: Sequence[tuple[Fold, Assessed]],
    simulated: Sequence[Asked],
    scores: Columns,
    loss: Loss,
    seed: int,
) -> dict[str, Any]:
    """Error after each fifth of the questions, where the readout is fitted anew on each answer.

    What learns is the base model's temperature and position biases; random order is a mean over
    several. The first draw stands for all.
    """
    fold, assessed = draws[0]
    simulation = simulated[0]
    asked = _losses(simulation.person, simulation.truth, loss)
    items = [assessed.items[row] for row in simulation.rows]

    def losses_after(known: Sequence[int]) -> Float[np.ndarray, " items"]:
        answered = [
            Feedback(
                id=f"asked-{i}",
                perspective="asked",
                item=items[i].id,
                prompt=items[i].prompt,
                options=items[i].options,
                distribution=tuple(simulation.person[i]),
            )
            for i in known
        ]
        weights = fit_biases(fold, [*fold.feedback, *answered], POOLED_RIDGE)
        read = [read_biased(fold.cache.text_scores[item.id], weights) for item in items]
        return _losses(read, simulation.truth, loss)

    batch = max(1, len(items) // _N_BATCHES)
    need = scores[TRIAGE][: len(assessed.items)][list(simulation.rows)]
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(items)) for _ in range(_N_RANDOM_ORDERS)]
    random = [learning_curve(order, asked, losses_after, batch) for order in orders]
    first = learning_curve(np.argsort(-need, kind="stable"), asked, losses_after, batch)
    return {
        "batch": batch,
        TRIAGE: [round(float(value), 4) for value in first],
        "random": [round(float(value), 4) for value in np.mean(random, axis=0)],
    }
