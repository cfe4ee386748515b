import numpy as np
import pytest
import torch
from scipy.stats import entropy
from tiny import D_MODEL, SITE

from saepd.branches.neutral import NEUTRAL_PROMPTS, kl_to_base
from saepd.branches.run import branch
from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, EditLatents
from saepd.fit.budget import fit_kl_budget

FINEST = 2 ** (1 / 9)


def dense(seed=0, size=1.0, name="dense", kind=Direction):
    vector = size * torch.randn(D_MODEL, generator=torch.Generator().manual_seed(seed))
    return kind(name, SITE, AddVector(vector), coefficient=17.0)


def kl_of(model, direction, prompts=NEUTRAL_PROMPTS):
    """By scipy, from separate hooked forwards."""
    base, steered = branch(model, prompts, [direction], reference=True).exp().numpy().swapaxes(0, 1)
    return np.mean([entropy(p, q) for p, q in zip(base, steered, strict=True)])


def test_kl_is_scipys():
    logits = 3 * torch.randn(5, 4, 30, generator=torch.Generator().manual_seed(0))
    p = logits.log_softmax(-1)
    expected = [np.mean(entropy(p[:, 0].exp().T, p[:, i].exp().T)) for i in (1, 2, 3)]
    np.testing.assert_allclose(kl_to_base(p), expected, rtol=1e-4)
    # The other way round it is another number.
    assert abs(np.mean(entropy(p[:, 1].exp().T, p[:, 0].exp().T)) - expected[0]) > 0.1
    torch.testing.assert_close(
        kl_to_base(p)[0],
        torch.nn.functional.kl_div(p[:, 1], p[:, 0], log_target=True, reduction="batchmean"),
    )


@pytest.mark.parametrize("budget", [0.001, 0.02, 0.1])
@pytest.mark.parametrize("size", [0.1, 1.0])
def test_the_budget_is_kept_and_used(llama, budget, size):
    direction = dense(size=size)
    (fitted,) = fit_kl_budget(llama, [direction], budget)
    assert kl_of(llama, fitted) <= budget * (1 + 1e-3)
    assert kl_of(llama, direction.scaled(fitted.coefficient * FINEST)) > budget * (1 - 1e-3)
    assert fitted.edit is direction.edit
    assert direction.coefficient == 17.0


def test_every_mode_can_be_fitted(llama, random_sae):
    directions = [
        Direction(mode, SITE, EditLatents(random_sae(), torch.arange(5), [2.0] * 5, mode))
        for mode in ("add", "clamp", "scale")
    ]
    for fitted in fit_kl_budget(llama, directions, 0.05):
        assert kl_of(llama, fitted) <= 0.05 * (1 + 1e-3)
        assert kl_of(llama, fitted.scaled(fitted.coefficient * FINEST)) > 0.05 * (1 - 1e-3)


def test_directions_fitted_together_are_each_fitted_alone(llama):
    directions = [dense(0, 1.0, "a"), dense(1, 9.0, "b"), dense(2, 0.02, "c")]
    together = fit_kl_budget(llama, directions, 0.05)
    assert [d.perspective for d in together] == ["a", "b", "c"]
    for fitted, direction in zip(together, directions, strict=True):
        (alone,) = fit_kl_budget(llama, [direction], 0.05)
        assert fitted.coefficient == pytest.approx(alone.coefficient)
    assert len({round(d.coefficient, 6) for d in together}) == 3


def test_the_budget_is_that_of_the_given_prompts(llama):
    prompts = ["One text", "and another, longer one"]
    (fitted,) = fit_kl_budget(llama, [dense()], 0.05, prompts)
    assert kl_of(llama, fitted, prompts) <= 0.05 * (1 + 1e-3)
    assert kl_of(llama, fitted.scaled(fitted.coefficient * FINEST), prompts) > 0.05 * (1 - 1e-3)
    (other,) = fit_kl_budget(llama, [dense()], 0.05)
    assert other.coefficient != fitted.coefficient


@pytest.mark.parametrize("size", [0.0, 1e-7])
def test_a_direction_that_does_nothing_is_refused_not_blown_up(llama, size):
    with pytest.raises(InputError, match=r"does next to nothing: even a coefficient of 256 stays"):
        fit_kl_budget(llama, [dense(size=size)], 1.0)


class Overflowing(Direction):
    """Beyond a coefficient of two the model's numbers are none, as in half precision."""

    def delta(self, h):
        return super().delta(h) * (1.0 if self.coefficient <= 2 else float("nan"))


def test_what_is_not_a_number_is_not_within_the_budget(llama):
    (fitted,) = fit_kl_budget(llama, [dense(size=1e-4, kind=Overflowing)], 1.0)
    assert fitted.coefficient <= 2


@pytest.mark.parametrize("budget", [0.0, -0.1, float("nan"), "much", None])
def test_a_budget_that_is_none_is_refused(llama, budget):
    with pytest.raises(InputError, match="it must be a finite number above 0"):
        fit_kl_budget(llama, [dense()], budget)


def test_a_budget_that_the_smallest_coefficient_exceeds_is_refused(llama):
    directions = [dense(size=0.1), dense(size=5000.0, name="huge")]
    with pytest.raises(InputError, match=r"'huge': even a coefficient of 0\.015625 exceeds"):
        fit_kl_budget(llama, directions, 0.01)
