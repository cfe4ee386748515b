"""Try every architecture as a tiny random model, each against an independent computation.

    python scripts/architectures.py                       # all of them, into artifacts/results
    python scripts/architectures.py --only llama mamba    # some, again

What is asked of each: does the bridge give transformers' own next-token log-probs; on which path do
branches run (fast, or the reference); do option scores, `direction.apply` and generated text under
a direction agree with plain transformers: one text at a time, no batch, no cache, a hook of its own
on the block. Each is right within 1e-4 nats, or refused in one sentence. Rows are kept as they
finish; a second start goes on behind the last one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import re
import sys
import tempfile
import textwrap
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "tests")]

from architecture_configs import CONFIGS, tokenizer  # noqa: E402
from tiny import save_random  # noqa: E402

from saepd.branches import fast_path  # noqa: E402
from saepd.branches.run import score_continuations  # noqa: E402
from saepd.branches.writing.config import SamplingConfig  # noqa: E402
from saepd.branches.writing.generate import generate_branches  # noqa: E402
from saepd.common.errors import InputError  # noqa: E402
from saepd.common.files import write_json  # noqa: E402
from saepd.directions.direction import Direction  # noqa: E402
from saepd.directions.edits import AddVector  # noqa: E402
from saepd.models.load import load_model  # noqa: E402
from saepd.models.tokens import prompt_ids  # noqa: E402

TOLERANCE = 1e-4
WIDTH, BLOCK = 32, 1
N_NEW = 4
# The first is shorter and the second longer than any window of these models, 16.
PROMPTS = ("Is it so?", "The town council asked whether the park should stay open at night:")
OPTIONS = ("Very good", "Very bad", "No")
POSITIONS = ("answer", "all")
COLUMNS = ("bridge", "path", "scores", "apply", "generate")


def main() -> None:
    """Try what has not been tried, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Plain)
    parser.add_argument("--out", type=Path, default=Path("artifacts/results"))
    parser.add_argument("--only", nargs="*", default=[], help="try these, whether done or not")
    options = parser.parse_args()
    torch.set_num_threads(1)
    file = options.out / "architectures.json"
    rows = json.loads(file.read_text()) if file.is_file() else {}
    names = options.only or [name for name in CONFIGS if name not in rows]
    for name in names:
        started = time.perf_counter()
        rows[name] = row_of(name)
        print(f"{name}: {rows[name]} ({time.perf_counter() - started:.1f} s)", flush=True)
        write_json(file, {known: rows[known] for known in CONFIGS if known in rows})
    done = {name: rows[name] for name in CONFIGS if name in rows}
    (options.out / "architectures.md").write_text(table(done))


class _Plain(argparse.RawDescriptionHelpFormatter):
    """Shows the docstring as it is written."""


def table(rows: dict[str, dict[str, str]]) -> str:
    """The rows in Markdown, and how many went which way."""
    lines = ["| architecture | " + " | ".join(COLUMNS) + " |", "| --- |" + " --- |" * len(COLUMNS)]
    for name in sorted(rows):
        lines.append(f"| {name} | " + " | ".join(rows[name][c] for c in COLUMNS) + " |")
    return "\n".join(lines) + "\n"


def row_of(name: str) -> dict[str, str]:
    """What came of one architecture, a phrase for each column."""
    row: dict[str, str] = dict.fromkeys(COLUMNS, "")
    with tempfile.TemporaryDirectory() as above, _quiet():
        folder = str(Path(above) / "tiny")
        tok = tokenizer()
        try:
            torch.manual_seed(0)
            save_random(CONFIGS[name](tok), tok, Path(folder))
            plain = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
            _plain_log_probs(plain, [1, 2, 3], None, 0)
        except Exception as error:
            return {**row, "bridge": f"not made: {_first_words(error)}"}
        try:
            model = load_model(folder, device="cpu")
        except InputError as error:
            return {**row, "bridge": f"refused: {_first_words(error)}"}
        except Exception as error:
            return {**row, "bridge": f"TRACEBACK: {_first_words(error)}"}
        prompts = [prompt_ids(model.tokenizer, prompt) for prompt in PROMPTS]
        row["bridge"] = _judged(lambda: _bridge(model, plain, prompts))
        vector = torch.randn(WIDTH, generator=torch.Generator().manual_seed(0))
        row["scores"] = _judged(lambda: _scores(model, plain, prompts, vector))
        row["path"] = _path(model)
        row["apply"] = _judged(lambda: _apply(model, plain, prompts, vector))
        row["generate"] = _judged(lambda: _generate(model, plain, prompts, vector))
    return row


