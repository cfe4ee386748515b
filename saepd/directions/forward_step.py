"""Watch the model's forward passes from outside: which tokens of each are the prompt's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from saepd.common.errors import InputError
from saepd.models.positions import generated_mask, prompt_mask

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


class ForwardStep:
    """What one forward pass was given, seen from a hook: which of its tokens are the prompt's.

    Tokens are generated if a cache already holds earlier ones, or if a running ``generate`` call
    has seen a shorter input before; everything else is prompt.
    """

    def __init__(self, model: TransformerBridge) -> None:
        self.model = model
        self._generating = False
        self._prompt_length: int | None = None
        self._tokens = self._attention = torch.zeros(1, 0, dtype=torch.long)
        self._past = 0
        self._masks: dict[str, torch.Tensor] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Take note of every forward pass inside the block."""
        with ExitStack() as stack:
            handle = self.model.original_model.register_forward_pre_hook(
                self._note, with_kwargs=True
            )
            stack.callback(handle.remove)
            for name in ("generate", "generate_stream", "hf_generate"):
                stack.enter_context(self._noting_generation(name))
            yield

    @contextmanager
    def _noting_generation(self, name: str) -> Iterator[None]:
        # The bridge's own method is wrapped on the instance, since no hook tells that it runs.
        method = getattr(self.model, name)

        def start(*args: Any, **kwargs: Any) -> Any:
            self._generating, self._prompt_length = True, None
            return method(*args, **kwargs)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            try:
                return start(*args, **kwargs)
            finally:
                self._generating = False

        def wrapped_stream(*args: Any, **kwargs: Any) -> Any:
            try:
                yield from start(*args, **kwargs)
            finally:
                self._generating = False

        stream = name == "generate_stream"
        # An enclosing `apply` has wrapped it already; its wrapper comes back afterwards.
        outer = vars(self.model).get(name)
        object.__setattr__(self.model, name, wrapped_stream if stream else wrapped)
        try:
            yield
        finally:
            if outer is None:
                object.__delattr__(self.model, name)
            else:
                object.__setattr__(self.model, name, outer)

    def _note(self, _module: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tokens = args[0] if args else kwargs.get("input_ids")
        if not isinstance(tokens, torch.Tensor):
            raise InputError("steering needs token ids: the model was called with embeddings")
        cache = kwargs.get("past_key_values")
        self._past = int(cache.get_seq_length()) if cache is not None else 0
        if self._generating and self._prompt_length is None:
            self._prompt_length = self._past + tokens.shape[1]
        attention = kwargs.get("attention_mask")
        if attention is None:
            attention = _guess_attention(tokens, self.model.tokenizer)
        self._tokens, self._attention = tokens, attention[:, -tokens.shape[1] :].long()
        self._masks = {}

    def mask(self, spec: str) -> torch.Tensor:
        """Positions [batch, seq] of the current input that a spec selects."""
        if spec not in self._masks:
            tokenizer, length = self.model.tokenizer, self._tokens.shape[1]
            boundary = 0 if self._past else length
            if self._generating and self._prompt_length is not None:
                boundary = min(length, max(0, self._prompt_length - self._past))
            parts = []
            if boundary:
                parts.append(
                    prompt_mask(
                        spec, self._tokens[:, :boundary], self._attention[:, :boundary], tokenizer
                    )
                )
            if boundary < length:
                parts.append(generated_mask(spec, self._tokens[:, boundary:], tokenizer))
            self._masks[spec] = torch.cat(parts, dim=1)
        return self._masks[spec]


def _guess_attention(tokens: torch.Tensor, tokenizer: Any) -> torch.Tensor:
    """Mask for a batch that came without one: trailing runs of the padding token are padding.

    A single row is never padded. (The bridge pads lists of strings on the right and passes no
    mask, because a causal model's earlier positions cannot see the padding.)
    """
    if tokens.shape[0] == 1 or tokenizer is None or tokenizer.pad_token_id is None:
        return torch.ones_like(tokens)
    is_text = (tokens != tokenizer.pad_token_id).long()
    return (is_text.flip(-1).cumsum(-1).flip(-1) > 0).long()
