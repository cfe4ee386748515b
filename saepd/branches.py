"""Run the base model and every steered branch in one forward pass.

Below the lowest edited site all branches are the same run, and before the first edited position
too. So the pass has two parts. The tokens before the first edit run once per prompt and leave
their keys and values behind. The others enter the model once per prompt as well; at the lowest
edited site each row becomes K+1 rows (branch 0 is the base), which the remaining blocks carry on
with keys and values repeated. Hugging Face's own forward drives all of it: hooks widen the hidden
state at the site, and the masks and rotary embeddings that it hands to later blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jaxtyping import Bool, Float, Int

from saepd.directions import Direction, apply_all, check_fits, is_applied
from saepd.errors import InputError
from saepd.positions import generated_mask, prompt_mask
from saepd.prompts import PromptBatch, check_lengths, continuation_ids, pad_left, prompt_ids

if TYPE_CHECKING:
    from torch import Tensor
    from transformer_lens.hook_points import HookPoint
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import DynamicCache

Branch = Direction | Sequence[Direction]

# A shared prefix shorter than this saves less than the second pass over the weights costs.
_MIN_SHARED = 8
_TOKEN_BUDGET = 4096


@dataclass
class Plan:
    """The branches of one model, sorted out by site: what to widen where, and what to add."""

    model: TransformerBridge
    branches: list[list[Direction]]
    edits: dict[HookPoint, list[tuple[int, Direction]]] = field(init=False, default_factory=dict)
    widened_at: HookPoint | None = field(init=False)
    first_wide_block: int = field(init=False)

    def __post_init__(self) -> None:
        flat = [direction for branch in self.branches for direction in branch]
        check_fits(self.model, flat)
        points = self.model.hook_dict
        # By hook point, because one may have several names.
        for index, branch in enumerate(self.branches, 1):
            for direction in branch:
                self.edits.setdefault(points[direction.hook_name], []).append((index, direction))
        lowest = min((d.block for d in flat), default=len(self.model.blocks) - 1)
        at_lowest = {points[d.hook_name] for d in flat if d.block == lowest}
        end = points[f"blocks.{lowest}.hook_resid_post"]
        # Edits inside a block need its input widened; edits of its output can widen that.
        self.widened_at = end if at_lowest <= {end} else None
        self.first_wide_block = lowest if self.widened_at is None else lowest + 1

    @property
    def n_branches(self) -> int:
        """K+1: the base and every steered branch."""
        return len(self.branches) + 1

    @property
    def specs(self) -> list[str]:
        """Every position spec in use, once; that of an answer where nothing is steered."""
        used = dict.fromkeys(d.positions for branch in self.branches for d in branch)
        return list(used) or ["answer"]


@dataclass
class State:
    """Where the branches of a batch of prompts stand after their last token.

    ``log_probs`` [batch, K+1, vocab] (nats) are of the next token. Below the first wide block the
    cache holds one row per prompt, above it K+1 rows per prompt.
    """

    plan: Plan
    cache: DynamicCache
    attention: Int[Tensor, "batch seq"]
    log_probs: Float[Tensor, "batch branches vocab"]


def branch(
    model: TransformerBridge,
    prompts: Sequence[str],
    directions: Sequence[Branch],
    *,
    reference: bool = False,
) -> Float[Tensor, "batch branches vocab"]:
    """Next-token log-probs of the base model (branch 0) and of every direction (1..K).

    Args:
        model: From `saepd.load_model`.
        prompts: Texts of any lengths.
        directions: One entry a branch; an entry of several directions applies them together.
        reference: Run K+1 separate hooked forwards instead: slow, for checking this function.

    Returns:
        Log-probs in nats, on the CPU, in the order of the prompts.

    Raises:
        InputError: no prompts, an empty or too long one, no directions, or one that does not fit.
    """
    if not directions:
        raise InputError("no directions: give at least one to branch into")
    return next_token_log_probs(model, prompts, directions, reference=reference)


def next_token_log_probs(
    model: TransformerBridge,
    prompts: Sequence[str],
    directions: Sequence[Branch],
    *,
    reference: bool = False,
) -> Float[Tensor, "batch branches vocab"]:
    """`branch`, but without directions the base is read alone: [batch, 1, vocab]."""
    import torch

    rows = check_prompts(model, prompts)
    plan = make_plan(model, directions)
    result: list[torch.Tensor] = [torch.empty(0)] * len(rows)
    for indices in packs([len(row) for row in rows], plan.n_branches):
        batch = pad_left(model, [rows[i] for i in indices])
        log_probs = _hooked(plan, batch) if reference else start(plan, batch).log_probs
        for i, values in zip(indices, log_probs.cpu(), strict=True):
            result[i] = values
    return torch.stack(result)


def score_continuations(
    model: TransformerBridge,
    prompts: Sequence[str],
    continuations: Sequence[Sequence[str]],
    directions: Sequence[Branch],
) -> list[tuple[Float[Tensor, "branches options"], list[int]]]:
    """Log-likelihood of each continuation of each prompt, under the base and every branch.

    Without directions only the base is scored. The prompt runs once; its continuations are short
    rows on top of its keys and values.

    Returns:
        For each prompt: summed log-probs in nats, and the number of tokens of each continuation.

    Raises:
        InputError: as `branch`, or a prompt without continuations.
    """
    import torch

    rows = check_prompts(model, prompts)
    plan = make_plan(model, directions)
    if len(continuations) != len(rows) or not all(continuations):
        raise InputError("every prompt needs at least one option to score")
    options = [
        [continuation_ids(model.tokenizer, prompt, text) for text in texts]
        for prompt, texts in zip(prompts, continuations, strict=True)
    ]
    check_lengths(model, rows, room=[max(map(len, tokens)) for tokens in options])
    result: list[tuple[torch.Tensor, list[int]]] = [(torch.empty(0), [])] * len(rows)
    widths = [len(row) + sum(map(len, tokens)) for row, tokens in zip(rows, options, strict=True)]
    for indices in packs(widths, plan.n_branches):
        state = start(plan, pad_left(model, [rows[i] for i in indices]), keep_cache=True)
        scores = _score_options(state, [options[i] for i in indices])
        for i, values in zip(indices, scores, strict=True):
            result[i] = (values.cpu(), [len(tokens) for tokens in options[i]])
    return result


def make_plan(model: TransformerBridge, directions: Sequence[Branch]) -> Plan:
    """Check the branches and sort them out by site; without any, only the base will run.

    Raises:
        InputError: an empty branch, one that does not fit the model, or a model that `apply`
            is steering.
    """
    branches = [[b] if isinstance(b, Direction) else list(b) for b in directions]
    if is_applied(model):
        # Prompts run in parts here, which a direction acting from outside would misread.
        raise InputError(
            "the model is being steered by `apply` already: leave that block, and give its "
            "directions as a branch"
        )
    if not all(branches):
        raise InputError("a branch has no directions: give it at least one")
    return Plan(model, branches)


def packs(lengths: Sequence[int], n_branches: int) -> Iterator[list[int]]:
    """Indices in groups of like length, each group within the token budget."""
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if group and (len(group) + 1) * lengths[group[0]] * n_branches > _TOKEN_BUDGET:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def start(plan: Plan, batch: PromptBatch, *, keep_cache: bool = False) -> State:
    """Run prompts up to the next-token distributions of all branches.

    Args:
        plan: The branches.
        batch: Left-padded prompts.
        keep_cache: Keep keys and values, for continuations or generation.
    """
    import torch
    from transformers import DynamicCache

    model = plan.model
    masks = {
        spec: prompt_mask(spec, batch.tokens, batch.attention, model.tokenizer)
        for spec in plan.specs
    }
    length = batch.tokens.shape[1]
    edited = torch.stack(list(masks.values())).flatten(0, 1).any(0)
    # The last position always runs wide, since it is the one that is read.
    first = min(int(edited.int().argmax()) if bool(edited.any()) else length - 1, length - 1)
    if first < _MIN_SHARED:
        first = 0
    hf_config: Any = model.original_model.config
    cache = DynamicCache(config=hf_config)
    with torch.inference_mode():
        if first:
            _forward(model, batch, slice(0, first), cache, read=1)
            widen_cache(plan, cache)
        with _widening(plan, {spec: mask[:, first:] for spec, mask in masks.items()}):
            hold = cache if keep_cache or first else None
            logits = _forward(model, batch, slice(first, length), hold, read=1)
        log_probs = logits[:, -1].float().log_softmax(-1)
    rows = log_probs.view(-1, plan.n_branches, log_probs.shape[-1])
    return State(plan, cache, batch.attention, rows)


def widen_cache(plan: Plan, cache: DynamicCache) -> None:
    """Repeat the keys and values of the blocks that run wide, K+1 rows for each prompt."""
    layers: list[Any] = cache.layers[plan.first_wide_block :]
    for layer in layers:
        layer.batch_repeat_interleave(plan.n_branches)


def extend(
    state: State, tokens: Int[Tensor, "batch new"], real: Int[Tensor, "batch new"]
) -> Float[Tensor, "batch branches new vocab"]:
    """Feed further tokens to every branch; the state's cache and mask grow by them.

    Returns:
        Log-probs in nats of the token after each of the new ones.
    """
    import torch

    plan = state.plan
    before = state.attention.shape[1]
    state.attention = torch.cat([state.attention, real], dim=1)
    tokens_all = torch.cat([torch.zeros_like(state.attention[:, :before]), tokens], dim=1)
    batch = PromptBatch(tokens_all, state.attention)
    masks = {
        spec: generated_mask(spec, tokens, plan.model.tokenizer) & real.bool()
        for spec in plan.specs
    }
    with torch.inference_mode(), _widening(plan, masks):
        new = slice(before, before + tokens.shape[1])
        logits = _forward(plan.model, batch, new, state.cache, read=tokens.shape[1])
        log_probs = logits.float().log_softmax(-1)
    return log_probs.view(-1, plan.n_branches, *log_probs.shape[1:])


def _score_options(state: State, options: list[list[list[int]]]) -> list[Tensor]:
    """Summed log-probs [K+1, n_options] of each prompt's options."""
    import torch

    device = state.log_probs.device
    owner = torch.tensor([i for i, texts in enumerate(options) for _ in texts], device=device)
    flat = [tokens for texts in options for tokens in texts]
    longest = max(map(len, flat))
    padded = torch.tensor([t + [0] * (longest - len(t)) for t in flat], device=device)
    real = torch.tensor([[1] * len(t) + [0] * (longest - len(t)) for t in flat], device=device)
    # [options, branches]: the first token is read from the prompt's own last position.
    total = state.log_probs[owner].gather(
        2, padded[:, :1].unsqueeze(1).expand(-1, state.plan.n_branches, -1)
    )[..., 0]
    if longest > 1:
        rows = _select_rows(state, owner)
        log_probs = extend(rows, padded[:, :-1], real[:, :-1])
        following = padded[:, 1:].unsqueeze(1).unsqueeze(-1)
        each = log_probs.gather(3, following.expand(-1, state.plan.n_branches, -1, -1)).squeeze(-1)
        total = total + (each * real[:, 1:].unsqueeze(1)).sum(-1)
    return list(total.T.split([len(texts) for texts in options], dim=1))


