"""Directions: one perspective's edit of a site or several, as data that can be saved and applied.

A direction knows what it does (its edit), where (site, positions) and how much (coefficient).
``with direction.apply(model):`` makes it act on everything the bridge does; `saepd.branches.run`
runs many at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isfinite
from numbers import Real
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from saepd.common.errors import InputError
from saepd.common.frames import as_frame
from saepd.common.html import card, facts, note, table
from saepd.common.messages import shortened
from saepd.directions.adding import added
from saepd.directions.applying import apply_all
from saepd.directions.edits import AddVector, Edit, EditLatents
from saepd.directions.fitted_readout import FittedReadout
from saepd.directions.gate import Gate
from saepd.directions.modes import DEFAULT_POSITIONS
from saepd.directions.sites import same_site
from saepd.feedback.fields import perspective_name
from saepd.models.position_specs import parse_positions
from saepd.saes.abilities import WRITABLE_SITE
from saepd.saes.load import written_site

if TYPE_CHECKING:
    import pandas as pd
    from transformer_lens.model_bridge import TransformerBridge

# Latents that a notebook shows at once.
_SHOWN = 12


@dataclass(frozen=True, eq=False, repr=False)
class Direction:
    """One perspective's edit at one site, or at several that act together.

    ``2 * direction`` and ``-direction`` change the coefficient; the sum of two directions does what
    both do, at all of their sites.

    Attributes:
        perspective: Name of the perspective, which its branch has too.
        hook_name: Name of the site that is edited, such as ``blocks.15.hook_resid_post``.
        edit: What is done to the activation at the site.
        positions: Where in a text the edit acts: answer, generated, prompt, last(n), after("text"),
            all or every; see `saepd.models.positions`.
        coefficient: Multiplies the whole difference that the edit makes; unit-free.
        lineage: How it came about (model, SAE, feedback hash, settings); JSON values.
        readout: The readout that was fitted together with it, which `saepd.read_options` uses; None
            where there is none, as of directions made by hand.
        gate: What reads an item's prompt and says how much of the difference is made for it, at
            every site; None makes all of it for every item.
        also: What it does at further sites: directions with the same name, whose coefficients are
            multiplied by this one's, and without a readout, a gate or further sites of their own.

    Raises:
        InputError: a name that no perspective may have, unknown positions, a coefficient that is
            not finite, an SAE of another site, a lineage, readout or gate that is none, a gate
            that reads a block behind one of the sites, or further sites that are none.
    """

    perspective: str
    hook_name: str
    edit: Edit
    positions: str = DEFAULT_POSITIONS
    coefficient: float = 1.0
    lineage: dict[str, Any] = field(default_factory=dict)
    readout: FittedReadout | None = None
    gate: Gate | None = None
    also: tuple[Direction, ...] = ()

    def __post_init__(self) -> None:
        where = f"direction {self.perspective!r}"
        for name in ("perspective", "hook_name", "positions"):
            if not isinstance(value := getattr(self, name), str):
                raise InputError(f"{where}: its {name} must be text, not {value!r}")
        try:
            perspective_name(self.perspective)
        except ValueError as error:
            raise InputError(f"{where}: {error}") from error
        parse_positions(self.positions)
        if not _is_finite(self.coefficient):
            raise InputError(f"{where}: the coefficient is {self.coefficient}: it must be finite")
        if not isinstance(self.edit, Edit):
            raise InputError(
                f"{where}: its edit must be AddVector, EditLatents or Reconstruct, "
                f"not {type(self.edit).__name__}"
            )
        if not isinstance(self.readout, FittedReadout | None):
            raise InputError(
                f"{where}: its readout must be a FittedReadout, not {type(self.readout).__name__}"
            )
        if not isinstance(self.gate, Gate | None):
            raise InputError(f"{where}: its gate must be a Gate, not {type(self.gate).__name__}")
        if not isinstance(self.lineage, dict):
            raise InputError(f"{where}: its lineage is {shortened(self.lineage)}: give a dict")
        if not isinstance(self.also, Sequence):
            raise InputError(f"{where}: what it also does must be a list of Directions")
        object.__setattr__(self, "also", tuple(self.also))
        _check_further(where, self.perspective, self.also)
        for name in (self.hook_name, *(part.hook_name for part in self.also)):
            is_site = WRITABLE_SITE.fullmatch(name)
            if self.gate and is_site and self.gate.block > int(name.split(".")[1]):
                raise InputError(
                    f"{where}: its gate reads {self.gate.hook_name}, which is behind its own site "
                    f"{name}: let it read that block or one before it"
                )
        if not isinstance(self.edit, AddVector):
            site = written_site(self.edit.sae)
            if not same_site(site, self.hook_name):
                raise InputError(
                    f"{where}: its SAE was trained at {site}, and cannot edit {self.hook_name}: "
                    f"use the SAE of that site, or edit {site}"
                )

    def __repr__(self) -> str:
        more = "" if self.gate is None else f", gate={self.gate!r}"
        more += "".join(f", also {part.edit!r} at {part.hook_name!r}" for part in self.also)
        more += "" if self.readout is None else ", with its readout"
        return (
            f"Direction({self.perspective!r}, {self.hook_name!r}, {self.edit!r}, "
            f"positions={self.positions!r}, coefficient={self.coefficient:.4g}{more})"
        )

    def frame(self) -> pd.DataFrame:
        """One row for each latent it edits, or a single one for each site, as a pandas frame.

        Raises:
            InputError: pandas is missing.
        """
        rows = []
        for part in self.parts:
            shared = {
                "perspective": part.perspective,
                "hook_name": part.hook_name,
                "positions": part.positions,
                "coefficient": part.coefficient,
            }
            latents = part._latents() or [(None, None)]
            rows += [{**shared, "latent": i, "value": value} for i, value in latents]
        return as_frame(rows)

    def _latents(self) -> list[tuple[int | None, float | None]]:
        """Edited latents and their values, the largest first."""
        if not isinstance(self.edit, EditLatents):
            return []
        ids = self.edit.latents.tolist()
        if self.edit.values is None:
            return [(i, None) for i in ids]
        values = self.edit.values.tolist()
        pairs = sorted(zip(ids, values, strict=True), key=lambda pair: -abs(pair[1]))
        return [*pairs]

    def _repr_html_(self) -> str:
        made_of = ("model", "sae", "n_feedback")
        parts: list[object] = []
        for part in self.parts:
            site = {"site": part.hook_name, "edit": repr(part.edit), "positions": part.positions}
            parts.append(facts({**site, "coefficient": part.coefficient}))
            latents = part._latents()
            if latents:
                parts.append(table(["latent", "value"], latents[:_SHOWN]))
            if len(latents) > _SHOWN:
                parts.append(note(f"and {len(latents) - _SHOWN} more: frame() has all"))
        about = {
            **({} if self.gate is None else {"gate": repr(self.gate)}),
            **({} if self.readout is None else {"readout": "fitted with it"}),
            **{name: self.lineage[name] for name in made_of if name in self.lineage},
        }
        return card(f"direction {self.perspective}", *parts, *([facts(about)] if about else []))

    @cached_property
    def parts(self) -> tuple[Direction, ...]:
        """What it does at each of its sites, as directions of one site; its readout in none."""
        if not self.also and self.readout is None:
            return (self,)
        first = replace(self, also=(), readout=None)
        return (
            first,
            *(
                replace(part, coefficient=self.coefficient * part.coefficient, gate=self.gate)
                for part in self.also
            ),
        )

    @property
    def writes_nothing(self) -> bool:
        """Whether it adds zero at all of its sites, as where feedback supports no direction."""
        constants = [part.constant for part in self.parts]
        return all(constant is not None and not bool(constant.any()) for constant in constants)

    @property
    def block(self) -> int:
        """Index of the block of its first site."""
        return int(self.hook_name.split(".")[1])

    @property
    def reads(self) -> str:
        """The site that `delta` is given: its first, or that of a transcoder's input."""
        return self.edit.reads or self.hook_name

    @cached_property
    def constant(self) -> Float[Tensor, " d_model"] | None:
        """The vector it adds at its first site, or None where that depends on the activation.

        A gate decides how much of it each item gets.
        """
        constant = self.edit.constant
        return None if constant is None else self.coefficient * constant

    def delta(self, h: Float[Tensor, "*batch d_read"]) -> Float[Tensor, "*batch d_model"]:
        """The difference it makes at its first site, at every position of what it reads there.

        A gate decides how much of it each item gets.
        """
        if self.constant is not None:
            return self.constant.to(h).expand_as(h)
        return self.coefficient * self.edit.delta(h)

    def scaled(self, coefficient: float) -> Direction:
        """The same edit, shared and not copied, with another coefficient."""
        return replace(self, coefficient=coefficient)

    def __mul__(self, factor: float) -> Direction:
        if not isinstance(factor, Real):
            return NotImplemented
        return self.scaled(float(factor) * self.coefficient)

    __rmul__ = __mul__

    def __neg__(self) -> Direction:
        return self.scaled(-self.coefficient)

    def __add__(self, other: Direction) -> Direction:
        if not isinstance(other, Direction):
            return NotImplemented
        return added(self, other)

    def __sub__(self, other: Direction) -> Direction:
        return self + -other

    @contextmanager
    def apply(self, model: TransformerBridge) -> Iterator[TransformerBridge]:
        """Steer everything the bridge does inside the block, generation included.

        Raises:
            InputError: the direction does not fit the model.
        """
        with apply_all(model, [self]) as steered:
            yield steered


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)
    except OverflowError:
        # A whole number beyond what a float holds.
        return False


def _check_further(where: str, perspective: str, also: Sequence[Direction]) -> None:
    """Refuse what is no plain direction of the same perspective at another site."""
    for part in also:
        if not isinstance(part, Direction):
            raise InputError(f"{where}: what it also does must be a Direction at another site")
        if part.perspective != perspective:
            raise InputError(
                f"{where}: what it also does is called {part.perspective!r}: give it the same name"
            )
        if part.also or part.gate is not None or part.readout is not None:
            raise InputError(
                f"{where}: what it also does has a gate, a readout or further sites of its own: "
                "these belong to the whole direction"
            )
