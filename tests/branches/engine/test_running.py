import pytest
import torch

from saepd.branches.engine import running


@pytest.mark.parametrize("at_once", [1, 40, 2**19])
def test_the_normaliser_is_the_log_of_the_sum_however_many_run_at_once(monkeypatch, at_once):
    monkeypatch.setattr(running, "_LOGITS_AT_ONCE", at_once)
    logits = 3 * torch.randn(2, 3, 4, 17, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    found = running.normaliser(logits)
    assert found.shape == (2, 3, 4)
    assert torch.allclose(found, logits.exp().sum(-1).log(), atol=1e-5)
    [gradient] = torch.autograd.grad(found.sum(), logits)
    assert torch.allclose(gradient, logits.softmax(-1), atol=1e-6)
