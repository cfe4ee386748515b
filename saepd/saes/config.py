"""How dictionaries are trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class CorpusConfig:
    """How documents become contexts.

    Shares are of passages. ``held_out_share`` is of documents: none of a held-out document's text
    is trained on.
    """

    context_size: int = 256
    passage_characters: int = 850
    chat_share: float = 0.35
    questionnaire_share: float = 0.2
    held_out_share: float = 0.02
    seed: int = 0


@dataclass(frozen=True)
class TrainConfig:
    """How dictionaries are trained. The defaults suit the default model on two CPU cores.

    Attributes:
        sites: Hook names, trained in this order.
        expansion: Latents per dimension of the residual stream.
        k: Latents that may be active at a position.
        tokens: Activations to cache per site.
        training_tokens: Activations to train on per site; more than ``tokens`` means epochs.
        batch_size: Activations a step.
        lr: Adam's learning rate at its highest.
        warm_up_share: Share of the steps over which the learning rate rises from zero.
        decay_share: Share of the steps over which it falls to zero at the end.
        auxiliary_coefficient: Weight of the loss that revives dead latents.
        dead_window: Steps without firing after which a latent counts as dead in training.
        autocast: Train in bfloat16 with float32 weights; about twice as fast on a CPU.
        model_dtype: What the model runs in while activations are cached.
        checkpoints: How many times a site's training is saved on the way.
        card_contexts: Held-out contexts the card is measured on, at most.
        seed: Of the initial weights and the order of the batches.
        tracking: Whether, and where to, wandb logs the training.
        wandb_project: The wandb project.
        corpus: How documents become contexts.
    """

    sites: tuple[str, ...] = tuple(f"blocks.{i}.hook_resid_post" for i in (15, 10, 20))
    expansion: int = 8
    k: int = 64
    tokens: int = 3_200_000
    training_tokens: int = 9_600_000
    batch_size: int = 512
    lr: float = 7e-4
    warm_up_share: float = 0.02
    decay_share: float = 0.3
    auxiliary_coefficient: float = 1.0
    dead_window: int = 500
    autocast: bool = True
    model_dtype: str = "bfloat16"
    checkpoints: int = 20
    card_contexts: int = 96
    seed: int = 0
    tracking: Literal["off", "offline", "online"] = "off"
    wandb_project: str = "saepd-saes"
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
