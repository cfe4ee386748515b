"""Every firing of every latent over a collection: read once, kept on disk, ordered by latent.

The pass writes chunk by chunk and records how far it came, so that a killed one goes on where it
stopped. Memory holds a chunk at a time; the disk holds 12 bytes a firing, twice while they are put
in order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from saepd.common.errors import InputError
from saepd.common.files import write_json
from saepd.features.index.passages import Passages
from saepd.models.sites import SiteBatch, read_site
from saepd.saes.abilities import encode
from saepd.saes.activations import is_sink
from saepd.saes.load import sae_hook_name

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

_STATE = "state.json"
_PASSAGES_PER_CHUNK = 128
# Firings that are put in order at once.
_FIRINGS_PER_CHUNK = 4_000_000
_FILES: Mapping[str, Any] = {"latents": np.int32, "positions": np.int64, "values": np.float32}
_COUNTED = "counted"


class Firings:
    """All firings, latent after latent, in the order of their positions; memory-mapped.

    Attributes:
        bounds: Where each latent's firings begin; one more marks the end of the last.
        positions: The token at which each firing is, counted over all passages.
        values: Its activation, in SAE activation units.
        counted: Whether each token counts: no first or special one, and no attention sink.
    """

    def __init__(self, folder: Path, bounds: Int[np.ndarray, " d_sae_and_one"]) -> None:
        self.bounds = bounds
        self.positions = _mapped(folder / "ordered.positions", np.int64, "r")
        self.values = _mapped(folder / "ordered.values", np.float32, "r")
        self.counted = np.fromfile(folder / _COUNTED, dtype=bool)

    def of(self, latent: int) -> tuple[Int[np.ndarray, " firings"], Float[np.ndarray, " firings"]]:
        """Positions and activations of one latent."""
        chosen = slice(*self.bounds[latent : latent + 2])
        return np.asarray(self.positions[chosen]), np.asarray(self.values[chosen])


def read_firings(
    model: TransformerBridge,
    sae: SAE[Any],
    passages: Passages,
    folder: Path,
    identity: Mapping[str, Any],
    progress: Callable[[str, int, int], None] | None = None,
) -> Firings:
    """Run the model over passages and keep what fires where.

    Args:
        model: The language model.
        sae: A dictionary of one of its sites.
        passages: The collection.
        folder: Where the firings are kept; an interrupted call's is gone on with.
        identity: What the firings depend on: a folder that is of something else is refused.
        progress: Called with what is being done, the tokens that are done, and how many there are.

    Raises:
        InputError: the folder holds the firings of another SAE, model or collection, or an
            activation is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = _state(folder, identity)
    files = {name: (folder / name).open("ab") for name in (*_FILES, _COUNTED)}
    try:
        for name, file in files.items():
            # What lies beyond the recorded count is of a chunk that was cut off half-way.
            width = np.dtype(_FILES.get(name, bool)).itemsize
            n_done = passages.starts[state["n_passages"]] if name == _COUNTED else state["n"]
            file.truncate(int(n_done) * width)
        while state["n_passages"] < len(passages.rows):
            first = state["n_passages"]
            chunk = passages.rows[first : first + _PASSAGES_PER_CHUNK]
            for row, start in zip(fired(model, sae, chunk), passages.starts[first:], strict=False):
                latents, positions, values, counted = row
                files["latents"].write(latents.astype(np.int32).tobytes())
                files["positions"].write((positions + start).astype(np.int64).tobytes())
                files["values"].write(values.tobytes())
                files[_COUNTED].write(counted.tobytes())
                state["n"] += len(latents)
            for file in files.values():
                file.flush()
            state["n_passages"] += len(chunk)
            write_json(folder / _STATE, state)
            if progress is not None:
                done = int(passages.starts[state["n_passages"]])
                progress("reading texts", done, passages.n_tokens)
    finally:
        for file in files.values():
            file.close()
    return Firings(folder, _put_in_order(folder, int(sae.cfg.d_sae)))


