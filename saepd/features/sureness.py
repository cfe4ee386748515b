"""How sure it is which sign each latent's effect has, and what shuffled perspectives would give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import norm, t

from saepd.features.config import FeatureConfig
from saepd.features.encode import Pairs
from saepd.features.false_signs import Shrunk, shrink
from saepd.features.select import candidates

# A latent counts as sure below this false-sign rate.
SURE = 0.05
N_SHUFFLES = 20
# Share of the effects that are taken to be none, or nearly.
_MOST = 0.9
# Beyond this, tails are zero.
_SMALLEST_LOG = -700.0


@dataclass(frozen=True)
class Sureness:
    """How sure the signs of one perspective's effects are.

    Attributes:
        perspective: Name of the perspective.
        false_sign_rate: Chance, for every latent of the SAE, that its effect has the other sign;
            NaN for those that were screened out.
        share_of_none: Share of the candidates that have no effect.
        n_sure: Candidates whose false-sign rate is below .05.
        n_by_chance: How many are, mean over 20 shuffles of the perspectives.
        shuffles_with_any: In how many of the 20 shuffles any is.
    """

    perspective: str
    false_sign_rate: Float[np.ndarray, " d_sae"]
    share_of_none: float
    n_sure: int
    n_by_chance: float
    shuffles_with_any: int


def surenesses(pairs: Pairs, config: FeatureConfig) -> list[Sureness]:
    """How sure the sign of every latent's effect is, for each perspective.

    Effects are differences of means over Welch's standard errors, made normal by way of their t
    distribution, and shrunk by what all candidates together say: see `false_signs`. Over their
    errors, effects have no unit, which differs from latent to latent (Stephens 2017, section 3.2,
    with alpha 1). Latents go together, so that by chance all effects of a draw may be larger than
    their errors say: the errors are widened by how far the 90% of the effects that are nearest to
    zero spread, where that is further than normal ones do (an empirical null; Efron 2004), but not
    by more than the furthest that they spread in 20 shuffles of the perspectives: what goes beyond
    is no chance. What other shuffles give is beside it. Against ``options`` and ``anchor``, where
    pairs are compared with themselves, the signs of whole rows are shuffled.

    Args:
        pairs: The encoded feedback.
        config: How latents are screened, and what is compared.
    """
    ids = candidates(pairs, config).numpy()
    latents = pairs.latents[:, ids].double().numpy()
    shuffled = _Shuffled(latents, config)
    sureness = []
    for perspective in pairs.perspectives:
        is_own = np.zeros(len(latents), dtype=bool)
        is_own[pairs.of(perspective).numpy()] = True
        widest, n_sure = shuffled.of(int(is_own.sum()))
        shrunk = _shrunk(_standardised(latents, is_own, config.contrast == "others"), widest)
        rates = np.full(pairs.latents.shape[1], np.nan)
        rates[ids] = shrunk.false_sign_rate
        sureness.append(
            Sureness(
                perspective=perspective,
                false_sign_rate=rates,
                share_of_none=shrunk.share_of_none,
                n_sure=int((shrunk.false_sign_rate < SURE).sum()),
                n_by_chance=float(np.mean(n_sure)),
                shuffles_with_any=int(np.count_nonzero(n_sure)),
            )
        )
    return sureness


class _Shuffled:
    """What shuffles of the perspectives give; it depends on how many rows one has."""

    def __init__(self, latents: Float[np.ndarray, "rows k"], config: FeatureConfig) -> None:
        self._latents, self._against_others = latents, config.contrast == "others"
        self._seed = config.bootstrap_seed
        self._known: dict[int, tuple[float, list[int]]] = {}

    def of(self, n_own: int) -> tuple[float, list[int]]:
        """How far effects spread at most, and how many latents are sure in each shuffle."""
        if n_own not in self._known:
            draws = [self._draw(n_own, i) for i in range(2 * N_SHUFFLES)]
            widest = max(map(_spread, draws[:N_SHUFFLES]))
            # Counted in others than those that this was taken from.
            rates = [_shrunk(effects, widest).false_sign_rate for effects in draws[N_SHUFFLES:]]
            self._known[n_own] = widest, [int((of_draw < SURE).sum()) for of_draw in rates]
        return self._known[n_own]

    def _draw(self, n_own: int, index: int) -> Float[np.ndarray, " k"]:
        rng = np.random.default_rng([self._seed, n_own, index])
        n_rows = len(self._latents)
        is_own = np.zeros(n_rows, dtype=bool)
        is_own[rng.permutation(n_rows)[:n_own]] = True
        if self._against_others:
            return _standardised(self._latents, is_own, True)
        signs = rng.choice([-1.0, 1.0], n_rows)
        return _standardised(signs[:, None] * self._latents, is_own, False)


def _spread(effects: Float[np.ndarray, " k"]) -> float:
    """How far most effects spread, in units of how far normal ones do; 1 at least."""
    normal = float(norm.ppf((1 + _MOST) / 2))
    return max(1.0, float(np.quantile(np.abs(effects), _MOST)) / normal)


def _shrunk(effects: Float[np.ndarray, " k"], widest: float) -> Shrunk:
    return shrink(effects, np.full(len(effects), min(_spread(effects), widest)))


def _standardised(
    latents: Float[np.ndarray, "rows k"], is_own: Bool[np.ndarray, " rows"], against_others: bool
) -> Float[np.ndarray, " k"]:
    """Mean differences over their errors, as normal as if they were as likely as their t is."""
    means, n_own = latents[is_own].mean(0), int(is_own.sum())
    squared = latents[is_own].var(0, ddof=1) / n_own
    freedom = np.full(len(means), n_own - 1.0)
    if against_others:
        rest = latents[~is_own]
        means = means - rest.mean(0)
        other = rest.var(0, ddof=1) / len(rest)
        # Welch and Satterthwaite; one degree where nothing varies.
        parts = squared**2 / (n_own - 1) + other**2 / (len(rest) - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            freedom = np.where(parts > 0, (squared + other) ** 2 / parts, 1.0)
        squared = squared + other
    errors = np.sqrt(squared)
    varies = errors > 0
    # Where nothing varies, what varies least stands in.
    errors = np.where(varies, errors, errors[varies].min() if varies.any() else 1.0)
    ratio = np.abs(means) / errors
    # The logarithm of a tail holds where the tail itself is zero.
    z = -norm.ppf(np.exp(np.maximum(t.logsf(ratio, freedom), _SMALLEST_LOG)))
    return np.sign(means) * np.maximum(z, 0.0)
