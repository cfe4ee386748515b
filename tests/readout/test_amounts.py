from dataclasses import replace

import pytest
import torch
from gated import amount_by_hand, gates
from tiny import D_MODEL, SITE

from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.feedback.schema import Item
from saepd.models.prompts import item_prompt
from saepd.models.wording import ReadoutConfig
from saepd.readout.amounts import gate_amounts

ITEMS = [Item(id=str(i), prompt="So?" * (i + 1), options=("Yes", "No")) for i in range(3)]


def test_amounts_are_what_each_gate_says_of_each_prompt(llama, random_sae, mask_by_hand):
    vector = AddVector(torch.ones(D_MODEL))
    directions = [
        replace(Direction(name, SITE, vector), gate=gate)
        for name, gate in gates(random_sae).items()
    ]
    plain = Direction("plain", SITE, vector)
    found = gate_amounts(llama, ITEMS, [*directions, plain])
    assert list(found) == [d.perspective for d in [*directions, plain]]
    assert found["plain"] == [1.0, 1.0, 1.0]
    for direction in directions:
        for item, amount in zip(ITEMS, found[direction.perspective], strict=True):
            prompt = item_prompt(llama, item.prompt, item.options, ReadoutConfig())
            expected = amount_by_hand(llama, prompt, direction.gate, mask_by_hand)
            assert amount == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert gate_amounts(llama, ITEMS[0], plain) == {"plain": [1.0]}
