from dataclasses import replace

import pytest
import torch
from gated import amount_by_hand, gates
from tiny import D_MODEL, SITE

from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.directions.gate import Gate
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


def test_what_has_no_amounts_is_refused(llama):
    vector = AddVector(torch.ones(D_MODEL))
    gated = Direction("d", SITE, vector, gate=Gate(SITE, torch.ones(D_MODEL)))
    # Told by its name, one of two would be lost.
    with pytest.raises(InputError, match="several directions are called 'd'"):
        gate_amounts(llama, ITEMS, [gated, Direction("d", SITE, vector)])
    with pytest.raises(InputError, match="the gate of direction 'd' has width 3"):
        gate_amounts(llama, ITEMS, replace(gated, gate=Gate(SITE, [1.0, 2.0, 3.0])))
    with pytest.raises(InputError, match="at least one prompt"):
        gate_amounts(llama, [], gated)
