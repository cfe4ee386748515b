"""A task: what is asked, what each perspective is known to answer, and how a model is asked it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from saepd.common.errors import InputError
from saepd.common.messages import nearest, shortened
from saepd.feedback.schema import Feedback, Item
from saepd.feedback.splits import question_of
from saepd.models.wording import SURVEY_TEMPLATE, Style, rendered

OPINION_METRICS = ("js_distance", "total_variation", "wasserstein")
LABEL_METRICS = ("accuracy", "macro_f1", "auroc", "nll", "brier", "expected_calibration_error")


@dataclass(frozen=True)
class Wording:
    """How an item is put to a model whose continuation is then scored option by option.

    ``{prompt}`` stands for the item's prompt and ``{perspective}`` for the name of a perspective.

    Attributes:
        plain: Template of a plain text to continue.
        chat: Template of a user's turn.
        persona: Template of a plain text to continue that asks for one perspective's answer.
        names: What a perspective is called in a prompt, where its own name would not read well.

    Raises:
        InputError: a template does not say where the prompt or the perspective goes.
    """

    plain: str
    chat: str
    persona: str
    names: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("plain", "chat", "persona"):
            wanted = ["{prompt}"] + ["{perspective}"] * (name == "persona")
            if missing := [slot for slot in wanted if slot not in getattr(self, name)]:
                raise InputError(f"the wording {name} has no {missing[0]}: put it into the text")

    def text(self, prompt: str, style: Style = "plain") -> str:
        """The text an item's prompt becomes, which names no perspective.

        For the chat style this is the user's turn only: `saepd.models.chat.chat` puts it into
        the model's own template.
        """
        return rendered(self.chat if style == "chat" else self.plain, prompt=prompt)

    def persona_text(self, prompt: str, perspective: str) -> str:
        """The text to continue that asks for the answer of one perspective."""
        name = self.names.get(perspective, perspective)
        return rendered(self.persona, prompt=prompt, perspective=name)


SURVEY_WORDING = Wording(
    plain=SURVEY_TEMPLATE,
    chat="A survey asked: {prompt} What did people answer?",
    persona="A survey of {perspective} asked: {prompt}\nMost of them answered:",
)


@dataclass(frozen=True)
class Task:
    """Questions to evaluate on, with the answers of several perspectives.

    Attributes:
        name: Name of the task, which `load_task` knows it by.
        items: The questions with their gold distributions. Not every perspective has to have
            answered every item. The topic is what the source sorts its questions by.
        wording: The project's own prompt templates.
        metrics: Names of what is reported.
        feedback: Rows that people really wrote, where the source has them; where it has none,
            `draw_feedback` draws answers from the gold distributions.
        positive: For a task with two labels, the option that is the positive class; else empty.
        ordinal: Item id -> indices of those of its options that form a scale, in their natural
            order; options off the scale (as "Don't know") are not among them. Items whose options
            are in no known order are not in it. A distance over the scale (Wasserstein) takes
            these options' shares, scaled to sum to 1; even ones where a method gives them none.
        groups: Item id -> group of items that a split must not take apart, beyond items with the
            same prompt; may be empty.
        population: Perspective -> how many people are of it, in any unit; empty where that is not
            known, and then all count alike.
        left_out: Why something in the source is not in the task -> how many times.

    Raises:
        InputError: there are no items, two share an id, feedback is about another item, or the
            positive class is no option.
    """

    name: str
    items: tuple[Item, ...]
    wording: Wording
    metrics: tuple[str, ...]
    feedback: tuple[Feedback, ...] = ()
    positive: str = ""
    ordinal: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    population: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.items:
            reasons = ", ".join(f"{reason} ({n})" for reason, n in self.left_out.items())
            raise InputError(
                f"the task {self.name} has no usable question: left out were {reasons or 'none'}"
            )
        if len(self.by_id) < len(self.items):
            [(twice, _)] = Counter(item.id for item in self.items).most_common(1)
            raise InputError(
                f"the task {self.name} has two items with the id {shortened(twice)}: "
                "give each its own, and each file once"
            )
        for row in self.feedback:
            if row.item not in self.by_id:
                raise InputError(
                    f"feedback {shortened(row.id)} of the task {self.name} is about the item "
                    f"{shortened(row.item)}, which is not there: add it to the items"
                )
        if self.positive and not all(self.positive in item.options for item in self.items):
            raise InputError(
                f"{shortened(self.positive)} is not an option of every item of {self.name}: "
                "the positive class must be"
            )

    @cached_property
    def by_id(self) -> dict[str, Item]:
        """Item id -> item."""
        return {item.id: item for item in self.items}

    @cached_property
    def question_of(self) -> dict[str, int]:
        """Item id -> number of its whole question: items of one prompt or group share theirs."""
        return question_of(self.items, self.groups)

    @cached_property
    def perspectives(self) -> tuple[str, ...]:
        """Everybody with a gold distribution or feedback: most items first, then by name."""
        answered = {(name, item.id) for item in self.items for name in item.distributions}
        answered |= {(row.perspective, row.item) for row in self.feedback}
        counts = Counter(name for name, _ in answered)
        return tuple(sorted(counts, key=lambda name: (-counts[name], name)))

    def shares(self, perspectives: Sequence[str] | None = None) -> dict[str, float]:
        """What share of the population each perspective is; of some, their shares among these.

        Args:
            perspectives: Names of those that count; all if None.

        Raises:
            InputError: the population is known, but not how many of it are of a perspective.
        """
        names = self.perspectives if perspectives is None else perspectives
        for name in names:
            if self.population and not self.population.get(name, 0) > 0:
                raise InputError(
                    f"the population of the task {self.name} has nobody of perspective "
                    f"{shortened(name)}: say how many there are of each, or of none"
                )
        people = {name: self.population.get(name, 1.0) for name in names}
        return {name: n / sum(people.values()) for name, n in people.items()}

    def check_perspectives(self, perspectives: Iterable[str]) -> None:
        """Refuse perspectives that the task does not have.

        Raises:
            InputError: one that it does not have; the message names the nearest that it has.
        """
        known = set(self.perspectives)
        for name in perspectives:
            if name not in known:
                raise InputError(
                    f"the task {self.name} has no perspective {shortened(name)}: "
                    + nearest(name, self.perspectives)
                )

    def only(self, perspectives: int | Collection[str]) -> Task:
        """The task with some perspectives, and the items that one of them has answered.

        Args:
            perspectives: Names, or how many: those with most items.

        Raises:
            InputError: there is no such perspective, or none is asked for.
        """
        if isinstance(perspectives, int):
            if perspectives < 1:
                raise InputError(f"perspectives is {perspectives}: ask for 1 or more, or names")
            perspectives = self.perspectives[:perspectives]
        if isinstance(perspectives, str) or not perspectives:
            raise InputError(f"perspectives is {shortened(perspectives)}: give a list of names")
        self.check_perspectives(perspectives)
        chosen = set(perspectives)
        feedback = tuple(row for row in self.feedback if row.perspective in chosen)
        asked = {row.item for row in feedback}
        items: list[Item] = []
        for item in self.items:
            golds = {k: v for k, v in item.distributions.items() if k in chosen}
            counts = {k: v for k, v in item.counts.items() if k in chosen}
            if golds or item.id in asked:
                items.append(item.model_copy(update={"distributions": golds, "counts": counts}))
        return replace(self, items=tuple(items), feedback=feedback)
