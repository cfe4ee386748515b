"""Which passages show a latent: its strongest, one of each decile, and its weakest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

N_TOP = 6
DECILES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
N_CONTEXTS = N_TOP + len(DECILES) + 1
# Tokens that are shown before the one at which the latent fires, it included, and behind it.
BEFORE, BEHIND = 16, 8
WIDTH = BEFORE + BEHIND
NONE = -1


def choose_contexts(
    positions: Int[np.ndarray, " firings"],
    values: Float[np.ndarray, " firings"],
    starts: Int[np.ndarray, " passages_and_one"],
) -> Int[np.ndarray, " contexts"]:
    """Tokens at which a latent's contexts are centred, no two in the same passage.

    Args:
        positions: Where the latent fires, in order.
        values: Its activations there.
        starts: Where each passage begins.

    Returns:
        First the peaks of the passages in which it is strongest, then a firing next to each decile
        of its activations, then its weakest; -1 where there are no more passages.
    """
    chosen = np.full(N_CONTEXTS, NONE, dtype=np.int64)
    if len(positions) == 0:
        return chosen
    passage = np.searchsorted(starts, positions, side="right") - 1
    first = np.flatnonzero(np.diff(passage, prepend=-1))
    peaks = np.maximum.reduceat(values, first)
    order = np.argsort(-peaks, kind="stable")[:N_TOP]
    used: set[int] = set()
    for i, index in enumerate(order):
        end = first[index + 1] if index + 1 < len(first) else len(values)
        at = first[index] + int(np.argmax(values[first[index] : end]))
        chosen[i] = positions[at]
        used.add(int(passage[at]))
    by_value = np.argsort(values, kind="stable")
    for i, decile in enumerate((*DECILES, 0.0)):
        near = int(decile * (len(values) - 1))
        at = _nearest_unused(by_value, near, passage, used)
        if at is None:
            break
        chosen[N_TOP + i] = positions[at]
        used.add(int(passage[at]))
    return chosen


def _nearest_unused(
    by_value: Int[np.ndarray, " firings"],
    near: int,
    passage: Int[np.ndarray, " firings"],
    used: set[int],
) -> int | None:
    """The firing whose rank is nearest to one, of a passage that is not used yet."""
    for distance in range(len(by_value)):
        for rank in {near - distance, near + distance}:
            if 0 <= rank < len(by_value) and int(passage[by_value[rank]]) not in used:
                return int(by_value[rank])
    return None


def context_activations(
    centres: Int[np.ndarray, " contexts"],
    positions: Int[np.ndarray, " firings"],
    values: Float[np.ndarray, " firings"],
) -> Float[np.ndarray, "contexts width"]:
    """Activations over each context's window, zero where the latent is silent."""
    wanted = centres[:, None] + np.arange(1 - BEFORE, BEHIND + 1)
    if len(positions) == 0:
        return np.zeros(wanted.shape, dtype=np.float32)
    at = np.searchsorted(positions, wanted).clip(max=len(positions) - 1)
    fires = (positions[at] == wanted) & (centres != NONE)[:, None]
    return np.where(fires, values[at], 0.0).astype(np.float32)


def sparse_contexts(
    activations: Sequence[Float[np.ndarray, "contexts width"]],
) -> dict[str, np.ndarray]:
    """The arrays that keep activations of all latents' windows, of which most are zero.

    Args:
        activations: Activations of each latent, as shares of its largest: a half float holds these
            whatever the SAE's scale is.

    Returns:
        ``shown_bounds`` [d_sae, contexts + 1]: where each context's firings begin and end;
        ``shown_at``: the token of the window that each is at; ``shown_shares``: its activation.
    """
    bounds, at, shares, n_done = [], [], [], 0
    for windows in activations:
        rows, columns = windows.nonzero()
        ends = np.searchsorted(rows, np.arange(len(windows) + 1))
        bounds.append((n_done + ends).astype(np.int32))
        at.append(columns.astype(np.uint8))
        shares.append(windows[rows, columns].astype(np.float16))
        n_done += len(rows)
    return {
        "shown_bounds": np.stack(bounds),
        "shown_at": np.concatenate(at),
        "shown_shares": np.concatenate(shares),
    }
