"""What one process holds while it runs points: a model, its SAE, and the prefix captured last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from saepd.branches.captured import CapturedPrompts, capture_prompts
from saepd.branches.neutral import NEUTRAL_PROMPTS
from saepd.directions.direction import Direction
from saepd.feedback.schema import Item
from saepd.models.choice import ModelConfig
from saepd.models.identity import settings_fingerprint, weights_fingerprint
from saepd.models.load import load_model
from saepd.saes.load import load_sae, sae_fingerprint, sae_settings, written_site

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True)
class LoadedModel:
    """A model and an SAE that fits it, with what names both by content."""

    model: TransformerBridge
    sae: SAE[Any]
    model_fingerprint: str
    model_settings: str
    sae_fingerprint: str
    hook_name: str


@dataclass(frozen=True)
class PointPrefix:
    """A point's questions and the neutral prompts, run as far as no direction changes them."""

    questions: CapturedPrompts
    neutral: CapturedPrompts
    n_forwards: int


class Bench:
    """Loads what points need, and keeps it while the next ones need the same."""

    def __init__(self) -> None:
        self._config: ModelConfig | None = None
        self._loaded: LoadedModel | None = None
        self._prefix: tuple[str, PointPrefix] | None = None

    def load(self, config: ModelConfig) -> LoadedModel:
        """The model and SAE of a point; the model is not loaded again for another SAE.

        Raises:
            InputError: whatever `load_model` and `load_sae` refuse.
        """
        if self._loaded is not None and self._config == config:
            return self._loaded
        if self._loaded is not None and _only_model(self._config) == _only_model(config):
            model, fingerprint = self._loaded.model, self._loaded.model_fingerprint
            settings = self._loaded.model_settings
        else:
            # The old ones go first: both may not fit.
            self._loaded = self._prefix = None
            model = load_model(config.model, **config.model_settings())
            fingerprint, settings = weights_fingerprint(model), settings_fingerprint(model)
        sae = load_sae(config.sae_source, config.sae_id, model=model, any_model=config.any_model)
        self._config = config
        of_sae = f"{sae_fingerprint(sae)} {sae_settings(sae)}"
        self._loaded = LoadedModel(model, sae, fingerprint, settings, of_sae, written_site(sae))
        return self._loaded

    def prefix(
        self,
        key: str,
        loaded: LoadedModel,
        items: Sequence[Item],
        prompts: Sequence[str],
        positions: str,
    ) -> tuple[PointPrefix, bool]:
        """The captured questions, and whether they were captured before."""
        if self._prefix is not None and self._prefix[0] == key:
            return self._prefix[1], True
        self._prefix = None
        options = [item.options for item in items]
        with counting_forwards(loaded.model) as calls:
            questions = capture_prompts(
                loaded.model, prompts, loaded.hook_name, positions=positions, continuations=options
            )
            neutral = capture_prompts(
                loaded.model, NEUTRAL_PROMPTS, loaded.hook_name, positions=_within_any(positions)
            )
        prefix = PointPrefix(questions, neutral, len(calls))
        self._prefix = key, prefix
        return prefix, False


def for_neutral(directions: Sequence[Direction]) -> list[Direction]:
    """The directions as they can run on neutral prompts, which hold no marker of a template."""
    return [replace(d, positions=_within_any(d.positions)) for d in directions]


@contextmanager
def counting_forwards(model: TransformerBridge) -> Iterator[list[None]]:
    """A list that grows by one with every call of the model."""
    calls: list[None] = []
    handle = model.original_model.register_forward_pre_hook(lambda *_: calls.append(None))
    try:
        yield calls
    finally:
        handle.remove()


def _within_any(positions: str) -> str:
    return "answer" if positions.startswith("after") else positions


def _only_model(config: ModelConfig | None) -> tuple[str | None, dict[str, Any]] | None:
    """The settings without those of the SAE."""
    return config and (config.model, config.model_settings())
