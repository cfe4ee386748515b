"""The reference: every text alone, whole, without padding or cache, its branches as hooked rows.

Slow and simple. It asks nothing of a model but that its own forward pass is right, so the fast path
is held against it, and a model that the fast path does not fit runs here.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saepd.branches.engine.plan import Plan
from saepd.branches.engine.widening import Masks, gated, share_of
from saepd.common.errors import InputError
from saepd.directions.gate import Gate, Reader, read_amounts
from saepd.directions.sites import activation_read
from saepd.models.batching import token_budget
from saepd.models.positions import generated_mask, prompt_mask

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# The token ids of each text that may follow a prompt.
Texts = list[list[int]]


@dataclass(frozen=True)
class ReferencePack:
    """Prompts, and the texts that may follow each; nothing of them has run.

    Attributes:
        rows: Token ids of each prompt.
        texts: Token ids of what may follow each prompt; None where only the next token is read.
        block: The first block that directions may change.
        specs: The positions that directions may edit.
    """

    rows: Sequence[list[int]]
    texts: list[Texts] | None
    block: int
    specs: tuple[str, ...]

    @classmethod
    def capture(
        cls,
        model: TransformerBridge,
        rows: Sequence[list[int]],
        texts: list[Texts] | None,
        block: int,
        specs: Sequence[str],
        *,
        n_branches: int | None = None,
        gates: Sequence[Gate | Reader] = (),
    ) -> ReferencePack:
        """As `saepd.branches.engine.pack.Pack.capture`; a marker that is missing is found here.

        Raises:
            InputError: a marker that a prompt does not contain.
        """
        for row in rows:
            for spec in specs:
                _mask(model, spec, torch.tensor([row]), len(row))
        return cls(rows, texts, block, tuple(specs))

    def log_probs(self, plan: Plan) -> Float[Tensor, "batch branches vocab"]:
        """Next-token log-probs of every branch, in nats.

        Raises:
            InputError: a direction edits an earlier site than these prompts were captured for.
        """
        self._check(plan)
        return torch.stack([whole_log_probs(plan, row, len(row))[:, -1] for row in self.rows])

    def scores(self, plan: Plan) -> list[Float[Tensor, "branches texts"]]:
        """Summed log-probs of each prompt's texts, in nats.

        Raises:
            InputError: a direction edits an earlier site than these prompts were captured for.
        """
        assert self.texts is not None
        self._check(plan)
        return [
            torch.stack([self._score(plan, row, text) for text in its_texts], dim=1)
            for row, its_texts in zip(self.rows, self.texts, strict=True)
        ]

    @staticmethod
    def _score(plan: Plan, row: list[int], text: list[int]) -> Float[Tensor, " branches"]:
        log_probs = whole_log_probs(plan, [*row, *text[:-1]], len(row))
        return log_probs[:, torch.arange(len(text)), text].sum(-1)

    def _check(self, plan: Plan) -> None:
        if plan.first_wide_block < self.block:
            raise InputError(
                f"these prompts were captured up to block {self.block - 1}, but a direction "
                "edits an earlier site: capture them for that site"
            )


@dataclass
class WholeTexts:
    """Texts being written, each of them read anew from its start for every token.

    Attributes:
        plan: The branches.
        texts: Token ids of each, the prompt included.
        n_prompt: How many of each are the prompt's.
        branches: The branches that read each text.
        log_probs: Log-probs of the next token, in nats.
    """

    plan: Plan
    texts: list[list[int]]
    n_prompt: list[int]
    branches: list[list[int]]
    log_probs: Float[Tensor, "texts branches vocab"] = field(init=False)

    def __post_init__(self) -> None:
        self._read()

    def feed(self, tokens: Int[Tensor, " texts"]) -> None:
        """Let every text go on with a token."""
        for text, token in zip(self.texts, tokens.tolist(), strict=True):
            text.append(token)
        self._read()

    def keep(self, kept: list[int]) -> None:
        """Leave out all texts but these."""
        self.texts = [self.texts[i] for i in kept]
        self.n_prompt = [self.n_prompt[i] for i in kept]
        self.branches = [self.branches[i] for i in kept]
        self.log_probs = self.log_probs[kept]

    def _read(self) -> None:
        with torch.inference_mode():
            rows = zip(self.texts, self.n_prompt, self.branches, strict=True)
            self.log_probs = torch.stack(
                [
                    whole_log_probs(self.plan, text, n, branches, read=1)[:, -1]
                    for text, n, branches in rows
                ]
            )


def whole_log_probs(
    plan: Plan,
    tokens: Sequence[int],
    n_prompt: int,
    branches: Iterable[int] | None = None,
    *,
    read: int | None = None,
) -> Float[Tensor, "branches read vocab"]:
    """Log-probs in nats, of every branch, of the token after each of the last ones of a text.

    Args:
        plan: The branches.
        tokens: Ids of the whole text.
        n_prompt: How many of them are the prompt's.
        branches: The branches that read it; all of them if None.
        read: How many of the last tokens are read; those from the prompt's last one on if None.
    """
    model = plan.model
    device = next(model.original_model.parameters()).device
    chosen = list(range(plan.n_branches) if branches is None else branches)
    read = len(tokens) - n_prompt + 1 if read is None else read
    at_once = max(1, token_budget(model) // len(tokens))
    amounts = read_amounts(model, [list(tokens[:n_prompt])], plan.gates)
    parts = []
    for start in range(0, len(chosen), at_once):
        rows = chosen[start : start + at_once]
        ids = torch.tensor([list(tokens)] * len(rows), device=device)
        masks: Masks = {spec: _mask(model, spec, ids[:1], n_prompt) for spec in plan.specs}
        masks = gated(masks, plan, amounts)
        with hooked_rows(plan, rows, masks):
            hf_model: Any = model.original_model
            # As the model itself would be called: some of the bridge's modules cannot run uncached.
            logits = hf_model(input_ids=ids, **_logits_to_keep(hf_model, read))
        parts.append(logits.logits[:, -read:].float().log_softmax(-1))
    return torch.cat(parts)


@contextmanager
def hooked_rows(plan: Plan, rows: list[int], masks: Masks) -> Iterator[None]:
    """Edit every site of the plan in a batch that holds these branches, one a row."""

    held: dict[str, Tensor] = {}

    def edit_site(site: Any, _args: object, h: Tensor) -> Float[Tensor, "rows columns d_model"]:
        out = list(h.unbind(0))
        for row, branch in enumerate(rows):
            for index, edit in plan.edits.get(site, []):
                if index == branch:
                    share = share_of(masks, edit).to(h)
                    # Every edit sees its site as it was before any of them.
                    read = activation_read(edit.reads, edit.hook_name, h, held)[row : row + 1]
                    out[row] = out[row] + (edit.delta(read) * share)[0]
        joined = torch.stack(out)
        if (name := plan.read_elsewhere.get(site)) is not None:
            held[name] = joined
        return joined

    with ExitStack() as stack:
        for site in dict.fromkeys([*plan.edits, *plan.read_elsewhere]):
            stack.callback(site.register_forward_hook(edit_site).remove)
        yield


def _mask(model: TransformerBridge, spec: str, ids: Tensor, n_prompt: int) -> Tensor:
    prompt, behind = ids[:, :n_prompt], ids[:, n_prompt:]
    inside = prompt_mask(spec, prompt, torch.ones_like(prompt), model.tokenizer)
    return torch.cat([inside, generated_mask(spec, behind, model.tokenizer)], dim=1)


def _logits_to_keep(hf_model: Any, read: int) -> dict[str, int]:
    """The argument that spares logits which nobody reads, where the model knows it."""
    known = "logits_to_keep" in inspect.signature(type(hf_model).forward).parameters
    # Blocks that share keys with others below would leave out columns of their own as well.
    shares = getattr(hf_model.config.get_text_config(), "num_kv_shared_layers", 0)
    return {"logits_to_keep": read} if known and not shares else {}
