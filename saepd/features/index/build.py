"""Build an index: one pass over texts, then everything that is known of each latent."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.numpy import save

from saepd.common.errors import InputError
from saepd.common.files import write_atomically, write_json
from saepd.directions.edits import decoder_rows
from saepd.features.index.card import CARD, index_card
from saepd.features.index.config import IndexConfig
from saepd.features.index.contexts import (
    choose_contexts,
    context_activations,
    sparse_contexts,
)
from saepd.features.index.feature_index import ARRAYS, INFO, STRINGS, FeatureIndex
from saepd.features.index.firings import Firings, read_firings
from saepd.features.index.given_labels import read_labels, write_labels
from saepd.features.index.labels import Labeller
from saepd.features.index.neighbours import alike, together
from saepd.features.index.passages import Numbered, Passages, cut_passages
from saepd.features.index.reading import FORMAT, load_index, read_info, sae_identity
from saepd.features.index.statistics import places, statistics
from saepd.features.lens import logit_lens, token_text, writes_residual
from saepd.models.identity import weights_fingerprint
from saepd.saes.corpus import read_documents
from saepd.saes.load import sae_hook_name

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

_WORK = "unfinished"
_N_TOKENS = 8
# Latents whose tokens are read at once: each needs a number for every token of the vocabulary.
_LENS_BLOCK = 256

Progress = Callable[[str, int, int], None]


def build_index(
    model: TransformerBridge,
    sae: SAE[Any],
    texts: Sequence[str] | Sequence[Path] | Path,
    folder: str | Path,
    config: IndexConfig | None = None,
    *,
    about: str = "",
    labels: Sequence[str | Path] = (),
    progress: Progress | None = None,
) -> FeatureIndex:
    """Read texts once and keep what every latent does in them.

    A call that was interrupted is gone on with by the same call. A folder that holds this very
    index already is not built again: it is read, and given the labels.

    Args:
        model: The language model.
        sae: A dictionary of one of its sites.
        texts: Texts, or files of them: ``.txt``, ``.jsonl`` and ``.jsonl.gz`` (field ``text``).
        folder: Folder that the index is written to.
        config: How texts are cut and counted.
        about: Where the texts come from and under which licence, as the index shall say it.
        labels: Files of what others say that latents are about, as Neuronpedia exports them.
        progress: Called with what is being done, how much of it is done, and of how much.

    Raises:
        InputError: texts that cannot be read or hold nothing, a folder that holds another index,
            an SAE that does not fit the model, or labels that cannot be read or are of another SAE.
    """
    folder, config = Path(folder), config or IndexConfig()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder for the index")
    given = read_labels(labels, sae) if labels else {}
    passages = cut_passages(model.tokenizer, _documents(texts), config)
    identity = {
        **sae_identity(sae),
        "model": weights_fingerprint(model),
        "texts": passages.digest,
        "settings": asdict(config),
    }
    if (folder / INFO).exists():
        held = read_info(folder)["identity"]
        differs = [name for name, value in identity.items() if held.get(name) != value]
        if differs:
            raise InputError(
                f"{folder} holds an index with another {' and '.join(differs)}: name another folder"
            )
        if given:
            write_labels(folder, given)
        return load_index(folder, sae)
    work = folder / _WORK
    firings = read_firings(model, sae, passages, work, identity, progress)
    arrays, strings = _measured(model, sae, passages, firings, config, progress)
    info = {
        "format": FORMAT,
        "identity": identity,
        "hook_name": sae_hook_name(sae),
        "model_name": str(model.cfg.model_name),
        "d_sae": int(sae.cfg.d_sae),
        "about": about,
        "n_passages": len(passages.rows),
        "n_tokens": passages.n_tokens,
        "n_counted": int(firings.counted.sum()),
        "counted_places": _counted_places(passages, firings).tolist(),
        "saepd": version("saepd"),
    }
    write_atomically(folder / ARRAYS, save(arrays))
    write_json(folder / STRINGS, strings)
    write_atomically(folder / CARD, index_card(info, arrays).encode())
    if given:
        write_labels(folder, given)
    # The last to be written: what is without it is no index.
    write_json(folder / INFO, info)
    shutil.rmtree(work)
    return load_index(folder, sae)


def _documents(texts: Sequence[str] | Sequence[Path] | Path) -> list[str]:
    if isinstance(texts, str | Path):
        texts = [Path(texts)]
    documents: list[str] = []
    for text in texts:
        if isinstance(text, Path):
            documents += read_documents([text])
        elif isinstance(text, str):
            documents.append(text)
        else:
            raise InputError(
                f"texts are strings, or paths of files of them, not {type(text).__name__}"
            )
    return documents


def _depths(passages: Passages) -> np.ndarray:
    """How many tokens of its passage are before each token."""
    return np.arange(passages.n_tokens) - np.repeat(passages.starts[:-1], np.diff(passages.starts))


def _counted_places(passages: Passages, firings: Firings) -> np.ndarray:
    return places(_depths(passages)[firings.counted])


def _measured(
    model: TransformerBridge,
    sae: SAE[Any],
    passages: Passages,
    firings: Firings,
    config: IndexConfig,
    progress: Progress | None,
) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """The arrays of the index, latents first, and the strings that they are numbers of."""
    d_sae = int(sae.cfg.d_sae)
    labeller, depths = Labeller(passages, firings.counted, config.seed), _depths(passages)
    rows: dict[str, list[np.ndarray]] = {}
    shown: list[np.ndarray] = []
    for latent in range(d_sae):
        positions, values = firings.of(latent)
        counted = statistics(values, depths[positions])
        centres = choose_contexts(positions, values, passages.starts)
        label = labeller.label(latent, positions, values)
        strongest = counted.quantiles[-1] or 1.0
        shown.append(context_activations(centres, positions, values) / strongest)
        for name, value in {
            **counted._asdict(),
            "contexts": centres.astype(np.int32),
            "label_words": label.words,
            "label_where": label.where,
            "label_weights": label.weights.astype(np.float16),
            "label_scores": np.float32(label.score),
        }.items():
            rows.setdefault(name, []).append(np.asarray(value))
        if progress is not None and (latent + 1) % 64 == 0:
            progress("describing latents", latent + 1, d_sae)
    arrays = {name: np.stack(column) for name, column in rows.items()}
    arrays["n_firings"] = np.diff(firings.bounds).astype(np.uint32)
    arrays |= sparse_contexts(shown)
    columns = [firings.of(latent)[0] for latent in range(d_sae)]
    for name, neighbours in (
        ("together", together(columns, passages.n_tokens)),
        ("alike", alike(decoder_rows(sae, torch.arange(d_sae)))),
    ):
        arrays[f"{name}_ids"] = neighbours.ids
        arrays[f"{name}_scores"] = neighbours.scores.astype(np.float16)
    pieces = Numbered(passages.texts)
    arrays |= {name: _small(ids) for name, ids in _tokens(model, sae, pieces, progress).items()}
    arrays |= {"tokens": _small(passages.pieces), "starts": passages.starts.astype(np.int64)}
    # Of no word is 0, so that few words need two bytes.
    arrays["token_words"] = _small(np.where(passages.closes, passages.words + 1, 0))
    return arrays, {"pieces": pieces.strings, "words": passages.vocabulary}


def _tokens(
    model: TransformerBridge, sae: SAE[Any], pieces: Numbered, progress: Progress | None
) -> Mapping[str, np.ndarray]:
    """The tokens that each latent raises most and lowers most, as numbers of their text."""
    d_sae = int(sae.cfg.d_sae)
    if not writes_residual(sae):
        nothing = np.zeros((d_sae, 0), dtype=np.int64)
        return {"raises": nothing, "lowers": nothing}
    columns: dict[str, list[np.ndarray]] = {"raises": [], "lowers": []}
    for start in range(0, d_sae, _LENS_BLOCK):
        latents = torch.arange(start, min(start + _LENS_BLOCK, d_sae))
        for name, column in columns.items():
            ids = logit_lens(model, sae, latents, _N_TOKENS, lowers=name == "lowers")
            column.append(ids.numpy())
        if progress is not None:
            progress("reading decoder rows", int(latents[-1]) + 1, d_sae)
    stacked = {name: np.concatenate(column) for name, column in columns.items()}
    used = np.unique(np.concatenate(list(stacked.values())))
    number = np.zeros(int(used.max()) + 1, dtype=np.int64)
    number[used] = [pieces[token_text(model.tokenizer, token)] for token in used.tolist()]
    return {name: number[ids] for name, ids in stacked.items()}


def _small(numbers: np.ndarray) -> np.ndarray:
    """Numbers of strings in two bytes each, where there are few enough strings."""
    few = numbers.size == 0 or int(numbers.max()) < 2**16
    return numbers.astype(np.uint16 if few else np.uint32)
