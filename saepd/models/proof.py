"""Proof that a bridge computes what the model does in transformers, made once and remembered.

A bridge takes a model's modules apart, and not every architecture survives that: a mask may be
lost, a window ignored. So the log-probabilities of transformers' own forward are taken before the
bridge is built, and compared with the bridge's afterwards.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from saepd.common.errors import InputError
from saepd.common.files import write_json
from saepd.models.cache import cache_dir
from saepd.models.device import computing_dtype
from saepd.models.identity import weights_fingerprint
from saepd.models.windows import attention_windows

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

SHORT_TEXT = "The ferry is late again."
LONG_TEXT = (
    "The ferry leaves the old harbour twice a day. Most of the passengers work in town, though in "
    "summer there are visitors too. If the wind is strong, the captain waits, and somebody in the "
    "cafe by the pier usually starts a conversation about the next election."
)

TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.bfloat16: 0.3, torch.float16: 0.05}
# Tokens less likely than this are not compared: no answer depends on them, and their
# log-probabilities carry most of the rounding.
MIN_PROBABILITY = 1e-4

_LONG_TOKENS = 48
_STEPS = 3
# Beyond a window of attention, so that it is seen to close.
_BEYOND = 16
# What the longest text may cost: multiplications on a CPU, and on anything else.
_CPU_WORK, _DEVICE_WORK = 4e11, 1e14


@dataclass(frozen=True)
class Comparison:
    """One way of running a text, and how far it is from transformers' own forward.

    Attributes:
        what: How the text was run.
        n_tokens: Length of the longest text.
        difference: Largest difference of a next-token log-probability, in nats.
    """

    what: str
    n_tokens: int
    difference: float


@dataclass(frozen=True)
class Proof:
    """What was compared between a bridge and transformers' own forward.

    Attributes:
        comparisons: Each way of running the probe texts.
        tolerance: The difference that rounding in the model's precision explains, in nats.
        texts: The probe texts; the second is repeated up to the length of the model's window.
        attention: The implementation of attention that was compared.
        untested: What the probe could not reach, in words; empty if there is nothing.
    """

    comparisons: tuple[Comparison, ...]
    tolerance: float
    texts: tuple[str, ...]
    attention: str
    untested: str = ""

    @property
    def difference(self) -> float:
        """The largest difference of all, in nats; infinity where a run failed."""
        return max(c.difference for c in self.comparisons)

    @property
    def holds(self) -> bool:
        """Whether the bridge computes what transformers does."""
        return self.difference <= self.tolerance


@dataclass(frozen=True)
class Probe:
    """Probe texts as tokens, with what transformers' own forward makes of them.

    Attributes:
        rows: Token ids of each text.
        log_probs: Next-token log-probabilities of each text, in nats.
        untested: What the texts are too short for, in words; empty if nothing.
    """

    rows: list[list[int]]
    log_probs: list[Float[Tensor, "seq vocab"]]
    untested: str = ""


def take_probe(hf_model: Any, tokenizer: Any, name: str) -> Probe:
    """Run the probe texts through a model as transformers loaded it, before it is bridged.

    Raises:
        InputError: the model's own output is not finite in its precision, or it cannot run.
    """
    rows, untested = _probe_rows(hf_model, tokenizer)
    device = next(hf_model.parameters()).device
    log_probs = []
    with torch.inference_mode():
        for row in rows:
            logits = hf_model(input_ids=torch.tensor([row], device=device), use_cache=False).logits
            if not bool(torch.isfinite(logits).all()):
                dtype = str(computing_dtype(hf_model)).removeprefix("torch.")
                raise InputError(
                    f"{name} computes infinity or not-a-number in {dtype} on a plain text: load it "
                    "in float32 or bfloat16"
                    if dtype == "float16"
                    else f"{name} computes infinity or not-a-number on a plain text: its weights "
                    "are damaged"
                )
            log_probs.append(_log_probs(logits[0]))
    return Probe(rows, log_probs, untested)


def prove(model: TransformerBridge, probe: Probe) -> Proof:
    """Compare a bridge with transformers' own forward: whole, cached, and padded on the left."""
    short, long = probe.rows
    runs = {
        "whole, a short text": (lambda: [_whole(model, short)], probe.log_probs[:1]),
        "whole, a long text": (lambda: [_whole(model, long)], probe.log_probs[1:]),
        "with a cache": (lambda: [_cached(model, long)], [probe.log_probs[1][-_STEPS - 1 :]]),
        "padded in a batch": (lambda: _padded(model, probe.rows), probe.log_probs),
    }
    comparisons = []
    with torch.inference_mode():
        for what, (run, expected) in runs.items():
            try:
                log_probs = run()
            except Exception:
                # A bridge that cannot run this way fails with whatever its parts stumble over.
                difference = float("inf")
            else:
                pairs = zip(log_probs, expected, strict=True)
                difference = max(_difference(a, b) for a, b in pairs)
            length = len(short) if what.endswith("short text") else len(long)
            comparisons.append(Comparison(what, length, difference))
    dtype = computing_dtype(model.original_model)
    return Proof(
        tuple(comparisons),
        TOLERANCE.get(dtype, TOLERANCE[torch.bfloat16]),
        (SHORT_TEXT, LONG_TEXT),
        str(getattr(model.original_model.config, "_attn_implementation", "")),
        probe.untested,
    )


