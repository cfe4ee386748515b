"""Time the branch engine against the ways people run several steering directions today.

    python benchmarks/branched_forward.py --out artifacts/results

Each comparison runs side by side in one process: in every round each contestant runs once, and the
ratio to the reference is taken within the round. The table gives the median of these ratios and
their quartiles. Directions are random: what they say does not change what they cost.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import saepd
from saepd.branches.captured import capture_prompts
from saepd.branches.engine.columns import prompt_columns
from saepd.branches.engine.plan import check_prompts
from saepd.common.files import write_atomically, write_json
from saepd.directions.direction import Direction
from saepd.directions.edits import EditLatents
from saepd.merge.config import MergeConfig
from saepd.merge.operators import merge_branches

K = 6
BLOCK = 15
N_PROMPT_TOKENS = 100
N_NEW_TOKENS = 64
BRANCH_COUNTS = (1, 2, 4, 8, 16, 32)
SWEEP = {
    "coefficients": (1.0, 2.0, 4.0),
    "alphas": (0.5, 1.0, 2.0),
    "taus": (0.05, 0.1),
    "operators": ("pluralistic", "mixture", "product"),
}
N_SWEEP_POINTS = 54
OPTIONS = ["Too little money", "About the right amount", "Too much money", "Do not know"]

Contestants = dict[str, Callable[[], Any]]


class Setting:
    """The model, its dictionary, prompts of some hundred tokens, and random directions."""

    def __init__(self, n_prompts: int) -> None:
        self.model = saepd.load_model()
        self.sae = saepd.load_sae(BLOCK, model=self.model)
        self.prompts = list(itertools.islice(long_prompts(self.model.tokenizer), n_prompts))
        self.site = f"blocks.{BLOCK}.hook_resid_post"

    def tokens(self, prompt: str) -> torch.Tensor:
        """One prompt as users tokenise it."""
        return torch.tensor([self.model.tokenizer(prompt).input_ids])

    def directions(self, positions: str, n: int = K, coefficient: float = 1.0) -> list[Direction]:
        """Random directions of 32 latents each."""
        directions = []
        for seed in range(n):
            generator = torch.Generator().manual_seed(seed)
            directions.append(
                Direction(
                    f"direction {seed}",
                    self.site,
                    EditLatents(
                        self.sae,
                        torch.randperm(self.sae.cfg.d_sae, generator=generator)[:32],
                        torch.rand(32, generator=generator),
                    ),
                    positions=positions,
                    coefficient=coefficient,
                )
            )
        return directions


def long_prompts(tokenizer: Any) -> Any:
    """Survey questions with answered ones before them, each prompt of about 100 tokens."""
    questions = [item.prompt for item in saepd.survey_items()]
    for start in itertools.count():
        order = [questions[(start * 7 + i * (1 + start % 5)) % len(questions)] for i in range(12)]
        text = ""
        for question in order:
            text += f"A survey asked: {question}\nMost people answered:"
            if len(tokenizer(text).input_ids) >= N_PROMPT_TOKENS - 12:
                break
            text += " About the right amount\n\n"
        yield text


def timed(contestants: Contestants, rounds: int) -> dict[str, list[float]]:
    """Seconds of every contestant in every round, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    with torch.inference_mode():
        for number in range(rounds + 1):
            for name, run in contestants.items():
                began = time.perf_counter()
                run()
                if number:
                    seconds[name].append(time.perf_counter() - began)
    return seconds


def row(name: str, over: Sequence[float], under: Sequence[float], aim: str) -> dict:
    """One comparison: the median and quartiles of over / under, round by round."""
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {
        "what": name,
        "median": statistics.median(ratios),
        "quartiles": [low, high],
        "aim": aim,
        "rounds": len(ratios),
        "seconds": [statistics.median(over), statistics.median(under)],
    }


def plain(setting: Setting, prompt: str) -> torch.Tensor:
    """One forward as users write it, with all logits."""
    return setting.model(setting.tokens(prompt))


def hooked_forwards(setting: Setting, prompt: str, directions: Sequence[Direction]) -> None:
    """The base and one hooked forward for each direction, as users write them."""
    tokens = setting.tokens(prompt)
    setting.model(tokens)
    for direction in directions:
        vector = direction.constant
        setting.model.run_with_hooks(
            tokens, fwd_hooks=[(setting.site, lambda h, hook, v=vector: h + v)]
        )


