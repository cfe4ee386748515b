"""Where a direction may act: the sites of a model's blocks, and which names mean the same one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from operator import attrgetter
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from saepd.common.errors import InputError
from saepd.models.identity import check_model
from saepd.models.sites import residual_sites
from saepd.saes.abilities import WRITABLE_SITE, why_not_written

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint
    from transformer_lens.model_bridge import TransformerBridge


_IN_BLOCK = re.compile(r"blocks\.(0|[1-9][0-9]*)\..+")
_STREAM = re.compile(r"blocks\.(\d+)\.hook_(resid_pre|in|resid_post|out)")


def same_site(one: str, other: str) -> bool:
    """Whether two hook names mean one site: what a block puts out is what the next is given."""
    return _in_stream(one) == _in_stream(other)


def block_output(hook_name: str) -> int | None:
    """The block whose output a site is, from 0; -1 for the first block's input, None for others.

    A block's input is the output of the block before it.
    """
    match = _STREAM.fullmatch(hook_name)
    if match is None:
        return None
    return int(match[1]) - (match[2] in ("resid_pre", "in"))


def _in_stream(hook_name: str) -> str:
    block = block_output(hook_name)
    return hook_name if block is None else f"residual stream after block {block}"


def hook_point(model: TransformerBridge, hook_name: str) -> HookPoint:
    """The hook point at a site of a block; the whole ``hook_dict`` takes milliseconds to make."""
    _, block, name = hook_name.split(".", 2)
    return attrgetter(name)(model.blocks[int(block)])


def check_blocks(model: TransformerBridge) -> None:
    """Refuse models whose layers are not one stack of blocks.

    Raises:
        InputError: the bridge knows no such stack in this model.
    """
    check_model(model)
    try:
        len(model.blocks)
    except AttributeError as error:
        raise InputError(
            f"{model.cfg.model_name} has no single stack of blocks that could be steered: use "
            "another architecture"
        ) from error


def check_site(model: TransformerBridge, hook_name: str, where: str = "these prompts") -> None:
    """Refuse sites that the model does not have, or where an edit would be lost.

    Raises:
        InputError: which site, and which there are; or a model without a stack of blocks.
    """
    check_blocks(model)
    is_elsewhere = isinstance(hook_name, str) and not WRITABLE_SITE.fullmatch(hook_name)
    if is_elsewhere and hook_name in model.hook_dict:
        raise InputError(
            f"{where}: edits are not made at {hook_name!r}: {why_not_written(hook_name)}"
        )
    check_there(model, hook_name, where)


def check_there(model: TransformerBridge, hook_name: str, where: str) -> None:
    """Refuse sites that no block of the model has, to read or to write.

    Raises:
        InputError: which site, and which there are.
    """
    from transformer_lens.hook_points import HookPoint

    there = False
    # Python would take a block of -1, and names that no other part knows.
    if isinstance(hook_name, str) and _IN_BLOCK.fullmatch(hook_name):
        with suppress(AttributeError, IndexError):
            there = isinstance(hook_point(model, hook_name), HookPoint)
    if not there:
        raise InputError(f"{where}: this model has no site {hook_name!r}: {residual_sites(model)}")


def activation_read(
    reads: str, hook_name: str, h: Float[Tensor, ...], held: Mapping[str, Float[Tensor, ...]]
) -> Float[Tensor, ...]:
    """The activation that an edit reads.

    Args:
        reads: The site that it reads.
        hook_name: The site that it edits.
        h: What passes the site that it edits.
        held: What has passed other sites in the same run.

    Raises:
        InputError: the model has not come by the site that is read.
    """
    if reads == hook_name:
        return h
    if reads not in held:
        raise InputError(
            f"nothing passes {reads} before {hook_name}, so an edit there has nothing to read: use "
            "an SAE of another site"
        )
    return held[reads]
