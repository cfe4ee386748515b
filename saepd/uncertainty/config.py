"""How uncertainty is measured."""

from __future__ import annotations

from dataclasses import dataclass, field

from saepd.common.checks import check_number, check_part
from saepd.models.wording import ReadoutConfig


@dataclass(frozen=True)
class EpistemicConfig:
    """How free-text answers are sampled and matched.

    The defaults are those of "To Believe or Not to Believe Your LLM" (Abbasi Yadkori et al., arXiv
    2406.02543), section 6.

    Attributes:
        n_samples: Number of answers sampled to the plain prompt, k in arXiv 2406.02543.
        temperature: Temperature at which free-text answers are sampled.
        similarity: Token F1 from which two free-text answers count as the same, tau in arXiv
            2406.02543.
        gamma1: Number, 0 or more, that is added to the joint probability in the estimate, for the
            mass of answers that were never sampled; arXiv 2406.02543 calls 1 / k typical, and sets
            0 in its experiments.
        gamma2: Number, 0 or more, that is added to the product of the marginals in the estimate,
            for the same reason as gamma1.

    Raises:
        InputError: a number is out of range.
    """

    n_samples: int = 10
    temperature: float = 0.9
    similarity: float = 0.25
    gamma1: float = 0.0
    gamma2: float = 0.0

    def __post_init__(self) -> None:
        check_number("n_samples", self.n_samples, at_least=2, whole=True)
        check_number("the temperature", self.temperature, above=0)
        check_number("the similarity", self.similarity, above=0, at_most=1)
        check_number("gamma1", self.gamma1, at_least=0)
        check_number("gamma2", self.gamma2, at_least=0)


@dataclass(frozen=True)
class AssessmentConfig:
    """How items are assessed.

    Attributes:
        readout: How options are read, and free text is asked for.
        kl_budget: Nats on neutral prompts that limit how strongly a direction may sway answers. 0
            keeps each direction's own coefficient as its budget.
        epistemic: How free text is sampled and clustered.
        max_new_tokens: The most tokens of each sampled text, which also ends with its line.
        seed: Seed of the sampling of texts.

    Raises:
        InputError: a number is out of range.
    """

    readout: ReadoutConfig = field(default_factory=ReadoutConfig)
    kl_budget: float = 0.1
    epistemic: EpistemicConfig = field(default_factory=EpistemicConfig)
    max_new_tokens: int = 24
    seed: int = 0

    def __post_init__(self) -> None:
        check_part("readout", self.readout, ReadoutConfig)
        check_number("the KL budget", self.kl_budget, at_least=0)
        check_part("epistemic", self.epistemic, EpistemicConfig)
        check_number("max_new_tokens", self.max_new_tokens, at_least=1, whole=True)
        check_number("the seed", self.seed, at_least=0, whole=True)
