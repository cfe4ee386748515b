"""Questions and dense random directions that tests of uncertainty ask and answer with."""

import torch
from tiny import D_MODEL, SITE

from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.feedback.schema import Item

CLOSED = [
    Item(id="a", prompt="Should buses be free?", options=("Yes", "No", "Not sure")),
    Item(id="b", prompt="Should trams?", options=("Yes", "No", "Not sure")),
    Item(id="c", prompt="When?", options=("Now", "Never")),
]
FREE = Item(id="free", prompt="What is missing?", options=())


def directions(n=2):
    generator = torch.Generator().manual_seed(0)
    return [
        Direction(f"p{i}", SITE, AddVector(torch.randn(D_MODEL, generator=generator)))
        for i in range(n)
    ]