def _state(folder: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    path = folder / _STATE
    if not path.exists():
        return {"identity": dict(identity), "n_passages": 0, "n": 0}
    state = json.loads(path.read_text(encoding="utf-8"))
    if state["identity"] != dict(identity):
        differs = [name for name, value in identity.items() if state["identity"].get(name) != value]
        raise InputError(
            f"{folder.parent} holds an unfinished index with another {' and '.join(differs)}: "
            "remove it, or name another folder"
        )
    return state


Fired = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def fired(model: TransformerBridge, sae: SAE[Any], rows: list[list[int]]) -> list[Fired]:
    """Latents, positions and values of each row's firings, and which of its positions count."""
    # The latents, whether they fire, and the encoder's own intermediate values.
    held = 16 * sae.cfg.d_sae
    hook_name = sae_hook_name(sae)
    return read_site(model, [hook_name], rows, lambda b: _in_batch(b, sae), collected_bytes=held)


def _in_batch(batch: SiteBatch, sae: SAE[Any]) -> list[Fired]:
    hook_name = sae_hook_name(sae)
    counted = batch.counted.clone()
    chosen = batch.held[hook_name][counted].float()
    sinks = is_sink({hook_name: chosen}) if len(chosen) else chosen.new_zeros(0).bool()
    counted[counted.clone()] = ~sinks
    f = encode(sae, chosen[~sinks])
    if not bool(f.isfinite().all()):
        raise InputError(
            f"latents at {hook_name} are not finite: run the model in bfloat16 or float32"
        )
    at, latents = (part.cpu().numpy() for part in (f > 0).nonzero(as_tuple=True))
    values = f.cpu().numpy()[at, latents].astype(np.float32)
    row_of, column_of = (part.cpu().numpy() for part in counted.nonzero(as_tuple=True))
    padding = (batch.prompts.attention == 0).sum(1).tolist()
    ends = np.searchsorted(row_of[at], np.arange(len(padding) + 1))
    rows = []
    for row, pad in enumerate(padding):
        of_row = slice(ends[row], ends[row + 1])
        mask = counted[row, pad:].cpu().numpy()
        rows.append((latents[of_row], column_of[at[of_row]] - pad, values[of_row], mask))
    return rows


def _put_in_order(folder: Path, d_sae: int) -> Int[np.ndarray, " d_sae_and_one"]:
    """Sort the firings by latent, a chunk at a time: where each goes is known by counting."""
    latents = _mapped(folder / "latents", np.int32, "r")
    positions = _mapped(folder / "positions", np.int64, "r")
    values = _mapped(folder / "values", np.float32, "r")
    chunks = [slice(i, i + _FIRINGS_PER_CHUNK) for i in range(0, len(latents), _FIRINGS_PER_CHUNK)]
    counts = np.zeros(d_sae, dtype=np.int64)
    for chunk in chunks:
        counts += np.bincount(latents[chunk], minlength=d_sae)
    bounds = np.concatenate([[0], np.cumsum(counts)])
    if len(latents) == 0:
        for name in ("ordered.positions", "ordered.values"):
            (folder / name).write_bytes(b"")
        return bounds
    into = {
        name: np.memmap(
            folder / f"ordered.{name}", dtype=source.dtype, mode="w+", shape=source.shape
        )
        for name, source in (("positions", positions), ("values", values))
    }
    next_free = bounds[:-1].copy()
    for chunk in chunks:
        ids = np.asarray(latents[chunk])
        order = np.argsort(ids, kind="stable")
        n_firings = np.bincount(ids, minlength=d_sae)
        rank = np.arange(len(ids)) - np.repeat(np.cumsum(n_firings) - n_firings, n_firings)
        target = next_free[ids[order]] + rank
        into["positions"][target] = positions[chunk][order]
        into["values"][target] = values[chunk][order]
        next_free += n_firings
    return bounds


def _mapped(path: Path, dtype: Any, mode: Any) -> np.ndarray:
    if path.stat().st_size == 0:
        return np.empty(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode=mode)
