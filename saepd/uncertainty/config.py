"""How uncertainty is measured."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from saepd.common.errors import InputError
from saepd.models.wording import ReadoutConfig


@dataclass(frozen=True)
class EpistemicConfig:
    """How free-text answers are sampled and matched; the defaults are the paper's (section 6).

    Attributes:
        n_samples: Answers sampled to the plain prompt, the paper's k.
        temperature: Of that sampling.
        similarity: Two answers are the same if their token F1 is at least this, the paper's tau.
        gamma1: Added to the joint probability in the estimate, 0 or more.
        gamma2: Added to the product of the marginals, 0 or more. The paper's algorithm names 1 / k
            as typical of both, for the mass of answers that were never sampled; its experiments
            set both to 0.

    Raises:
        InputError: a number is out of range.
    """

    n_samples: int = 10
    temperature: float = 0.9
    similarity: float = 0.25
    gamma1: float = 0.0
    gamma2: float = 0.0

    def __post_init__(self) -> None:
        if self.n_samples < 2:
            raise InputError(f"n_samples is {self.n_samples}: it must be at least 2")
        if not self.temperature > 0:
            raise InputError(f"the temperature is {self.temperature}: it must be positive")
        if not 0 < self.similarity <= 1:
            raise InputError(f"the similarity is {self.similarity}: it must be in (0, 1]")
        if not (0 <= self.gamma1 < np.inf and 0 <= self.gamma2 < np.inf):
            raise InputError(
                f"gamma1 is {self.gamma1} and gamma2 {self.gamma2}: both must be finite and not "
                "negative"
            )


@dataclass(frozen=True)
class AssessmentConfig:
    """How items are assessed.

    Attributes:
        readout: How options are read, and free text is asked for.
        kl_budget: Nats on neutral prompts; how strongly a direction may sway answers. 0 keeps each
            direction's own coefficient as its budget.
        epistemic: How free text is sampled and clustered.
        max_new_tokens: Of each sampled text, which also ends with its line.
        seed: Of the sampling.
    """

    readout: ReadoutConfig = field(default_factory=ReadoutConfig)
    kl_budget: float = 0.1
    epistemic: EpistemicConfig = field(default_factory=EpistemicConfig)
    max_new_tokens: int = 24
    seed: int = 0
