"""Labels that a language model gives latents, and what they are worth on texts not shown to it.

A label is made of a latent's contexts in the half of the passages that computed labels are made of.
It is scored on contexts in the other half, and on as many excerpts of it in which the latent is
silent, beside the label of another latent; see `saepd.features.index.asking`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool

from saepd.common.errors import InputError
from saepd.common.files import write_atomically
from saepd.common.messages import shortened
from saepd.features.index.asking import (
    detect,
    detection_prompt,
    label_prompt,
    read_label,
    read_numbers,
)
from saepd.features.index.by_texts import ReadTexts
from saepd.features.index.contexts import BEFORE, BEHIND
from saepd.features.index.feature_index import FeatureIndex
from saepd.features.index.given_labels import DETECTION, LabelReader, label_rows
from saepd.features.index.labels import LEAST_SCORED, is_held_out
from saepd.features.index.latent_page import Context

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

Ask = Callable[[str], str]

# Held-out passages that are read, so that excerpts are known in which a latent is silent.
_N_READ = 64
# Latents that fire at a larger share of the tokens are hardly ever silent in an excerpt.
_MOST_DENSITY = 0.1


class HeldOutTexts:
    """Excerpts of passages that no label is made of, read when the first is asked for."""

    def __init__(self, model: TransformerBridge, sae: SAE[Any], index: FeatureIndex) -> None:
        self._model, self._sae, self._index = model, sae, index
        self._seed = int(index.info["identity"]["settings"]["seed"])

    @cached_property
    def _read(self) -> ReadTexts:
        passages = np.arange(self._index.info["n_passages"])
        rng = np.random.default_rng(self._seed)
        passages = rng.permutation(passages[is_held_out(passages)])[:_N_READ]
        texts = [text for text in map(self._index.passage, passages.tolist()) if text.strip()]
        return ReadTexts(self._model, self._sae, self._index, texts)

    @cached_property
    def _windows(self) -> list[tuple[list[str], slice]]:
        """The tokens of each text, and an excerpt around one that is not the first."""
        rng = np.random.default_rng(self._seed)
        tokens = [self._read.tokens(text) for text in range(len(self._read.texts))]
        centres = [int(rng.integers(1, max(2, len(one)))) for one in tokens]
        windows = [slice(max(0, at + 1 - BEFORE), at + 1 + BEHIND) for at in centres]
        return list(zip(tokens, windows, strict=True))

    def excerpts(self, latent: int) -> tuple[list[str], Bool[np.ndarray, " n"]] | None:
        """Excerpts in a shuffled order, and in which the latent fires: in half of them.

        None where it fires, or is silent, in too few.
        """
        fires = [context.text for context in contexts_of(self._index, latent, held_out=True)]
        silent = [
            "".join(tokens[window])
            for text, (tokens, window) in enumerate(self._windows)
            if not self._read.activations(latent, text)[window].any()
        ]
        n = min(len(fires), len(silent))
        if n < LEAST_SCORED:
            return None
        rng = np.random.default_rng([self._seed, latent])
        chosen = [rng.choice(len(texts), n, replace=False) for texts in (fires, silent)]
        both = [fires[i] for i in chosen[0]] + [silent[i] for i in chosen[1]]
        order = rng.permutation(2 * n)
        return [both[i] for i in order], order < n


def contexts_of(index: FeatureIndex, latent: int, *, held_out: bool) -> list[Context]:
    """A latent's contexts in one half of the passages: held out, or that labels are made of."""
    apart = is_held_out(index.context_passages(latent))
    contexts = zip(index.contexts(latent), apart.tolist(), strict=True)
    return [context for context, is_apart in contexts if is_apart == held_out]


def densest(index: FeatureIndex, n: int) -> list[int]:
    """The n latents that fire most often, but for those that fire at a tenth of all tokens.

    Raises:
        InputError: all fire as often, or never.
    """
    often = np.argsort(-index.density, kind="stable")
    firing = (index.density[often] > 0) & (index.density[often] <= _MOST_DENSITY)
    if not firing.any():
        raise InputError("every latent fires at a tenth of all tokens or never: name some to label")
    return often[firing][:n].tolist()


