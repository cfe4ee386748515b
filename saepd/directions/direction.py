"""Directions: one perspective's edit of a site or several, as data that can be saved and applied.

A direction knows what it does (its edit), where (site, positions) and how much (coefficient).
``with direction.apply(model):`` makes it act on everything the bridge does; `saepd.branches.run`
runs many at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isfinite
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from saepd.common.errors import InputError
from saepd.common.frames import as_frame
from saepd.common.html import card, facts, note, table
from saepd.directions.edits import AddVector, Edit, EditLatents
from saepd.directions.fitted_readout import FittedReadout
from saepd.directions.gate import Gate
from saepd.directions.modes import DEFAULT_POSITIONS
from saepd.directions.pass_watcher import PassWatcher
from saepd.directions.sites import (
    activation_read,
    check_site,
    check_there,
    hook_point,
    same_site,
)
from saepd.feedback.fields import perspective_name
from saepd.models.identity import same_model
from saepd.models.in_use import steering
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
            not finite, an SAE of another site, a readout that is none, a gate that is none or reads
            a block behind one of the sites, or further sites that are none.
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
            told = {
                "perspective": part.perspective,
                "hook_name": part.hook_name,
                "positions": part.positions,
                "coefficient": part.coefficient,
            }
            latents = part._latents() or [(None, None)]
            rows += [{**told, "latent": i, "value": value} for i, value in latents]
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
        return _sum(self, other)

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


def _sum(one: Direction, other: Direction) -> Direction:
    """The direction that does what both do, with what their lineages have in common.

    Vectors that are added at the same places are added up; whatever else they do, it does side by
    side. A readout was fitted for one direction's branch, so the sum keeps it only where both have
    the same.
    """
    both = f"directions {one.perspective!r} and {other.perspective!r}"
    if one.gate is not other.gate:
        raise InputError(
            f"{both} have no sum, since a gate decides how much of one is written: give them as "
            "one branch, [d1, d2]"
        )
    if one.edit.width != other.edit.width or _is_elsewhere(one.lineage, other.lineage):
        raise InputError(f"{both} are for different models, so they have no sum")
    name = f"{one.perspective} + {other.perspective}"
    if same_places(one, other):
        pairs = zip(one.parts, other.parts, strict=True)
        parts = [part for pair in pairs for part in _added_up(*pair)]
    else:
        parts = [*one.parts, *other.parts]
    # Coefficients of further sites are shares of the first's, which so must not be zero.
    parts.sort(key=lambda part: part.coefficient == 0)
    first, *further = [replace(part, perspective=name, gate=None) for part in parts]
    shares = [part.scaled(part.coefficient / (first.coefficient or 1.0)) for part in further]
    lineage = {k: v for k, v in one.lineage.items() if other.lineage.get(k) == v}
    readout = one.readout if one.readout == other.readout else None
    return replace(first, lineage=lineage, readout=readout, gate=one.gate, also=tuple(shares))


def _added_up(one: Direction, other: Direction) -> list[Direction]:
    """Two edits of one place as one, where neither depends on the text."""
    if one.constant is None or other.constant is None:
        return [one, other]
    summed = AddVector(one.constant + other.constant.to(one.constant))
    return [replace(one, edit=summed, coefficient=1.0)]


def same_places(one: Direction, other: Direction) -> bool:
    """Whether two directions write at the same positions of the same sites, in the same order."""
    return len(one.parts) == len(other.parts) and all(
        same_site(mine.hook_name, yours.hook_name) and mine.positions == yours.positions
        for mine, yours in zip(one.parts, other.parts, strict=True)
    )


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


def _is_elsewhere(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two lineages name different models."""
    return any(
        name in one and name in other and one[name] != other[name]
        for name in ("model", "model_fingerprint")
    )


def check_fits(model: TransformerBridge, directions: Sequence[Direction]) -> None:
    """Refuse directions that were made for another model.

    Raises:
        InputError: a site the model does not have, another width, or another model's name.
    """
    width = int(model.cfg.d_model)
    for direction in (part for one in directions for part in one.parts):
        where = f"direction {direction.perspective!r}"
        check_site(model, direction.hook_name, where)
        own = direction.edit.width
        if own != width:
            raise InputError(f"{where} has width {own}, but the model's residual has {width}")
        check_there(model, direction.reads, where)
        if direction.gate is not None:
            check_there(model, direction.gate.hook_name, f"the gate of {where}")
            if direction.gate.width != width:
                raise InputError(
                    f"the gate of {where} has width {direction.gate.width}, but the model's "
                    f"residual has {width}"
                )
        made_for = direction.lineage.get("model")
        if (
            made_for is not None
            and made_for != model.cfg.model_name
            and not same_model(model, made_for, direction.lineage.get("model_fingerprint"))
        ):
            raise InputError(
                f"{where} was made for {made_for!r}, not for {model.cfg.model_name!r}: "
                "load that model, or fit new directions"
            )


def _share(watcher: PassWatcher, direction: Direction) -> Float[Tensor, "batch seq"]:
    """How much of a direction each position of the current pass gets."""
    mask = watcher.mask(direction.positions)
    if direction.gate is None:
        return mask
    return mask * watcher.amounts(direction.gate).unsqueeze(-1)


@contextmanager
def apply_all(
    model: TransformerBridge, directions: Sequence[Direction]
) -> Iterator[TransformerBridge]:
    """Let several directions act together; each sees the site as it was before any of them.

    Afterwards, also after an exception, the model is as it was: every hook is removed by its
    handle, and hooks of the user's own stay.

    Raises:
        InputError: a direction that does not fit, or a model that another thread is steering.
    """
    check_fits(model, directions)
    watcher = PassWatcher(model, [d.gate for d in directions if d.gate is not None])
    parts = [part for direction in directions for part in direction.parts]
    with ExitStack() as stack:
        stack.enter_context(steering(model))
        stack.enter_context(watcher.watching())
        points = [hook_point(model, d.hook_name) for d in parts]
        held: dict[str, torch.Tensor] = {}
        # By hook point, because one may have several names.
        for point in dict.fromkeys(points):
            here = [d for d, its in zip(parts, points, strict=True) if its is point]

            def edit(
                _module: object, _args: object, h: torch.Tensor, here: list[Direction] = here
            ) -> torch.Tensor:
                if watcher.is_off:
                    return h
                return h + sum(
                    d.delta(activation_read(d.reads, d.hook_name, h, held))
                    * _share(watcher, d).unsqueeze(-1).to(h)
                    for d in here
                )

            stack.callback(point.register_forward_hook(edit).remove)
            stack.enter_context(watcher.checking(point, here[0].hook_name))
        for name in {d.reads for d in parts if d.reads != d.hook_name}:

            def hold(_module: object, _args: object, h: torch.Tensor, name: str = name) -> None:
                if not watcher.is_off:
                    held[name] = h

            stack.callback(hook_point(model, name).register_forward_hook(hold).remove)
        yield model
