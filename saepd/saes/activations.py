"""Activations of several sites, computed in one pass of the model and kept on disk.

The language model's pass is most of the cost of training a dictionary. So it is made once, for
all sites; every later training run reads memory-mapped bfloat16 rows, whose range is float32's:
deep blocks of some models hold values that float16 cannot. The pass is resumable: it writes chunk
by chunk and records how far it came.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saepd.common.errors import InputError
from saepd.common.files import write_json
from saepd.models.sites import SiteBatch, read_site
from saepd.saes.corpus import Context

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

_STATE = "state.json"
_CONTEXTS_PER_CHUNK = 128

# Positions whose activations are longer than this many times the median are attention sinks. They
# would make up most of what a dictionary is trained to reconstruct. (The dictionary_learning
# package leaves them out by the same rule and the same factor.)
SINK_NORM = 10.0


class ActivationCache:
    """Rows [n, d_in] per site in a folder: ``{hook_name}.bf16``, and ``state.json``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        state = json.loads((folder / _STATE).read_text())
        self.n_rows: int = state["n_rows"]
        self.n_sinks: int = state["n_sinks"]
        self.widths: dict[str, int] = state["widths"]
        self.kinds: dict[str, int] = state["kinds"]

    def rows(self, hook_name: str, chosen: slice | np.ndarray) -> Float[Tensor, "n d_in"]:
        """Some of a site's activations, in float32, out of those in the order of the corpus."""
        path, shape = self.folder / f"{hook_name}.bf16", (self.n_rows, self.widths[hook_name])
        # NumPy knows no bfloat16: its bits are read as integers.
        bits = np.memmap(path, dtype=np.int16, mode="r", shape=shape)[chosen]
        return torch.from_numpy(np.array(bits)).view(torch.bfloat16).float()

    def sample(self, hook_name: str, n: int) -> Float[Tensor, "n d_in"]:
        """At most ``n`` of a site's activations, evenly spaced over the corpus."""
        return self.rows(hook_name, slice(None, None, -(-self.n_rows // n)))

    def batches(
        self, hook_name: str, batch_size: int, *, seed: int, start: int = 0
    ) -> Iterator[torch.Tensor]:
        """Endless shuffled batches [batch_size, d_in]; a new permutation each epoch.

        Args:
            hook_name: The site.
            batch_size: Rows a batch.
            seed: Seed of the permutations.
            start: Rows already consumed by an interrupted run, which are skipped.
        """
        per_epoch = self.n_rows // batch_size
        if per_epoch == 0:
            raise InputError(
                f"{self.n_rows} cached activations do not fill a batch of {batch_size}: "
                "use a larger corpus or a smaller batch"
            )
        step = start // batch_size
        while True:
            epoch, within = divmod(step, per_epoch)
            order = np.random.default_rng([seed, epoch]).permutation(self.n_rows)
            for i in range(within, per_epoch):
                chosen = np.sort(order[i * batch_size : (i + 1) * batch_size])
                yield self.rows(hook_name, chosen)
            step = (epoch + 1) * per_epoch


def cache_activations(
    model: TransformerBridge,
    contexts: Iterator[Context],
    hook_names: Sequence[str],
    folder: Path,
    *,
    max_tokens: int,
    progress: Callable[[int], object] | None = None,
) -> ActivationCache:
    """Run the model over contexts and append what the sites hold at the positions that count.

    Only the blocks up to the highest site run. A folder that an interrupted call left is continued
    where it stopped, provided it was made for the same sites. Attention sinks are left out of all
    sites; see `SINK_NORM`.

    Args:
        model: The language model, at any dtype.
        contexts: In a reproducible order; a continued run skips those already done.
        hook_names: Sites, such as ``blocks.15.hook_resid_post``.
        folder: Where the rows go.
        max_tokens: Stop with the context that makes these rows per site full.
        progress: Called with the number of rows after each chunk, if given.

    Raises:
        InputError: the folder holds activations of other sites, or an activation is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state_path = folder / _STATE
    state: dict[str, Any] = {"n_rows": 0, "n_contexts": 0, "n_sinks": 0, "kinds": {}}
    state["widths"] = dict.fromkeys(hook_names, 0)
    if state_path.exists():
        state = json.loads(state_path.read_text())
        if list(state["widths"]) != list(hook_names):
            raise InputError(
                f"{folder} holds activations of {', '.join(state['widths'])}: name another work "
                "folder, or train at these sites"
            )
    files = {name: (folder / f"{name}.bf16").open("ab") for name in hook_names}
    for name, file in files.items():
        # Rows past the recorded count come from a chunk that was cut off half-way.
        file.truncate(state["n_rows"] * state["widths"][name] * 2)
    try:
        for _ in range(state["n_contexts"]):
            next(contexts)
        while state["n_rows"] < max_tokens:
            chunk = _next_chunk(contexts, max_tokens - state["n_rows"])
            if not chunk:
                break
            activations = site_activations(model, chunk, hook_names)
            for name, rows in activations.items():
                if not bool(rows.isfinite().all()):
                    raise InputError(
                        f"activations at {name} are not finite: run the model in bfloat16 or "
                        "float32, or choose an earlier site"
                    )
            kept = ~is_sink(activations)
            for name, rows in activations.items():
                state["widths"][name] = rows.shape[1]
                files[name].write(_bits(rows[kept]))
            for file in files.values():
                file.flush()
            _count(state, chunk, kept)
            write_json(state_path, state)
            if progress is not None:
                progress(state["n_rows"])
    finally:
        for file in files.values():
            file.close()
    return ActivationCache(folder)


def site_activations(
    model: TransformerBridge, group: Sequence[Context], hook_names: Sequence[str]
) -> dict[str, Float[Tensor, "n_kept d_in"]]:
    """What each site holds at the counted positions of contexts, in their order, on the CPU."""

    def keep(batch: SiteBatch) -> list[list[Tensor]]:
        return [
            [
                # Rows are padded on the left.
                batch.held[name][row, -len(group[i].keep) :][group[i].keep].cpu()
                for name in hook_names
            ]
            for row, i in enumerate(batch.indices)
        ]

    by_context = read_site(model, hook_names, [context.tokens for context in group], keep)
    columns = zip(*by_context, strict=True)
    return {name: torch.cat(parts).float() for name, parts in zip(hook_names, columns, strict=True)}


def is_sink(activations: Mapping[str, Float[Tensor, "n d_in"]]) -> Bool[Tensor, " n"]:
    """Which rows are attention sinks at any of the sites."""
    norms = [rows.norm(dim=-1) for rows in activations.values()]
    return torch.stack([each > SINK_NORM * each.median() for each in norms]).any(0)


def _next_chunk(contexts: Iterator[Context], n_rows: int) -> list[Context]:
    """Contexts enough for some rows, but not more than run at once."""
    chunk: list[Context] = []
    while n_rows > 0 and len(chunk) < _CONTEXTS_PER_CHUNK:
        context = next(contexts, None)
        if context is None:
            break
        chunk.append(context)
        n_rows -= sum(context.keep)
    return chunk


def _count(state: dict[str, Any], chunk: list[Context], kept: Bool[Tensor, " n"]) -> None:
    state["n_contexts"] += len(chunk)
    state["n_rows"] += int(kept.sum())
    state["n_sinks"] += int((~kept).sum())
    kinds = state["kinds"]
    for context, kept_rows in zip(chunk, kept.split([sum(c.keep) for c in chunk]), strict=True):
        kinds[context.kind] = kinds.get(context.kind, 0) + int(kept_rows.sum())


def _bits(rows: Float[Tensor, "n d_in"]) -> bytes:
    return rows.to(torch.bfloat16).view(torch.int16).numpy().tobytes()
