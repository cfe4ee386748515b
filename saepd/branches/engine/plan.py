"""Sort the branches of a run out by site, and refuse at the door what cannot be run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from jaxtyping import Float
from torch import Tensor

from saepd.common.errors import InputError
from saepd.common.messages import shortened
from saepd.directions.accepting import as_branches
from saepd.directions.applying import check_fits
from saepd.directions.direction import Direction
from saepd.directions.gate import Gate
from saepd.directions.sites import check_blocks, hook_point
from saepd.models.identity import check_model
from saepd.models.in_use import using
from saepd.models.tokens import check_embedded, check_lengths, continuation_ids, prompt_ids

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint
    from transformer_lens.model_bridge import TransformerBridge

Branch = Direction | Sequence[Direction]


class PositionedEdit(Protocol):
    """What changes an activation at some positions: a direction, or a probe of its effect."""

    @property
    def perspective(self) -> str:
        """Whose it is."""
        ...

    @property
    def hook_name(self) -> str:
        """The site."""
        ...

    @property
    def block(self) -> int:
        """Index of the block whose site this is."""
        ...

    @property
    def positions(self) -> str:
        """See `saepd.models.positions`."""
        ...

    @property
    def gate(self) -> Gate | None:
        """What says how much of it each item gets; None where each gets all of it."""
        ...

    @property
    def reads(self) -> str:
        """The site whose activation `delta` is given."""
        ...

    def delta(
        self, h: Float[Tensor, "batch columns d_read"]
    ) -> Float[Tensor, "batch columns d_model"]:
        """What is added at its site."""
        ...


@dataclass
class Plan:
    """The branches of one model: what is edited at which site, and from where on rows differ.

    Attributes:
        model: The language model.
        branches: Each branch's directions, or probes of them; the base is not among them.
        edits: At each site, the index of every branch (from 1) that edits it, with its direction.
        read_elsewhere: At each site that edits of another one read, its name.
        widened_at: The site whose output splits into branches; None if a block's input does.
        first_wide_block: The first block that runs on all branches.
    """

    model: TransformerBridge
    branches: Sequence[Sequence[PositionedEdit]]
    edits: dict[HookPoint, list[tuple[int, PositionedEdit]]] = field(
        init=False, default_factory=dict
    )
    read_elsewhere: dict[HookPoint, str] = field(init=False, default_factory=dict)
    widened_at: HookPoint | None = field(init=False)
    first_wide_block: int = field(init=False)

    def __post_init__(self) -> None:
        flat = [direction for branch in self.branches for direction in branch]
        # By hook point, because one may have several names.
        for index, branch in enumerate(self.branches, 1):
            for direction in branch:
                point = hook_point(self.model, direction.hook_name)
                self.edits.setdefault(point, []).append((index, direction))
                if direction.reads != direction.hook_name:
                    point = hook_point(self.model, direction.reads)
                    self.read_elsewhere[point] = direction.reads
        # What is read must be each branch's own as well.
        self.first_wide_block, self.widened_at = split_at(
            self.model, [name for edit in flat for name in (edit.hook_name, edit.reads)]
        )

    @property
    def n_branches(self) -> int:
        """K+1: the base and every steered branch."""
        return len(self.branches) + 1

    @property
    def specs(self) -> list[str]:
        """Every position spec in use, once; that of an answer where nothing is steered."""
        used = dict.fromkeys(d.positions for edits in self.edits.values() for _, d in edits)
        return list(used) or ["answer"]

    @property
    def gates(self) -> list[Gate]:
        """Every gate of a direction, once."""
        gates = [d.gate for edits in self.edits.values() for _, d in edits if d.gate is not None]
        return list(dict.fromkeys(gates))


def split_at(model: TransformerBridge, hook_names: Sequence[str]) -> tuple[int, HookPoint | None]:
    """The first block that differs between edits of these sites, and the site just before it.

    Edits of a block's output leave the whole block shared, and the hook point of that output is
    returned; edits inside a block or of its input need the block's input split, and None is.
    """
    blocks = [int(name.split(".")[1]) for name in hook_names]
    lowest = min(blocks, default=len(model.blocks) - 1)
    end = hook_point(model, f"blocks.{lowest}.hook_out")
    points = {hook_point(model, n) for n, b in zip(hook_names, blocks, strict=True) if b == lowest}
    return (lowest + 1, end) if points <= {end} else (lowest, None)


def make_plan(model: TransformerBridge, directions: Sequence[Branch]) -> Plan:
    """Check the branches and sort them out by site; without any, only the base will run.

    Raises:
        InputError: an empty branch, one that does not fit the model, or a model that `apply`
            is steering.
    """
    branches = [
        [part for direction in branch for part in direction.parts]
        for branch in as_branches(directions)
    ]
    check_blocks(model)
    check_fits(model, [part for branch in branches for part in branch])
    with using(model):
        return Plan(model, branches)


def check_prompts(model: TransformerBridge, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of prompts that can be run.

    Raises:
        InputError: no prompts, what is no text, an empty one, or one longer than the model's
            context.
    """
    check_model(model)
    if isinstance(prompts, str) or not isinstance(prompts, Sequence) or not prompts:
        raise InputError("give a list of at least one prompt")
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise InputError(f"{shortened(prompt)} is no prompt: each must be text")
    rows = [prompt_ids(model.tokenizer, prompt) for prompt in prompts]
    check_embedded(model, rows)
    check_lengths(model, rows)
    return rows


def check_continuations(
    model: TransformerBridge,
    prompts: Sequence[str],
    rows: Sequence[list[int]],
    continuations: Sequence[Sequence[str]],
) -> list[list[list[int]]]:
    """Token ids of every continuation of every prompt.

    Raises:
        InputError: a prompt without any, what is no list of texts, an empty one, or one that the
            context has no room for.
    """
    if len(continuations) != len(prompts) or not all(continuations):
        raise InputError("every prompt needs at least one option to score")
    for of_prompt in continuations:
        # A text is a list of its letters, too.
        if isinstance(of_prompt, str) or not all(isinstance(text, str) for text in of_prompt):
            raise InputError(
                f"what may follow a prompt is {shortened(of_prompt)}: give each prompt a list of "
                "texts"
            )
    texts = [
        [continuation_ids(model.tokenizer, prompt, text) for text in of_prompt]
        for prompt, of_prompt in zip(prompts, continuations, strict=True)
    ]
    check_embedded(model, [text for of_prompt in texts for text in of_prompt])
    check_lengths(model, rows, room=[max(map(len, of_prompt)) for of_prompt in texts])
    return texts