def _path(model: Any) -> str:
    try:
        beyond = fast_path.is_proven(model, 80)
        if beyond:
            return "fast"
        return (
            "fast, reference beyond its window" if fast_path.is_proven(model, 10) else "reference"
        )
    except InputError:
        return "none"
    except Exception as error:
        return f"TRACEBACK: {_first_words(error)}"


def _judged(off: Any) -> str:
    """Right, refused, or how wrong."""
    try:
        difference = off()
    except InputError as error:
        return f"refused: {_first_words(error)}"
    except Exception as error:
        if os.environ.get("TRACE"):
            traceback.print_exc()
        return f"TRACEBACK: {_first_words(error)}"
    return "right" if difference <= TOLERANCE else f"WRONG by {difference:.2g}"


def _first_words(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
    said = re.sub(r"'?/\S+/tiny'?", "tiny", kind + lines[0]).replace("|", "/")
    return textwrap.shorten(said, 200, placeholder=" ...")


def _bridge(model: Any, plain: Any, prompts: list[list[int]]) -> float:
    worst = 0.0
    for prompt in prompts:
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            ours = model(ids)[0].log_softmax(-1)
        worst = max(worst, _difference(ours, _plain_log_probs(plain, prompt, None, 0)))
    return worst


def _scores(model: Any, plain: Any, prompts: list[list[int]], vector: Tensor) -> float:
    """Options of all prompts at once, under two directions, against one text at a time."""
    directions = [_direction(vector, positions) for positions in POSITIONS]
    scored = score_continuations(model, PROMPTS, [OPTIONS] * len(PROMPTS), directions)
    worst = 0.0
    for prompt, (scores, _) in zip(prompts, scored, strict=True):
        for column, option in enumerate(OPTIONS):
            text = model.tokenizer(f" {option}", add_special_tokens=False).input_ids
            for branch, first in enumerate((None, len(prompt) - 1, 1)):
                edit = None if first is None else vector
                every = _plain_log_probs(plain, prompt + text, edit, first or 0)
                right = sum(every[len(prompt) - 1 + i, t] for i, t in enumerate(text))
                worst = max(worst, _difference(scores[branch, column], right))
    return worst


def _apply(model: Any, plain: Any, prompts: list[list[int]], vector: Tensor) -> float:
    worst = 0.0
    for positions, first in (("answer", -1), ("all", 1)):
        for prompt in prompts:
            with torch.inference_mode(), _direction(vector, positions).apply(model):
                ours = model(torch.tensor([prompt]))[0].log_softmax(-1)
            right = _plain_log_probs(plain, prompt, vector, first % len(prompt))
            worst = max(worst, _difference(ours, right))
    return worst


def _generate(model: Any, plain: Any, prompts: list[list[int]], vector: Tensor) -> float:
    """How far behind the best token any written one is, read again by plain transformers."""
    generated = generate_branches(
        model, PROMPTS, [_direction(vector, "answer")], SamplingConfig(max_new_tokens=N_NEW)
    )
    worst = 0.0
    for prompt, texts in zip(prompts, generated, strict=True):
        for edit, text in zip((None, vector), texts, strict=True):
            tokens = list(text.tokens)
            every = _plain_log_probs(plain, prompt + tokens, edit, len(prompt) - 1)
            read = every[len(prompt) - 1 : len(prompt) - 1 + len(tokens)]
            chosen = read.gather(1, torch.tensor(tokens, dtype=torch.long).unsqueeze(1))[:, 0]
            if len(tokens):
                worst = max(worst, float((read.amax(1) - chosen).max()))
    return worst


def _direction(vector: Tensor, positions: str) -> Direction:
    return Direction("A", f"blocks.{BLOCK}.hook_resid_post", AddVector(vector), positions)


def _difference(one: Any, other: Any) -> float:
    difference = float((one - other).abs().max())
    return difference if difference == difference else float("inf")


def _plain_log_probs(plain: Any, tokens: list[int], vector: Tensor | None, first: int) -> Tensor:
    """Of a text alone, uncached, a vector added to a block's output from some position on."""
    with torch.inference_mode(), _adding(plain, vector, first):
        return plain(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].log_softmax(-1)


@contextlib.contextmanager
def _adding(plain: Any, vector: Tensor | None, first: int) -> Iterator[None]:
    if vector is None:
        yield
        return
    modules = (m for m in plain.modules() if isinstance(m, torch.nn.ModuleList))
    layers = next(m for m in modules if len(m) == plain.config.get_text_config().num_hidden_layers)

    def add(_module: object, _args: object, output: Any) -> Any:
        h = (output if isinstance(output, Tensor) else output[0]).clone()
        h[:, first:] += vector
        return h if isinstance(output, Tensor) else type(output)([h, *output[1:]])

    handle = layers[BLOCK].register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        # Whoever imports this goes on with a log of their own.
        logging.disable(before)


if __name__ == "__main__":
    main()
