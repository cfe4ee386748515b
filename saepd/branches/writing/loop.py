"""Texts that are being written, one token a turn: what they show, when they end, what they read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from jaxtyping import Bool, Float, Int
from torch import Tensor

from saepd.branches.engine.plan import Plan
from saepd.branches.writing.config import SamplingConfig
from saepd.branches.writing.sampling import Sampler
from saepd.merge.config import MergeConfig
from saepd.merge.operators import OPERATORS
from saepd.models.in_use import using

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

EndedBy = Literal["eos", "stop", "length", "broken"]

_HALF_A_CHARACTER = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Ends:
    """What ends a text.

    Attributes:
        ids: Tokens that end it and are no part of it, each with what to call that end.
        texts: What ends it and is cut off.
        most: Tokens that may be written.
    """

    ids: dict[int, EndedBy]
    texts: tuple[str, ...]
    most: int


@dataclass
class GrowingText:
    """A text that is being written.

    Attributes:
        tokenizer: The model's tokenizer.
        ends: What ends it.
        blanks: What the prompt ends in that its tokens leave to this text, which shows it only
            where the prompt does not.
        tokens: Written so far, without the end-of-text token.
        ended_by: Why it is over; None while it is not.
    """

    tokenizer: Any
    ends: Ends
    blanks: str = ""
    tokens: list[int] = field(default_factory=list)
    ended_by: EndedBy | None = None

    def add(self, token: int) -> None:
        """Write a token."""
        if token in self.ends.ids:
            self.ended_by = self.ends.ids[token]
            return
        self.tokens.append(token)
        if self.ends.texts and _first_stop(self._whole, self.ends.texts) is not None:
            self.ended_by = "stop"
        elif len(self.tokens) == self.ends.most:
            self.ended_by = "length"

    @property
    def visible(self) -> str:
        """What is certain to be part of the text; more tokens only ever make it longer."""
        whole = self._whole
        if self.ended_by == "stop":
            return whole[: _first_stop(whole, self.ends.texts)]
        return (
            whole if self.ended_by else whole[: len(whole) - _n_held_back(whole, self.ends.texts)]
        )

    @property
    def _whole(self) -> str:
        # Spaces are not cleaned up, which could take back what is visible already. What is still
        # half a character decodes to a replacement character.
        text: str = self.tokenizer.decode(
            self.tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        text = text.rstrip(_HALF_A_CHARACTER)
        for blank in self.blanks:
            if text[:1] != blank:
                break
            text = text[1:]
        return text


def ends_of(model: TransformerBridge, config: SamplingConfig) -> Ends:
    """The model's own ends of text, and those that were asked for.

    A stop text that is a special token is looked for among the tokens, as no text shows it.
    """
    tokenizer: Any = model.tokenizer
    special = {s for s in config.stop if s in tokenizer.all_special_tokens}
    ids: dict[int, EndedBy] = {tokenizer.convert_tokens_to_ids(s): "stop" for s in special}
    configured = getattr(model.original_model, "generation_config", None)
    eos = getattr(configured, "eos_token_id", None)
    listed = eos if isinstance(eos, list) else [eos]
    ids |= {i: "eos" for i in [*listed, tokenizer.eos_token_id] if i is not None}
    texts = tuple(s for s in config.stop if s not in special)
    return Ends(ids, texts, config.max_new_tokens)


def _first_stop(text: str, stops: Sequence[str]) -> int | None:
    """Where the first of some texts starts."""
    return min((i for i in map(text.find, stops) if i >= 0), default=None)


def _n_held_back(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end may turn out to begin one of some texts."""
    longest = max(map(len, stops), default=1) - 1
    lengths = range(min(longest, len(text)), 0, -1)
    return next((n for n in lengths if any(s.startswith(text[-n:]) for s in stops)), 0)


class Source(Protocol):
    """Texts being written, and what their branches say of the next token."""

    plan: Plan

    @property
    def log_probs(self) -> Float[Tensor, "rows *branches vocab"]:
        """Of the next token, in nats."""
        ...

    def feed(self, tokens: Int[Tensor, " rows"]) -> None:
        """Let every row read a token."""
        ...

    def keep(self, kept: list[int]) -> None:
        """Leave out all rows but these."""
        ...


@dataclass
class TextRows:
    """Texts in the rows of a batch, each written by all its branches or by its only one.

    Attributes:
        source: What reads them.
        merge: How a text's branches become one distribution; None where each text has one branch.
    """

    source: Source
    merge: MergeConfig | None

    @property
    def branches(self) -> Float[Tensor, "rows branches vocab"]:
        """Log-probs of the next token in every branch that writes a row, in nats."""
        log_probs = self.source.log_probs
        return log_probs if log_probs.ndim == 3 else log_probs.unsqueeze(1)

    @property
    def scores(self) -> Float[Tensor, "rows vocab"]:
        """Log-probs of the next token, in nats."""
        if self.merge is None:
            return self.branches[:, 0]
        # `merge_branches` would check what is normalised already, and the host wait for it.
        return OPERATORS[self.merge.operator](self.branches, self.merge)

    @property
    def broken(self) -> Bool[Tensor, " rows"]:
        """Rows in which the model gave no distribution."""
        # A NaN among logits is NaN everywhere after the softmax.
        return self.branches[:, :, 0].isnan().any(-1)


@dataclass(frozen=True)
class Turn:
    """What has just been written.

    Attributes:
        texts: Which text each row is.
        tokens: Each row's token.
        scores: What it was drawn from, log-probs in nats.
        luck: What it was drawn by.
    """

    texts: list[int]
    tokens: Int[Tensor, " rows"]
    scores: Float[Tensor, "rows vocab"]
    luck: Float[Tensor, "rows vocab"] | None


def turns(rows: TextRows, texts: list[GrowingText], sampler: Sampler) -> Iterator[Turn]:
    """Write until every text has ended; a text that has leaves the batch."""
    going = list(range(len(texts)))
    while True:
        scores = rows.scores
        luck = sampler.luck(scores, going)
        tokens = sampler.choose(scores, luck)
        for text, token in zip(going, tokens.where(~rows.broken, -1).tolist(), strict=True):
            if token < 0:
                texts[text].ended_by = "broken"
                continue
            texts[text].add(token)
        yield Turn(going, tokens, scores, luck)
        kept = [row for row, text in enumerate(going) if texts[text].ended_by is None]
        if not kept:
            return
        if len(kept) < len(going):
            rows.source.keep(kept)
            tokens, going = tokens[kept], [going[row] for row in kept]
        # Between two tokens another thread may run the model.
        with using(rows.source.plan.model):
            rows.source.feed(tokens)
