"""How dictionaries are trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from saepd.common.checks import check_number
from saepd.common.errors import InputError
from saepd.common.tracking import TrackingMode


@dataclass(frozen=True)
class CorpusConfig:
    """How documents become contexts.

    Attributes:
        context_size: The most tokens that a context may have; longer ones are cut off.
        passage_characters: About how many characters of a document make one context.
        chat_share: Share of the passages that are put into the model's chat template.
        questionnaire_share: Share of the passages that are turned into a question with options.
        held_out_share: Share of the documents that are measured on; none of their text is
            trained on.
        seed: Seed of the order of passages and of their formats.
    """

    context_size: int = 256
    passage_characters: int = 850
    chat_share: float = 0.35
    questionnaire_share: float = 0.2
    held_out_share: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("context_size", self.context_size, at_least=2, whole=True)
        check_number("passage_characters", self.passage_characters, at_least=1, whole=True)
        for name in ("chat_share", "questionnaire_share", "held_out_share"):
            check_number(name, getattr(self, name), at_least=0, at_most=1)
        if self.chat_share + self.questionnaire_share > 1:
            raise InputError(
                f"chat_share {self.chat_share} and questionnaire_share {self.questionnaire_share} "
                "are more than 1 together: lower one of them"
            )


@dataclass(frozen=True)
class TrainConfig:
    """How dictionaries are trained.

    The defaults suit the default model on two CPU cores.

    Attributes:
        sites: Hook names of the sites, trained in this order.
        expansion: Number of latents per dimension of the residual stream.
        k: Number of latents that are active at a position.
        tokens: Number of activations that are cached per site.
        training_tokens: Number of activations that are trained on per site; where more than are
            cached, these are passed through several times.
        batch_size: Number of activations in a step of training.
        lr: Learning rate of Adam at its highest.
        warm_up_share: Share of the steps over which the learning rate rises from zero.
        decay_share: Share of the steps, at the end, over which the learning rate falls to zero.
        auxiliary_coefficient: Weight of the loss that revives dead latents.
        dead_window: Steps without firing after which a latent counts as dead in training.
        autocast: Whether a step is computed in bfloat16 with weights in float32 (on), or in float32
            alone (off), which takes about twice as long on a CPU.
        model_dtype: Number format that the model runs in while activations are cached.
        checkpoints: How many times a site's training is saved on the way.
        card_contexts: The most held-out contexts that the card is measured on.
        seed: Seed of the initial weights and of the order of the batches.
        wandb: Record the training in W&B: off, offline or online.
        wandb_project: Name of the W&B project that it is recorded in.
        corpus: How documents become contexts.

    Raises:
        InputError: no site or one twice, a number out of range, or an unknown name.
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
    wandb: TrackingMode = "off"
    wandb_project: str = "saepd-saes"
    corpus: CorpusConfig = field(default_factory=CorpusConfig)

    def __post_init__(self) -> None:
        if not self.sites or len(set(self.sites)) < len(self.sites):
            raise InputError(f"sites is {list(self.sites)}: name at least one site, each once")
        for name in ("expansion", "k", "tokens", "training_tokens", "batch_size"):
            check_number(name, getattr(self, name), at_least=1, whole=True)
        for name in ("dead_window", "card_contexts"):
            check_number(name, getattr(self, name), at_least=1, whole=True)
        check_number("checkpoints", self.checkpoints, at_least=0, whole=True)
        check_number("auxiliary_coefficient", self.auxiliary_coefficient, at_least=0)
        for name in ("warm_up_share", "decay_share"):
            check_number(name, getattr(self, name), at_least=0, at_most=1)
        if self.warm_up_share + self.decay_share > 1:
            raise InputError(
                f"warm_up_share {self.warm_up_share} and decay_share {self.decay_share} are more "
                "than 1 together: lower one of them"
            )
        check_number("lr", self.lr, above=0)
        if self.training_tokens < self.batch_size:
            raise InputError(
                f"training_tokens is {self.training_tokens}: it must fill at least one batch of "
                f"{self.batch_size}"
            )
        for name, known in (
            ("model_dtype", ("float32", "bfloat16", "float16")),
            ("wandb", get_args(TrackingMode)),
        ):
            if getattr(self, name) not in known:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}: use one of {', '.join(known)}"
                )