def published(setting: Setting, prompt: str, directions: Sequence[Direction]) -> None:
    """The procedure of the published code: the SAE's reconstruction replaces the activation.

    One prompt and one vector at a time, the whole prompt each time: encode, add, decode.
    """
    tokens, sae = setting.tokens(prompt), setting.sae
    setting.model(tokens)
    for direction in directions:
        vector = torch.zeros(sae.cfg.d_sae)
        edit = direction.edit
        assert isinstance(edit, EditLatents) and edit.values is not None
        vector[edit.latents] = edit.values

        def replace(h: torch.Tensor, hook: object, vector: torch.Tensor = vector) -> torch.Tensor:
            return sae.decode(sae.encode(h) + vector)

        setting.model.run_with_hooks(tokens, fwd_hooks=[(setting.site, replace)])


def forward_rows(setting: Setting, rounds: int) -> list[dict]:
    """One prompt at a time, and eight at once."""
    prompts = itertools.cycle(setting.prompts)
    everywhere, answer = setting.directions("all"), setting.directions("answer")
    current: list[str] = []

    def first() -> None:
        current[:] = [next(prompts)]
        plain(setting, current[0])

    seconds = timed(
        {
            "plain": first,
            "all": lambda: saepd.branch(setting.model, current, everywhere),
            "answer": lambda: saepd.branch(setting.model, current, answer),
            "options": lambda: saepd.score_continuations(setting.model, current, [OPTIONS], answer),
            "hooked": lambda: hooked_forwards(setting, current[0], everywhere),
        },
        rounds,
    )
    batch = setting.prompts[:8]
    columns = prompt_columns(setting.model, check_prompts(setting.model, batch))
    batched = timed(
        {
            "plain": lambda: setting.model(columns.tokens, attention_mask=columns.attention),
            "all": lambda: saepd.branch(setting.model, batch, everywhere),
            "answer": lambda: saepd.branch(setting.model, batch, answer),
            "options": lambda: saepd.score_continuations(
                setting.model, batch, [OPTIONS] * len(batch), answer
            ),
            "hooked": lambda: [hooked_forwards(setting, prompt, everywhere) for prompt in batch],
        },
        max(3, rounds // 4),
    )
    rows = []
    for label, s in (("", seconds), (", 8 prompts at once", batched)):
        aims = ("<= 2.6", "<= 1.2", "<= 1.8", ">= 3") if not label else ("", "", "", "")
        rows += [
            row(f"K=6 at all positions / plain forward{label}", s["all"], s["plain"], aims[0]),
            row(f"K=6 at the answer / plain forward{label}", s["answer"], s["plain"], aims[1]),
            row(
                f"text of 4 options under K=6 at the answer / plain forward{label}",
                s["options"],
                s["plain"],
                aims[2],
            ),
            row(
                f"7 hooked forwards / K=6 at all positions{label}",
                s["hooked"],
                s["all"],
                aims[3],
            ),
        ]
    return rows


def scoring_rows(setting: Setting, n_items: int) -> list[dict]:
    """Next-token answers of many items, against the published procedure, in chunks of ten."""
    everywhere, answer = setting.directions("all"), setting.directions("answer")
    seconds: dict[str, list[float]] = {"published": [], "all": [], "answer": []}
    prompts = list(itertools.islice(itertools.cycle(setting.prompts), n_items))
    for start in range(0, n_items, 10):
        chunk = prompts[start : start + 10]
        taken = timed(
            {
                "published": lambda c=chunk: [published(setting, p, everywhere) for p in c],
                "all": lambda c=chunk: saepd.branch(setting.model, c, everywhere),
                "answer": lambda c=chunk: saepd.branch(setting.model, c, answer),
            },
            rounds=1,
        )
        for name, values in taken.items():
            seconds[name] += values
    name = f"published procedure / ours, scoring {n_items} items"
    return [
        row(f"{name}, at the answer", seconds["published"], seconds["answer"], ">= 6"),
        row(f"{name}, at all positions", seconds["published"], seconds["all"], ">= 3"),
    ]


def sweep(setting: Setting, prompts: Sequence[str], positions: str) -> int:
    """54 sweep points over captured prompts: branches once a coefficient, merges once a point."""
    captured = capture_prompts(setting.model, prompts, setting.site, positions=positions)
    points = 0
    for coefficient in SWEEP["coefficients"]:
        log_probs = captured.branch(setting.directions(positions, coefficient=coefficient))
        for alpha, tau, operator in itertools.product(
            SWEEP["alphas"], SWEEP["taus"], SWEEP["operators"]
        ):
            merge_branches(log_probs, MergeConfig(operator, alpha=alpha, tau=tau))
            points += 1
    return points


def sweep_rows(setting: Setting, rounds: int, n_items: int = 10) -> list[dict]:
    """A sweep over ten items, against the published procedure run once for every point.

    That procedure is timed for one point and multiplied by the number of points.
    """
    prompts, everywhere = setting.prompts[:n_items], setting.directions("all")
    assert sweep(setting, prompts[:1], "answer") == N_SWEEP_POINTS
    seconds = timed(
        {
            "published": lambda: [published(setting, p, everywhere) for p in prompts],
            "all": lambda: sweep(setting, prompts, "all"),
            "answer": lambda: sweep(setting, prompts, "answer"),
        },
        rounds,
    )
    per_sweep = [N_SWEEP_POINTS * s for s in seconds["published"]]
    name = f"{N_SWEEP_POINTS} runs of the published procedure / our {N_SWEEP_POINTS}-point sweep"
    return [
        row(f"{name}, at the answer", per_sweep, seconds["answer"], ">= 150"),
        row(f"{name}, at all positions", per_sweep, seconds["all"], ">= 30"),
    ]


def generation_rows(setting: Setting, rounds: int) -> list[dict]:
    """64 tokens of merged text under K=6, against the same model's own cached generate."""
    from transformers import AutoModelForCausalLM

    from saepd.models.cache import converted_folder
    from saepd.models.packaged import DEFAULT_MODEL_SHA256, default_gguf

    folder = converted_folder(default_gguf(), DEFAULT_MODEL_SHA256)
    hf_model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    answer = setting.directions("answer")
    prompts = itertools.cycle(setting.prompts)
    current: list[str] = []

    def huggingface() -> None:
        current[:] = [next(prompts)]
        tokens = setting.tokens(current[0])
        hf_model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=False,
            min_new_tokens=N_NEW_TOKENS,
            max_new_tokens=N_NEW_TOKENS,
        )

    written: list[int] = []

    def ours(directions: list[Direction]) -> None:
        [text] = saepd.generate_batch(
            setting.model,
            current,
            directions,
            MergeConfig("mixture"),
            saepd.SamplingConfig(max_new_tokens=N_NEW_TOKENS),
        )
        written.append(len(text.tokens))

    seconds = timed({"plain": huggingface, "ours": lambda: ours(answer)}, rounds)
    # A text may end early: what counts is the time of a token.
    per_token = [s / n for s, n in zip(seconds["ours"], written[1:], strict=True)]
    reference = [s / N_NEW_TOKENS for s in seconds["plain"]]
    name = "a token under K=6 / a token of transformers' cached generate"
    return [row(name, per_token, reference, "<= 1.6")]