def _select_rows(state: State, owner: Int[Tensor, " rows"]) -> State:
    """The same state with one row for every entry of ``owner``, the index of its prompt."""
    import torch

    n = state.plan.n_branches
    wide = (owner.unsqueeze(1) * n + torch.arange(n, device=owner.device)).flatten()
    layers: list[Any] = state.cache.layers
    for index, layer in enumerate(layers):
        layer.batch_select_indices(owner if index < state.plan.first_wide_block else wide)
    return State(state.plan, state.cache, state.attention[owner], state.log_probs[owner])


def _forward(
    model: TransformerBridge,
    batch: PromptBatch,
    columns: slice,
    cache: DynamicCache | None,
    *,
    read: int,
) -> Float[Tensor, "rows read vocab"]:
    """Hugging Face's forward on some columns, with logits only of the last ``read`` positions."""

    def keep_last(_module: object, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0][:, -read:], *args[1:])

    handle = model.unembed.register_forward_pre_hook(keep_last)
    try:
        output = model.original_model(
            input_ids=batch.tokens[:, columns],
            attention_mask=batch.attention[:, : columns.stop],
            position_ids=batch.position_ids[:, columns],
            past_key_values=cache,
            use_cache=cache is not None,
        )
    finally:
        handle.remove()
    return output.logits