class LabelFile:
    """Rows of labels, latent by latent, in a file that is whole at any moment.

    Args:
        path: The file; what it holds already is gone on with.
        index: The index that contexts are taken from.
        sae: The SAE that it is of.
        model_name: The model that gives the labels.
        writes: Whether anything is written.

    Raises:
        InputError: a file that holds anything else.
    """

    def __init__(
        self,
        path: Path,
        index: FeatureIndex,
        sae: SAE[Any],
        model_name: str,
        *,
        writes: bool = True,
    ) -> None:
        reader = LabelReader(sae)
        model_id, _, layer = (reader.page or "").partition("/")
        self._path, self._writes = path, writes
        self._same = {
            "modelId": model_id or str(index.info["model_name"]),
            "layer": layer or str(index.info["hook_name"]),
            "explanationModelName": model_name,
            "sae": reader.fingerprint,
            "texts": str(index.info["identity"]["texts"]),
        }
        self.rows: dict[int, dict[str, Any]] = {}
        for where, row in label_rows(path) if path.exists() else ():
            latent, _ = reader.label(where, row)
            for name, value in self._same.items():
                if row.get(name) != value:
                    raise InputError(
                        f"{where} has {shortened(row.get(name))} as {name}, and this run has "
                        f"{value!r}: name another file"
                    )
            self.rows[latent] = row

    def put(self, latent: int, **more: Any) -> None:
        """Say more of a latent, and write it down."""
        self.rows[latent] = self._same | {"index": str(latent)} | self.rows.get(latent, {}) | more
        if self._writes:
            rows = self.rows.values()
            lines = [json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n" for row in rows]
            write_atomically(self._path, "".join(lines).encode())


def label_latents(
    index: FeatureIndex,
    latents: Sequence[int],
    ask: Ask,
    file: LabelFile,
    held_out: HeldOutTexts,
    progress: Callable[[str, int, int], None] | None = None,
) -> None:
    """Ask for the labels of latents, then score each beside another's; what is done is left.

    Args:
        index: What the latents do in texts.
        latents: Their ids.
        ask: Answers a prompt.
        file: Where labels are kept, whenever there is one.
        held_out: Texts that labels are scored on.
        progress: Called with what is being done, how much of it is done, and of how much.

    Raises:
        InputError: a latent that there is not, or whatever is raised while asking.
    """
    latents = list(dict.fromkeys(latents))
    for latent in latents:
        index.check(latent)
    steps = (("asking for labels", _ask_label), ("scoring labels", _score_label))
    for what, step in steps:
        for number, latent in enumerate(latents):
            if progress is not None:
                progress(what, number, len(latents))
            step(index, latent, ask, file, held_out)


def _ask_label(index: FeatureIndex, latent: int, ask: Ask, file: LabelFile, _: Any) -> None:
    if latent in file.rows:
        return
    contexts = contexts_of(index, latent, held_out=False)
    label, why_not = "", "it never fires in the half of the texts that labels are made of"
    if contexts:
        label, why_not = read_label(ask(label_prompt(contexts, index.page(latent).raises)))
    file.put(latent, description=label, note=why_not)


def _score_label(
    index: FeatureIndex, latent: int, ask: Ask, file: LabelFile, held_out: HeldOutTexts
) -> None:
    row = file.rows[latent]
    if not row["description"] or "scores" in row:
        return
    others = [
        other
        for other, one in sorted(file.rows.items())
        if one["description"].lower() not in ("", row["description"].lower())
    ]
    if not others:
        # A later run may know of some.
        file.put(latent, note="not scored: no other label to compare with")
        return
    excerpts = held_out.excerpts(latent)
    if excerpts is None:
        file.put(latent, scores=[], note="not scored: too few held-out excerpts")
        return
    texts, fires = excerpts
    other = int(np.random.default_rng(latent).choice(others))
    labels = (row["description"], file.rows[other]["description"])
    answers = [ask(detection_prompt(label, texts)) for label in labels]
    chosen = [read_numbers(answer, len(texts)) for answer in answers]
    right = [np.isin(np.arange(len(texts)), list(c)) == fires for c in chosen if c is not None]
    if len(right) < len(labels):
        file.put(latent, scores=[], note="not scored: the model did not say which excerpts")
        return
    by = {
        "explanationScoreTypeName": DETECTION,
        "explanationScoreModelName": row["explanationModelName"],
    }
    file.put(latent, scores=[by | detect(right[0], right[1], other)._asdict()], note="")