def curve(setting: Setting, rounds: int) -> dict[str, Any]:
    """Cost relative to one plain forward as K grows, and what each added branch costs."""
    import numpy as np

    result: dict[str, Any] = {"branches": list(BRANCH_COUNTS)}
    prompt = setting.prompts[0]
    for positions in ("answer", "all"):
        contestants: Contestants = {"plain": lambda: plain(setting, prompt)}
        for n in BRANCH_COUNTS:
            directions = setting.directions(positions, n)
            contestants[str(n)] = lambda directions=directions: saepd.branch(
                setting.model, [prompt], directions
            )
        seconds = timed(contestants, rounds)
        ratios = [
            statistics.median(
                [a / b for a, b in zip(seconds[str(n)], seconds["plain"], strict=True)]
            )
            for n in BRANCH_COUNTS
        ]
        slope, _ = np.polyfit(BRANCH_COUNTS, ratios, 1)
        result[positions] = {"ratios": ratios, "per_added_branch": float(slope)}
    return result


def steering_vectors_rows(setting: Setting, rounds: int) -> list[dict]:
    """The steering-vectors package, one patched forward a direction, where it is installed."""
    try:
        # Imported by name: the type checker runs without this optional package.
        SteeringVector = importlib.import_module("steering_vectors").SteeringVector
    except ImportError:
        return []
    from transformers import AutoModelForCausalLM

    from saepd.models.cache import converted_folder
    from saepd.models.packaged import DEFAULT_MODEL_SHA256, default_gguf

    folder = converted_folder(default_gguf(), DEFAULT_MODEL_SHA256)
    hf_model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    everywhere = setting.directions("all")
    vectors = [
        SteeringVector({BLOCK: vector}, layer_type="decoder_block")
        for vector in (d.constant for d in everywhere)
        if vector is not None
    ]
    prompts = itertools.cycle(setting.prompts)
    current: list[str] = []

    def theirs() -> None:
        current[:] = [next(prompts)]
        tokens = setting.tokens(current[0])
        hf_model(tokens)
        for vector in vectors:
            with vector.apply(hf_model):
                hf_model(tokens)

    seconds = timed(
        {"theirs": theirs, "all": lambda: saepd.branch(setting.model, current, everywhere)}, rounds
    )
    name = "steering-vectors package, K=6 / ours at all positions"
    return [row(name, seconds["theirs"], seconds["all"], "")]


