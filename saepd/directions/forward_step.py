"""Watch the model's forward passes from outside: which tokens of each are the prompt's.

A direction's positions mean the same however text is generated: by the bridge's methods or by
transformers' ``generate``, with a cache or without, the prompt whole or in chunks, padded, in
beams, several sequences a prompt, or several tokens a step as assisted decoding proposes them.
While one of these runs, its prompt is known. In forward passes of one's own the prompt is what is
given at once, and what follows it in a cache, one token at a time, is generated.

A gate reads the prompt in a pass of its own before the prompt's first, with all steering off. What
it says is kept with the generation, or with the cache that one's own forward passes go on from.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saepd.common.errors import InputError
from saepd.directions.gate import Amounts, Gate, read_amounts
from saepd.models.position_specs import parse_positions
from saepd.models.positions import generated_mask, prompt_mask

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint
    from transformer_lens.model_bridge import TransformerBridge

_OF_THE_BRIDGE = ("generate", "generate_stream", "hf_generate")
# Transformers' continuous batching, which packs several texts into a row.
_OF_MANY_TEXTS = (
    "generate_batch",
    "init_continuous_batching",
    "continuous_batching_context_manager",
)
# Settings of transformers' generate that read other texts beside the prompt, or run foreign code.
_UNTRIED = ("guidance_scale", "negative_prompt_ids", "custom_generate", "penalty_alpha")
_UNTRIED = (*_UNTRIED, "dola_layers", "token_healing")


@dataclass
class _Generation:
    """A call of ``generate`` that is running.

    Attributes:
        prompt: Its prompt, as soon as it is known.
        attention: 1 where a column of the prompt holds a token.
        end: Columns that the passes so far have read.
        amounts: What each gate says of each prompt, as soon as they are known.
    """

    prompt: Int[Tensor, "batch prompt"] | None = None
    attention: Int[Tensor, "batch prompt"] | None = None
    end: int = 0
    amounts: Amounts | None = None


@dataclass
class _Pass:
    """What one forward pass was given.

    Attributes:
        tokens: Its input.
        real: Whether each column holds a token, from the text's start on.
        past: Columns before these.
        prompt: Of each row, from the text's start; None where it has run and is not known.
        prompt_attention: 1 where a column of the prompt holds a token.
        boundary: How many of the input's columns belong to the prompt.
        is_chunk: Whether what is fed behind a cache might be prompt or not.
    """

    tokens: Int[Tensor, "batch seq"]
    real: Bool[Tensor, "batch past_and_seq"]
    past: int
    prompt: Int[Tensor, "batch prompt"] | None
    prompt_attention: Int[Tensor, "batch prompt"] | None
    boundary: int
    is_chunk: bool
    masks: dict[str, Bool[Tensor, "batch seq"]] = field(default_factory=dict)
    amounts: Amounts = field(default_factory=dict)


class _Off(threading.local):
    """Whether a gate is reading in this thread, so that nothing may steer."""

    now: bool = False


_off = _Off()


class _Seen(threading.local):
    """What the passes of one thread were given: a model may be run from several."""

    generation: _Generation | None = None
    latest: _Pass | None = None

    def __init__(self) -> None:
        # Sites that the latest pass has come by.
        self.passed: set[str] = set()


class ForwardStep:
    """What one forward pass was given, seen from a hook: which of its tokens are the prompt's.

    Args:
        model: The language model.
        gates: What reads its prompts.
    """

    def __init__(self, model: TransformerBridge, gates: Sequence[Gate] = ()) -> None:
        self.model, self.gates = model, list(dict.fromkeys(gates))
        self._seen = _Seen()
        # What gates said of the prompts that caches hold.
        self._said: weakref.WeakKeyDictionary[Any, Amounts] = weakref.WeakKeyDictionary()

    @property
    def is_off(self) -> bool:
        """Whether the pass that runs is a gate's own, which nothing may steer."""
        return _off.now

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Take note of every forward pass inside the block."""
        hf_model: Any = self.model.original_model
        with ExitStack() as stack:
            handle = hf_model.register_forward_pre_hook(self._note, with_kwargs=True)
            stack.callback(handle.remove)
            if self.gates:
                handle = hf_model.register_forward_hook(self._keep_amounts, with_kwargs=True)
                stack.callback(handle.remove)
            drivers = [(self.model, name) for name in _OF_THE_BRIDGE] + [(hf_model, "generate")]
            for owner, name in drivers:
                stack.enter_context(self._replaced(owner, name, self._noting(owner, name)))
            for name in _OF_MANY_TEXTS:
                stack.enter_context(self._replaced(hf_model, name, _refused))
            yield

    @contextmanager
    def checking(self, point: HookPoint, hook_name: str) -> Iterator[None]:
        """Refuse, once it shows, a model that never passes a site: a direction would do nothing.

        Raises:
            InputError: from a whole forward pass that has not come by the site.
        """

        def note(_module: object, _args: object, _h: Tensor) -> None:
            if not _off.now:
                self._seen.passed.add(hook_name)

        def check(_module: object, _args: object, _output: object) -> None:
            if hook_name not in self._seen.passed:
                raise InputError(
                    f"{self.model.cfg.model_name} never passes {hook_name}, so nothing was "
                    "steered: use another site or architecture"
                )

        hf_model: Any = self.model.original_model
        handles = [point.register_forward_hook(note), hf_model.register_forward_hook(check)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @staticmethod
    @contextmanager
    def _replaced(owner: Any, name: str, method: Callable[..., Any]) -> Iterator[None]:
        """A method wrapped on the instance, since no hook tells that it runs."""
        # An enclosing `apply` has wrapped it already; its wrapper comes back afterwards.
        outer = vars(owner).get(name)
        object.__setattr__(owner, name, method)
        try:
            yield
        finally:
            if outer is None:
                object.__delattr__(owner, name)
            else:
                object.__setattr__(owner, name, outer)

    def _noting(self, owner: Any, name: str) -> Callable[..., Any]:
        method = getattr(owner, name)

        def generate(*args: Any, **kwargs: Any) -> Any:
            with self._generating(args, kwargs):
                return method(*args, **kwargs)

        def stream(*args: Any, **kwargs: Any) -> Any:
            # Between two pieces the model may be asked for something else.
            generation, pieces = _Generation(), iter(method(*args, **kwargs))
            while True:
                before, self._seen.generation = self._seen.generation, generation
                try:
                    piece = next(pieces)
                except StopIteration:
                    return
                finally:
                    self._seen.generation = before
                yield piece

        return stream if name == "generate_stream" else generate

    @contextmanager
    def _generating(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[None]:
        _refuse_untried(kwargs)
        outer = self._seen.generation
        # One method may call another: the bridge's calls transformers'.
        running = outer or _Generation()
        given = [*args[:1], kwargs.get("input_ids"), kwargs.get("inputs")]
        tokens = next((value for value in given if isinstance(value, Tensor)), None)
        if running.prompt is None and tokens is not None and tokens.ndim == 2:
            running.prompt, running.attention = tokens, kwargs.get("attention_mask")
        self._seen.generation = running
        try:
            yield
        finally:
            self._seen.generation = outer

    def _note(self, _module: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not _off.now:
            self._note_pass(args, kwargs)
            if self.gates:
                self._read_gates(kwargs)

    def _note_pass(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tokens = args[0] if args else kwargs.get("input_ids")
        if not isinstance(tokens, Tensor):
            raise InputError("steering needs token ids: the model was called with embeddings")
        running, n = self._seen.generation, tokens.shape[1]
        self._seen.passed.clear()
        past = self._columns_before(kwargs, n)
        given = kwargs.get("attention_mask")
        mask = given if isinstance(given, Tensor) and given.ndim == 2 else None
        if given is not None and mask is None and running is None:
            raise InputError(
                "steering needs an attention mask of 0 and 1, [batch, tokens]: leave out the mask "
                "of attention scores, or give it as the model's padding"
            )
        if running is None:
            attention = _guess_attention(tokens, self.model.tokenizer) if mask is None else mask
            prompt = None if past else tokens
            own = attention[:, -n:].long()
            real = torch.cat([attention.new_ones(len(tokens), past), own], 1)
            if attention.shape[1] == past + n:
                real = attention
            self._seen.latest = _Pass(
                tokens, real.bool(), past, prompt, own, 0 if past else n, bool(past) and n > 1
            )
            return
        if running.prompt is None:
            if past:
                raise InputError(
                    "steering needs the whole prompt: generate was given a cache and only the rest"
                )
            running.prompt, running.attention = tokens, mask
        running.end = past + n
        prompt = running.prompt
        copies, rest = divmod(len(tokens), len(prompt))
        if rest:
            raise InputError(
                f"steering cannot tell the {len(tokens)} texts of this step from its "
                f"{len(prompt)} prompts: generate in another way"
            )
        if running.attention is None and mask is not None and mask.shape[1] >= prompt.shape[1]:
            running.attention = mask[::copies, : prompt.shape[1]]
        attention = running.attention
        if attention is None:
            guess = _guess_attention if mask is None else _inferred_attention
            attention = guess(prompt, self.model.tokenizer)
        prompt = prompt.to(tokens.device).repeat_interleave(copies, 0)
        attention = attention.to(tokens.device).long().repeat_interleave(copies, 0)
        n_prompt = prompt.shape[1]
        behind = attention.new_ones(len(tokens), max(0, past + n - n_prompt))
        real = torch.cat([attention, behind], 1)[:, : past + n].bool()
        boundary = min(n, max(0, n_prompt - past))
        self._seen.latest = _Pass(tokens, real, past, prompt, attention, boundary, False)

    def _read_gates(self, kwargs: dict[str, Any]) -> None:
        """Find out what each gate says of the texts of this pass, or what it said before.

        Raises:
            InputError: tokens behind a cache whose prompt was not given whole while steering.
        """
        now, running = self._seen.latest, self._seen.generation
        assert now is not None
        if running is not None:
            assert running.prompt is not None
            copies = len(now.tokens) // len(running.prompt)
            if running.amounts is None:
                running.amounts = self._amounts(now, copies)
            now.amounts = {g: own.repeat_interleave(copies) for g, own in running.amounts.items()}
        elif now.prompt is not None:
            now.amounts = self._amounts(now, 1)
        else:
            cache = kwargs.get("past_key_values", kwargs.get("cache_params"))
            known = self._said.get(cache) if type(cache).__weakrefoffset__ else None
            if now.is_chunk or known is None or len(known[self.gates[0]]) != len(now.tokens):
                raise InputError(
                    "a gate reads the whole prompt, which this pass goes on from without its being "
                    "known: feed the prompt at once while steering and the rest one by one behind "
                    "the same cache, or use generate"
                )
            now.amounts = known

    def _amounts(self, now: _Pass, copies: int) -> Amounts:
        """What each gate says of every prompt of a pass that holds each of them so often."""
        assert now.prompt is not None and now.prompt_attention is not None
        pairs = zip(now.prompt[::copies], now.prompt_attention[::copies], strict=True)
        rows = [tokens[real.bool()].tolist() for tokens, real in pairs]
        _off.now = True
        try:
            return read_amounts(self.model, rows, self.gates)
        finally:
            _off.now = False

    def _keep_amounts(
        self, _module: object, _args: object, kwargs: dict[str, Any], output: Any
    ) -> None:
        """Keep what gates said with the cache, for whoever goes on from there."""
        if _off.now or self._seen.latest is None:
            return
        cache = getattr(output, "past_key_values", None) or kwargs.get("past_key_values")
        if cache is not None and type(cache).__weakrefoffset__:
            self._said[cache] = self._seen.latest.amounts

    def amounts(self, gate: Gate) -> Float[Tensor, " batch"]:
        """What a gate says of each text of the current pass."""
        assert self._seen.latest is not None
        return self._seen.latest.amounts[gate]

    def _columns_before(self, kwargs: dict[str, Any], n: int) -> int:
        cache = kwargs.get("past_key_values")
        if getattr(cache, "is_compileable", False):
            raise InputError(
                "the bridge reads the empty places of a static cache as text, steered or not: use "
                "the default cache"
            )
        if cache is not None and hasattr(cache, "get_seq_length"):
            return int(cache.get_seq_length())
        running = self._seen.generation
        if running is not None:
            # A model that keeps a state says nothing of its length. Without one, inputs grow.
            return running.end if 0 < n <= running.end else 0
        state = kwargs.get("cache_params", cache)
        return 0 if state is None else 1

    def mask(self, spec: str) -> Bool[Tensor, "batch seq"]:
        """Positions of the current input that a spec selects.

        Raises:
            InputError: positions that need to know where the prompt ends, and it cannot be known.
        """
        now, tokenizer = self._seen.latest, self.model.tokenizer
        assert now is not None
        if spec not in now.masks:
            n, kind = now.tokens.shape[1], parse_positions(spec).kind
            if now.is_chunk and kind not in ("every", "all"):
                raise InputError(
                    f"{n} tokens behind a cache may be prompt or answer, which positions {spec!r} "
                    "must know: feed the prompt at once and the rest one by one, or use generate"
                )
            parts = []
            if now.boundary:
                assert now.prompt is not None and now.prompt_attention is not None
                whole = prompt_mask(spec, now.prompt, now.prompt_attention, tokenizer)
                parts.append(whole[:, now.past : now.past + now.boundary])
            if now.boundary < n:
                behind = generated_mask(spec, now.tokens[:, now.boundary :], tokenizer)
                if kind in ("every", "all"):
                    # A row whose padding reaches this far starts here.
                    later = now.real & (now.real.cumsum(-1) > (kind == "all"))
                    behind = behind & later[:, now.past + now.boundary :]
                parts.append(behind)
            now.masks[spec] = torch.cat(parts, dim=1)
        return now.masks[spec]


def _refused(*_args: Any, **_kwargs: Any) -> Any:
    raise InputError(
        "continuous batching runs other texts beside each other, which `apply` cannot steer: "
        "use generate"
    )


def _refuse_untried(kwargs: dict[str, Any]) -> None:
    config = kwargs.get("generation_config")
    for name in _UNTRIED:
        value = kwargs.get(name, getattr(config, name, None))
        is_off = value is None or value is False or (name == "guidance_scale" and value == 1)
        if not is_off:
            raise InputError(
                f"generate with {name} reads more than the prompt and its answer, which `apply` "
                "cannot steer: leave it out"
            )


def _inferred_attention(tokens: Tensor, tokenizer: Any) -> Int[Tensor, "batch seq"]:
    """The mask that transformers' generate makes where none was given."""
    if tokenizer is None or tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        return torch.ones_like(tokens)
    return (tokens != tokenizer.pad_token_id).long()


def _guess_attention(tokens: Tensor, tokenizer: Any) -> Int[Tensor, "batch seq"]:
    """Mask for a batch that came without one: trailing runs of the padding token are padding.

    A single row is never padded. (The bridge pads lists of strings on the right and passes no
    mask, because a causal model's earlier positions cannot see the padding.)
    """
    if tokens.shape[0] == 1 or tokenizer is None or tokenizer.pad_token_id is None:
        return torch.ones_like(tokens)
    is_text = (tokens != tokenizer.pad_token_id).long()
    return (is_text.flip(-1).cumsum(-1).flip(-1) > 0).long()
