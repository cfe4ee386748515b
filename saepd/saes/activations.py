"""Residual activations of several sites, computed in one pass of the model and kept on disk.

The language model's pass is most of the cost of training a dictionary. So it is made once, for
all sites; every later training run reads memory-mapped float16 rows. The pass is resumable: it
writes chunk by chunk and records how far it came.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

from saepd.common.errors import InputError
from saepd.saes.corpus import Context

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

_STATE = "state.json"
_CONTEXTS_PER_CHUNK = 512


class ActivationCache:
    """Rows [n, d_in] per site in a folder: ``{hook_name}.f16``, and ``state.json``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        state = json.loads((folder / _STATE).read_text())
        self.n_rows: int = state["n_rows"]
        self.d_in: int = state["d_in"]
        self.hook_names: list[str] = state["hook_names"]
        self.kinds: dict[str, int] = state["kinds"]

    def rows(self, hook_name: str) -> Float[np.ndarray, "n d_in"]:
        """Memory-mapped activations of one site, in the order of the corpus."""
        path = self.folder / f"{hook_name}.f16"
        return np.memmap(path, dtype=np.float16, mode="r", shape=(self.n_rows, self.d_in))

    def batches(
        self, hook_name: str, batch_size: int, *, seed: int, start: int = 0
    ) -> Iterator[torch.Tensor]:
        """Endless shuffled batches [batch_size, d_in]; a new permutation each epoch.

        Args:
            hook_name: The site.
            batch_size: Rows a batch.
            seed: Of the permutations.
            start: Rows already consumed by an interrupted run, which are skipped.
        """
        rows = self.rows(hook_name)
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
                yield torch.from_numpy(rows[chosen].astype(np.float32))
            step = (epoch + 1) * per_epoch


def cache_activations(
    model: TransformerBridge,
    contexts: Iterator[Context],
    hook_names: list[str],
    folder: Path,
    *,
    max_tokens: int,
    batch_tokens: int = 2048,
    progress: object = None,
) -> ActivationCache:
    """Run the model over contexts and append what the sites hold at the positions that count.

    Only the blocks up to the highest site run. A folder that an interrupted call left is continued
    where it stopped, provided it was made for the same sites.

    Args:
        model: The language model, at any dtype.
        contexts: In a reproducible order; a continued run skips those already done.
        hook_names: Residual-stream sites, such as ``blocks.15.hook_resid_post``.
        folder: Where the rows go.
        max_tokens: Stop after this many rows per site.
        batch_tokens: Padded tokens a forward pass may hold.
        progress: Called with the number of rows after each chunk, if given.

    Raises:
        InputError: the folder holds activations of other sites, or a value overflows float16.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state_path = folder / _STATE
    d_in = int(model.cfg.d_model)
    state = {"n_rows": 0, "n_contexts": 0, "d_in": d_in, "hook_names": hook_names, "kinds": {}}
    if state_path.exists():
        state = json.loads(state_path.read_text())
        if state["hook_names"] != hook_names or state["d_in"] != d_in:
            raise InputError(f"{folder} holds activations of {state['hook_names']}: use another")
    files = {name: (folder / f"{name}.f16").open("ab") for name in hook_names}
    for file in files.values():
        # Rows past the recorded count come from a chunk that was cut off half-way.
        file.truncate(state["n_rows"] * d_in * 2)
    try:
        for _ in range(state["n_contexts"]):
            next(contexts)
        while state["n_rows"] < max_tokens:
            chunk = list(islice(contexts, _CONTEXTS_PER_CHUNK))
            if not chunk:
                break
            for batch in _packed(chunk, batch_tokens):
                for name, rows in site_activations(model, batch, hook_names).items():
                    files[name].write(_as_float16(rows, name))
            for file in files.values():
                file.flush()
            state["n_contexts"] += len(chunk)
            for context in chunk:
                state["n_rows"] += sum(context.keep)
                kinds = state["kinds"]
                kinds[context.kind] = kinds.get(context.kind, 0) + sum(context.keep)
            temporary = state_path.with_suffix(".tmp")
            temporary.write_text(json.dumps(state))
            temporary.replace(state_path)
            if callable(progress):
                progress(state["n_rows"])
    finally:
        for file in files.values():
            file.close()
    return ActivationCache(folder)


def site_activations(
    model: TransformerBridge, batch: list[Context], hook_names: list[str]
) -> dict[str, torch.Tensor]:
    """What each site holds at the counted positions of a batch: [n_kept, d_model] float32."""
    length = max(len(c.tokens) for c in batch)
    tokens = torch.zeros(len(batch), length, dtype=torch.long)
    keep = torch.zeros(len(batch), length, dtype=torch.bool)
    for row, context in enumerate(batch):
        # Right padding cannot reach earlier positions in a causal model, so no mask is needed.
        tokens[row, : len(context.tokens)] = torch.tensor(context.tokens)
        keep[row, : len(context.tokens)] = torch.tensor(context.keep)
    device = next(model.original_model.parameters()).device
    tokens = tokens.to(device)
    found: dict[str, torch.Tensor] = {}

    def store(value: torch.Tensor, hook: object) -> None:
        found[str(getattr(hook, "name", ""))] = value[keep.to(value.device)].float().cpu()

    last = 1 + max(int(name.split(".")[1]) for name in hook_names)
    canonical = {name: str(model.hook_dict[name].name) for name in hook_names}
    with torch.inference_mode():
        model.run_with_hooks(
            tokens, fwd_hooks=[(name, store) for name in hook_names], stop_at_layer=last
        )
    return {name: found[canonical[name]] for name in hook_names}


def _packed(contexts: list[Context], batch_tokens: int) -> Iterator[list[Context]]:
    """Contexts of like length together, so that little padding is computed."""
    batch: list[Context] = []
    for context in sorted(contexts, key=lambda c: -len(c.tokens)):
        if batch and (len(batch) + 1) * len(batch[0].tokens) > batch_tokens:
            yield batch
            batch = []
        batch.append(context)
    if batch:
        yield batch


def _as_float16(rows: torch.Tensor, name: str) -> bytes:
    values = rows.numpy().astype(np.float16)
    if not np.isfinite(values).all():
        raise InputError(f"activations at {name} overflow float16: choose an earlier site")
    return values.tobytes()
