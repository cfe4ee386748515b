"""Questions and dense random directions that tests of uncertainty ask and answer with."""

from dataclasses import replace

import torch
from tiny import D_MODEL, SITE

from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.directions.fitted_readout import FittedReadout
from saepd.feedback.schema import Item
from saepd.models.wording import ReadoutConfig

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


def with_readouts(edits, config=None):
    """The directions with readouts that agree about the base, and differ otherwise."""
    base = [0.4, 0.3, -0.2, 0.1]
    return [
        replace(
            edit,
            readout=FittedReadout(
                config or ReadoutConfig(), base, [0.5 + 0.2 * i, -0.6 + i, 0.5 * i, 0.2]
            ),
        )
        for i, edit in enumerate(edits)
    ]
