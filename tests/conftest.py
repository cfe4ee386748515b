"""Tiny models, loaded once a session, and dictionaries with random weights to steer them with."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from tiny import D_MODEL, SITE, save_tiny_model

# The same commit always gets the same verdict, however busy the machine is.
settings.register_profile("saepd", deadline=None, derandomize=True)
settings.load_profile("saepd")


@pytest.fixture(autouse=True)
def same_numbers_at_every_run() -> None:
    """Seeds torch, where a test has need of it."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_bridge(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Architecture -> its tiny model, the same object at every call: leave it as you found it."""
    loaded: dict[str, Any] = {}

    def get(architecture: str) -> Any:
        if architecture not in loaded:
            from saepd.models.load import load_model

            folder = tmp_path_factory.mktemp("bridges") / architecture
            model = load_model(save_tiny_model(architecture, folder), device="cpu")
            # At its first pass transformers sets hooks of its own, which tests would count.
            model.original_model(**model.original_model.dummy_inputs)
            loaded[architecture] = model
        return loaded[architecture]

    return get


@pytest.fixture(scope="session")
def llama(tiny_bridge: Callable[[str], Any]) -> Any:
    return tiny_bridge("llama")


@pytest.fixture(scope="session")
def random_sae() -> Callable[..., Any]:
    """Factory of inference SAEs whose every weight is random, decoder norms included."""

    pytest.importorskip("sae_lens", reason="SAELens is not beside this TransformerLens")

    def make(
        architecture: str = "standard",
        *,
        d_in: int = D_MODEL,
        d_sae: int = 48,
        seed: int = 0,
        hook_name: str = SITE,
        **settings: Any,
    ) -> Any:
        import torch
        from sae_lens.registry import get_sae_class
        from sae_lens.saes.sae import SAEMetadata

        sae_class, config_class = get_sae_class(architecture)
        if architecture in ("topk", "abstopk"):
            settings = {"k": 6, **settings}
        metadata = SAEMetadata(model_name="tiny", hook_name=hook_name)
        sae = sae_class(config_class(d_in=d_in, d_sae=d_sae, metadata=metadata, **settings))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in sorted(sae.named_parameters()):
                noise = torch.randn(weight.shape, generator=generator)
                # Thresholds are positive, and small enough that about half of the latents fire.
                weight.copy_(0.3 * noise.abs() if name == "threshold" else 0.3 * noise)
            if architecture == "matching_pursuit":
                # The pursuit converges for unit vectors only.
                sae.W_dec /= sae.W_dec.norm(dim=-1, keepdim=True)
        return sae.eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def hook_count() -> Callable[[Any], int]:
    """How many hooks of any kind a model has on any of its modules."""

    def count(model: Any) -> int:
        modules = list(model.modules()) + list(model.original_model.modules())
        modules += list(model.hook_dict.values())
        unique = {id(module): module for module in modules}.values()
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in unique)

    return count


@pytest.fixture(scope="session")
def mask_by_hand() -> Callable[..., list[bool]]:
    """Positions of unpadded tokens that a spec selects, told apart one by one."""

    def selected(spec: str, tokens: list[int], n_prompt: int, tokenizer: Any) -> list[bool]:
        special = set(tokenizer.all_special_ids)
        plain = [i > 0 and token not in special for i, token in enumerate(tokens)]
        if spec == "every":
            return [True] * len(tokens)
        if spec == "all":
            return plain
        if spec == "prompt":
            return [i < n_prompt and plain[i] for i in range(len(tokens))]
        if spec.startswith("last"):
            n = int(spec[5:-1])
            return [n_prompt - n <= i < n_prompt for i in range(len(tokens))]
        if spec.startswith("after"):
            # One token a byte, so a marker can be searched for among the tokens themselves.
            marker = tokenizer(spec[7:-2], add_special_tokens=False).input_ids
            ends = range(len(marker), n_prompt + 1)
            first = max(i for i in ends if tokens[i - len(marker) : i] == marker)
        else:
            first = {"generated": n_prompt, "answer": n_prompt - 1}[spec]
        return [i >= first for i in range(len(tokens))]

    return selected