@contextmanager
def _widening(plan: Plan, masks: dict[str, Bool[Tensor, "batch seq"]]) -> Iterator[None]:
    """Hooks that turn each row into K+1 rows at the lowest site, and edit every site."""
    n = plan.n_branches
    batch = next(iter(masks.values())).shape[0]

    def widen(value: Any) -> Any:
        import torch

        if isinstance(value, tuple):
            return tuple(widen(part) for part in value)
        # What is given once for the whole batch broadcasts over the added rows as well.
        if isinstance(value, torch.Tensor) and value.ndim > 1 and value.shape[0] == batch > 1:
            return value.repeat_interleave(n, dim=0)
        return value

    def widen_block_input(
        block: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        wide_args = [widen(arg) for arg in args]
        wide_kwargs = {name: widen(value) for name, value in kwargs.items()}
        is_first = block is plan.model.blocks[plan.first_wide_block]
        if "hidden_states" in kwargs:
            hidden, place, key = kwargs["hidden_states"], wide_kwargs, "hidden_states"
        else:
            hidden, place, key = args[0], wide_args, 0
        widen_here = is_first and plan.widened_at is None
        place[key] = hidden.repeat_interleave(n, dim=0) if widen_here else hidden  # type: ignore[index]
        return tuple(wide_args), wide_kwargs

    with ExitStack() as stack:
        for block in list(plan.model.blocks)[plan.first_wide_block :]:
            handle = block.register_forward_pre_hook(widen_block_input, with_kwargs=True)
            stack.callback(handle.remove)

        def edit(module: Any, _args: object, h: Tensor) -> Float[Tensor, "rows seq d_model"]:
            if module is plan.widened_at:
                wide = h.unsqueeze(1).expand(-1, n, -1, -1)
            else:
                wide = h.view(-1, n, *h.shape[1:])
            return _edited(plan.edits[module], wide, masks).flatten(0, 1)

        for point in plan.edits:
            stack.callback(point.register_forward_hook(edit).remove)
        yield


def _edited(
    edits: list[tuple[int, Direction]],
    wide: Float[Tensor, "batch branches seq d_model"],
    masks: dict[str, Bool[Tensor, "batch seq"]],
) -> Float[Tensor, "batch branches seq d_model"]:
    """Each branch's rows with its own directions at a site added."""
    out = wide.clone()
    for index, direction in edits:
        mask = masks[direction.positions].unsqueeze(-1)
        out[:, index] += direction.delta(wide[:, index]) * mask.to(wide.dtype)
    return out


def _hooked(plan: Plan, batch: PromptBatch) -> Float[Tensor, "batch branches vocab"]:
    """The reference: one ordinary hooked forward for every branch."""
    import torch

    rows = []
    with torch.inference_mode():
        for directions in [[], *plan.branches]:
            with apply_all(plan.model, directions):
                logits = _forward(plan.model, batch, slice(0, batch.tokens.shape[1]), None, read=1)
            rows.append(logits[:, -1].float().log_softmax(-1))
    return torch.stack(rows, dim=1)


def check_prompts(model: TransformerBridge, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of prompts that can be run.

    Raises:
        InputError: no prompts, an empty one, or one longer than the model's context.
    """
    if isinstance(prompts, str) or not prompts:
        raise InputError("give a list of at least one prompt")
    rows = [prompt_ids(model.tokenizer, prompt) for prompt in prompts]
    check_lengths(model, rows)
    return rows
