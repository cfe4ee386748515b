"""What methods need to know about items, computed once for all draws and kept on disk.

Nothing in here depends on anybody's answers. Every quantity is computed for the same items in the
same order, whichever methods ask for it and in whichever draw, so that a run that was interrupted
goes on with the very numbers it began with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from saepd.branches.gradients import option_gradients
from saepd.branches.run import score_continuations
from saepd.common.errors import InputError, first_line
from saepd.common.files import write_atomically
from saepd.feedback.schema import Item
from saepd.models.sites import SiteBatch, read_site
from saepd.models.tokens import prompt_ids
from saepd.models.wording import ReadoutConfig
from saepd.readout.options import MIN_LETTER_MASS, read_options
from saepd.saes.abilities import encode
from saepd.saes.load import sae_hook_name, written_site
from saepd.tasks.task import Task

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge


Array = Float[np.ndarray, "..."]
ByItem = Mapping[str, Array]

_LETTERS = ReadoutConfig("letter")


class ItemCache:
    """Quantities by item id; each is computed when it is first read.

    Scores and pooled features are of every item that any draw asks about. Letters are of the test
    items only, since no method fits on them; gradients are of those that there is feedback on.

    Args:
        model: The language model.
        sae: The dictionary whose site residuals and gradients are of.
        task: Where the items and their wording come from.
        items: Ids of every item of any draw, in a fixed order.
        tests: Ids of the items that are predicted.
        folder: Where to keep what was computed; nowhere if None.
        answered: Ids of the items that there is feedback on; all of them if None.
        further: Dictionaries of further sites, into which learned directions write as well.
    """

    def __init__(
        self,
        model: TransformerBridge,
        sae: SAE[Any],
        task: Task,
        items: Sequence[str],
        tests: Sequence[str],
        folder: Path | None = None,
        *,
        answered: Sequence[str] | None = None,
        further: Sequence[SAE[Any]] = (),
    ) -> None:
        self.model, self.sae, self.task = model, sae, task
        self.saes = (sae, *further)
        self._items = [task.by_id[id_] for id_ in items]
        self._tests = [task.by_id[id_] for id_ in tests]
        self._answered = [task.by_id[id_] for id_ in (items if answered is None else answered)]
        self._folder = folder

    @property
    def hook_name(self) -> str:
        """The site that the SAE's latents are written at."""
        return written_site(self.sae)

    @cached_property
    def text_scores(self) -> ByItem:
        """Log-likelihood of each option's text after the task's wording, nats: [options]."""
        return self._kept_or_computed("text_scores", self._items, self._read_texts)

    @cached_property
    def letter_scores(self) -> ByItem:
        """Log-probs among the options' letters, nats: [options]; NaN where the model names none."""
        return self._kept_or_computed(
            "letter_scores", self._tests, lambda items: self._read_letters(items, 1)
        )

    @cached_property
    def letter_scores_over_orders(self) -> ByItem:
        """As ``letter_scores``, averaged over the cyclic orders in which options can be listed.

        In these every option has every letter once, which takes the liking for a letter off.
        """
        return self._kept_or_computed(
            "letter_scores_over_orders", self._tests, lambda items: self._read_letters(items, None)
        )

    @cached_property
    def residuals(self) -> ByItem:
        """What the SAE reads, mean over the prompt without special tokens: [d_in]."""
        return {id_: row[: self.sae.cfg.d_in] for id_, row in self._pooled.items()}

    @cached_property
    def latents(self) -> ByItem:
        """Latents of the SAE, mean over the prompt without special tokens: [d_sae]."""
        return {id_: row[self.sae.cfg.d_in :] for id_, row in self._pooled.items()}

    @cached_property
    def gradients(self) -> ByItem:
        """Nats of each option per residual unit added at the site: [options, d_model]."""
        return self._kept_or_computed("gradients", self._answered, self._differentiate)

    def prompt(self, item: Item) -> str:
        """The text whose continuation answers the item; it names no perspective."""
        return self.task.wording.text(item.prompt)

    @cached_property
    def _pooled(self) -> ByItem:
        return self._kept_or_computed("pooled", self._items, self._pool)

    def _read_texts(self, items: Sequence[Item]) -> list[Array]:
        scored = score_continuations(
            self.model, [self.prompt(i) for i in items], [i.options for i in items], []
        )
        return [scores[0].double().numpy() for scores, _ in scored]

    def _read_letters(self, items: Sequence[Item], n_orders: int | None) -> list[Array]:
        # The user's turn asks in full sentences, where the plain wording would want a continuation.
        asked = [(self.task.wording.text(i.prompt, "chat"), i.options) for i in items]
        listed = [
            Item(id=f"{number}-{turn}", prompt=text, options=options[turn:] + options[:turn])
            for number, (text, options) in enumerate(asked)
            for turn in range(n_orders or len(options))
        ]
        read = iter(read_options(self.model, listed, [], _LETTERS))
        means: list[Array] = []
        for _, options in asked:
            orders = [next(read) for _ in range(n_orders or len(options))]
            scores = [
                np.roll(order.log_probs()[0].double().numpy(), turn)
                for turn, order in enumerate(orders)
            ]
            readable = np.mean([float(order.mass[0]) for order in orders]) >= MIN_LETTER_MASS
            means.append(np.mean(scores, axis=0) if readable else np.full(len(options), np.nan))
        return means

    def _pool(self, items: Sequence[Item]) -> list[Array]:
        rows = [prompt_ids(self.model.tokenizer, self.prompt(item)) for item in items]
        hook_name, width = sae_hook_name(self.sae), self.sae.cfg.d_in + self.sae.cfg.d_sae

        def pool(batch: SiteBatch) -> list[Array]:
            h = batch.held[hook_name].float()
            return list(batch.mean(torch.cat([h, encode(self.sae, h)], dim=-1)).cpu().numpy())

        return read_site(self.model, [hook_name], rows, pool, collected_bytes=8 * width)

    def _differentiate(self, items: Sequence[Item]) -> list[Array]:
        by_item = option_gradients(
            self.model, [self.prompt(i) for i in items], [i.options for i in items], self.hook_name
        )
        return [gradients[0, :, 0].numpy() for _, gradients in by_item]

    def _kept_or_computed(
        self, name: str, items: Sequence[Item], compute: Callable[[Sequence[Item]], list[Array]]
    ) -> ByItem:
        """Read from the folder, or computed and put there; one row an option or an item."""
        ids = [item.id for item in items]
        path = self._folder and self._folder / f"{name}.safetensors"
        if path and path.exists():
            return dict(zip(ids, _stored(path, len(ids)), strict=True))
        arrays = compute(items)
        if path:
            ends = np.cumsum([len(array) for array in arrays])
            write_atomically(path, save({"values": np.concatenate(arrays), "ends": ends}))
        return dict(zip(ids, arrays, strict=True))


def _stored(path: Path, n_items: int) -> list[Array]:
    """What a file of the cache keeps of each item.

    Raises:
        InputError: it is damaged, or of other items.
    """
    try:
        stored = load_file(path)
        rows = np.split(stored["values"], stored["ends"][:-1])
        if len(rows) != n_items:
            raise ValueError(f"it keeps {len(rows)} items, and there are {n_items}")
    except (OSError, SafetensorError, LookupError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} is not what an evaluation keeps of its items ({first_line(error)}): delete "
            "it, and the same command computes it again"
        ) from error
    return rows
