"""Directions at work: hooks that steer everything a model does until they are taken off again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from saepd.common.errors import InputError
from saepd.directions.pass_watcher import PassWatcher
from saepd.directions.sites import activation_read, check_site, check_there, hook_point
from saepd.models.identity import check_model, same_model
from saepd.models.in_use import steering

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from saepd.directions.direction import Direction


def check_fits(model: TransformerBridge, directions: Sequence[Direction]) -> None:
    """Refuse directions that were made for another model.

    Raises:
        InputError: a site the model does not have, another width, or another model's name.
    """
    check_model(model)
    width = int(model.cfg.d_model)
    for direction in (part for one in directions for part in one.parts):
        where = f"direction {direction.perspective!r}"
        check_site(model, direction.hook_name, where)
        its_width = direction.edit.width
        if its_width != width:
            raise InputError(
                f"{where} has width {its_width}, but the model's residual has {width}: load the "
                "model that it was made for"
            )
        check_there(model, direction.reads, where)
        if direction.gate is not None:
            check_there(model, direction.gate.hook_name, f"the gate of {where}")
            if direction.gate.width != width:
                raise InputError(
                    f"the gate of {where} has width {direction.gate.width}, but the model's "
                    f"residual has {width}: load the model that it was made for"
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
                # From some block on, some models run only the last columns: nothing reads others.
                n = h.shape[1]
                return h + sum(
                    d.delta(activation_read(d.reads, d.hook_name, h, held))[:, -n:]
                    * _share(watcher, d)[:, -n:].unsqueeze(-1).to(h)
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
