"""Watch the model's forward passes from outside: which tokens of each are the prompt's.

A direction's positions mean the same however text is generated: by the bridge's methods or by
transformers' ``generate``, with a cache or without, the prompt whole or in chunks, padded, in
beams, several sequences a prompt, or several tokens a step as assisted decoding proposes them.

A gate reads the prompt in a pass of its own before the prompt's first, with all steering off. What
it says is kept with the generation, or with the cache that one's own forward passes go on from.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from jaxtyping import Bool, Float
from torch import Tensor

from saepd.common.errors import InputError
from saepd.directions.forward_pass import ForwardPass, Generation, read_pass
from saepd.directions.gate import Amounts, Gate, read_amounts

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
_UNTRIED = (
    "guidance_scale",
    "negative_prompt_ids",
    "custom_generate",
    "penalty_alpha",
    "dola_layers",
    "token_healing",
)


class _Off(threading.local):
    """Whether a gate is reading in this thread, so that nothing may steer."""

    now: bool = False


_off = _Off()


class _Seen(threading.local):
    """What the passes of one thread were given: a model may be run from several."""

    generation: Generation | None = None
    latest: ForwardPass | None = None

    def __init__(self) -> None:
        # Sites that the latest pass has come by.
        self.passed: set[str] = set()


class PassWatcher:
    """Sees every forward pass from a hook: which tokens are the prompt's, and what gates say.

    Args:
        model: The language model.
        gates: What reads its prompts.
    """

    def __init__(self, model: TransformerBridge, gates: Sequence[Gate] = ()) -> None:
        self.model, self.gates = model, list(dict.fromkeys(gates))
        self._seen = _Seen()
        # Arguments of the model's forward, in their order.
        self._names = list(inspect.signature(model.original_model.forward).parameters)
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
            generation, pieces = Generation(), iter(method(*args, **kwargs))
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
        running = outer or Generation()
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
            # A mask or a cache may be given by its place as well as by its name.
            kwargs = {**dict(zip(self._names, args, strict=False)), **kwargs}
            self._seen.passed.clear()
            self._seen.latest = read_pass(kwargs, self._seen.generation, self.model.tokenizer)
            if self.gates:
                self._read_gates(kwargs)

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
            now.amounts = {
                g: amount.repeat_interleave(copies) for g, amount in running.amounts.items()
            }
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

    def _amounts(self, now: ForwardPass, copies: int) -> Amounts:
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

    def mask(self, spec: str) -> Bool[Tensor, "batch seq"]:
        """Positions of the current input that a spec selects.

        Raises:
            InputError: positions that need to know where the prompt ends, and it cannot be known.
        """
        assert self._seen.latest is not None
        return self._seen.latest.mask(spec, self.model.tokenizer)


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