def start_up_rows(rounds: int) -> list[dict]:
    """Whole processes: the help text, and the default model with one SAE from a warm cache."""
    ready = "import saepd; m = saepd.load_model(); saepd.load_sae(model=m)"
    commands = {
        "help": ["-m", "saepd.cli", "--help"],
        "torch": ["-c", "import torch"],
        "ready": ["-c", ready],
        "sae_lens": ["-c", "import sae_lens"],
    }

    def process(arguments: list[str]) -> None:
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

    seconds = timed({name: lambda a=a: process(a) for name, a in commands.items()}, rounds)
    return [
        row("saepd --help / import torch", seconds["help"], seconds["torch"], "<= 0.4"),
        row(
            "default model and SAE ready / import sae_lens",
            seconds["ready"],
            seconds["sae_lens"],
            "<= 1.5",
        ),
    ]


def markdown(results: dict[str, Any]) -> str:
    """The comparisons as a Markdown table, and the curve below it."""
    lines = ["| comparison | median | quartiles | aim |", "| --- | --- | --- | --- |"]
    for entry in results["rows"]:
        low, high = entry["quartiles"]
        lines.append(
            f"| {entry['what']} | {entry['median']:.3g} | {low:.3g} to {high:.3g} "
            f"| {entry['aim']} |"
        )
    grown = results["curve"]
    lines += ["", f"| K | {' | '.join(map(str, grown['branches']))} | per added branch |"]
    lines.append(f"| --- |{' --- |' * (len(grown['branches']) + 1)}")
    for positions, label in (("answer", "at the answer"), ("all", "at all positions")):
        cells = " | ".join(f"{ratio:.2f}" for ratio in grown[positions]["ratios"])
        lines.append(f"| {label} | {cells} | {grown[positions]['per_added_branch']:.3f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run every comparison and write benchmark.json and benchmark.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/benchmark"))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--items", type=int, default=100, help="items of the scoring comparison")
    options = parser.parse_args()
    began = time.perf_counter()
    setting = Setting(n_prompts=min(options.items, 40))
    rows = forward_rows(setting, options.rounds)
    rows += scoring_rows(setting, options.items)
    rows += sweep_rows(setting, max(3, options.rounds // 5))
    rows += generation_rows(setting, max(4, options.rounds // 2))
    rows += steering_vectors_rows(setting, options.rounds)
    grown = curve(setting, max(4, options.rounds // 2))
    rows += start_up_rows(max(3, options.rounds // 4))
    results = {
        "rows": rows,
        "curve": grown,
        "setting": {
            "model": str(setting.model.cfg.model_name),
            "site": setting.site,
            "K": K,
            "prompt_tokens": [len(setting.tokens(p)[0]) for p in setting.prompts],
            "threads": torch.get_num_threads(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "versions": {n: version(n) for n in ("torch", "transformers", "transformer-lens")},
            "command": f"python benchmarks/branched_forward.py --rounds {options.rounds} "
            f"--items {options.items}",
        },
        "seconds": round(time.perf_counter() - began, 1),
    }
    write_json(options.out / "benchmark.json", results)
    write_atomically(options.out / "benchmark.md", markdown(results).encode())
    print(markdown(results))


if __name__ == "__main__":
    main()