def proof_file(hf_model: Any) -> Path:
    """Where the proof of a model is remembered: by its weights, its configuration and versions."""
    parameter = next(hf_model.parameters())
    made_of = [
        weights_fingerprint(hf_model),
        hf_model.config.to_json_string(),
        str(computing_dtype(hf_model)),
        parameter.device.type,
        *(metadata.version(p) for p in ("torch", "transformers", "transformer-lens", "saepd")),
    ]
    digest = hashlib.sha256("\0".join(made_of).encode()).hexdigest()
    return cache_dir() / "proofs" / f"{digest[:32]}.json"


def remember(proof: Proof, path: Path) -> None:
    """Write a proof down; a cache that cannot be written to costs time and nothing else."""
    try:
        write_json(path, asdict(proof))
    except OSError:
        return


def remembered(path: Path) -> Proof | None:
    """The proof in a file, if it is there and whole."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        stored["comparisons"] = tuple(Comparison(**c) for c in stored["comparisons"])
        stored["texts"] = tuple(stored["texts"])
        return Proof(**stored)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _probe_rows(hf_model: Any, tokenizer: Any) -> tuple[list[list[int]], str]:
    config = hf_model.config.get_text_config()
    n_context = int(getattr(config, "max_position_embeddings", None) or _LONG_TOKENS)
    windows = attention_windows(hf_model)
    wanted = max([_LONG_TOKENS, *(w + _BEYOND for w in windows)])
    parameters = sum(p.numel() for p in hf_model.parameters())
    on_cpu = next(hf_model.parameters()).device.type == "cpu"
    affordable = int((_CPU_WORK if on_cpu else _DEVICE_WORK) / parameters)
    length = min(wanted, n_context, max(_LONG_TOKENS, affordable))
    untested = ""
    if length < wanted and windows and length <= max(windows):
        untested = f"texts longer than the model's window of {max(windows)} tokens"
    short, long = (tokenizer(text).input_ids for text in (SHORT_TEXT, LONG_TEXT))
    while len(long) < length:
        long = long + tokenizer(" " + LONG_TEXT, add_special_tokens=False).input_ids
    return [short[:length], long[:length]], untested


def _log_probs(logits: Float[Tensor, "seq vocab"]) -> Float[Tensor, "seq vocab"]:
    return logits.float().log_softmax(-1).cpu()


def _difference(log_probs: Tensor, expected: Tensor) -> float:
    """Largest difference over the likely tokens; infinity for anything that is no number."""
    # Of a model that was never trained, no token is likely: then the likeliest one counts.
    likely = expected >= min(math.log(MIN_PROBABILITY), float(expected.max()))
    if not bool(likely.any()):
        return float("inf")
    difference = (log_probs - expected).abs()[likely].max()
    return float(difference.nan_to_num(nan=float("inf")))


def _whole(model: TransformerBridge, row: list[int]) -> Tensor:
    return _log_probs(model(_on_device(model, [row]))[0])


def _cached(model: TransformerBridge, row: list[int]) -> Tensor:
    """The last tokens one by one, behind a cache of all before them."""
    original: Any = model.original_model
    tokens = _on_device(model, [row])
    name = "cache_params" if "cache_params" in _accepted(original) else "past_key_values"
    out = original(input_ids=tokens[:, :-_STEPS], use_cache=True)
    logits = [out.logits[0, -1:]]
    for i in range(tokens.shape[1] - _STEPS, tokens.shape[1]):
        past = {name: getattr(out, name)}
        out = original(input_ids=tokens[:, i : i + 1], use_cache=True, **past)
        logits.append(out.logits[0])
    return _log_probs(torch.cat(logits))


def _padded(model: TransformerBridge, rows: list[list[int]]) -> list[Tensor]:
    original: Any = model.original_model
    length = max(map(len, rows))
    tokens = _on_device(model, [[0] * (length - len(row)) + row for row in rows])
    mask = _on_device(model, [[0] * (length - len(row)) + [1] * len(row) for row in rows])
    places: dict[str, Any] = {}
    if "position_ids" in _accepted(original):
        places["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    out = original(input_ids=tokens, attention_mask=mask, use_cache=False, **places)
    return [_log_probs(out.logits[i, -len(row) :]) for i, row in enumerate(rows)]


def _accepted(module: Any) -> set[str]:
    return set(inspect.signature(module.forward).parameters)


def _on_device(model: TransformerBridge, rows: list[list[int]]) -> Tensor:
    return torch.tensor(rows, device=next(model.original_model.parameters()).device)
