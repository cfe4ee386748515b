"""Directions on the tiny models, and the same by hand."""

from contextlib import contextmanager

import pytest
import torch
from tiny import D_MODEL, SITE

from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, EditLatents

SPECS = ("every", "all", "prompt", "generated", "answer", "last(2)", 'after("::")')
PROMPT = "Which is it? Say:: so"
LATENTS, VALUES = torch.tensor([3, 17, 40]), torch.tensor([2.0, -1.5, 3.0])

every_spec = pytest.mark.parametrize("positions", SPECS)


def vector(seed=0, size=3.0):
    return size * torch.randn(D_MODEL, generator=torch.Generator().manual_seed(seed))


def dense(positions="all", hook_name=SITE, seed=0, **settings):
    return Direction("dense", hook_name, AddVector(vector(seed)), positions=positions, **settings)


def sparse(sae, mode="add", values=VALUES, **settings):
    values = None if mode == "ablate" else values
    return Direction("sparse", SITE, EditLatents(sae, LATENTS, values, mode), **settings)


def tokens_of(model, text=PROMPT):
    return torch.tensor([model.tokenizer(text, add_special_tokens=False).input_ids])


@contextmanager
def hooked_by_hand(model, direction, mask):
    """The direction's own vector at the places of a mask, without any of `apply`'s machinery."""
    places = torch.tensor([mask]).unsqueeze(-1).float()
    point = model.hook_dict[direction.hook_name]
    handle = point.register_forward_hook(lambda _m, _a, h: h + places * direction.delta(h))
    yield
    handle.remove()
