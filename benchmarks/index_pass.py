"""What the pass of `saepd index` costs beside the model's own forward up to the site.

    python benchmarks/index_pass.py --texts FILES --work FOLDER --out artifacts/results

Every few chunks of the pass, the passages of the last one run plainly up to the site. Seconds are
the processor's, so that what else the machine does weighs little, and a ratio is of two runs that
follow each other. The same command goes on with an interrupted run.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import saepd
from saepd.common.files import write_atomically, write_json
from saepd.features.index.passages import cut_passages
from saepd.models.sites import read_site
from saepd.saes.corpus import read_documents
from saepd.saes.load import sae_hook_name

BLOCK = 10
READING = "reading texts"
# Chunks of the pass for each plain forward.
EVERY = 16


class Meter:
    """Keeps the processor's seconds of every step in a file that the next run adds to.

    Args:
        path: The file, a JSON object a line.
        run_plainly: Runs the passages between two counts of tokens up to the site.
    """

    def __init__(self, path: Path, run_plainly: Callable[[int, int], object]) -> None:
        self._path, self._run_plainly = path, run_plainly
        self._last: tuple[str, int] | None = None
        self._began = time.process_time()
        self._n_steps = 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """What the build says of its progress."""
        entry: dict[str, Any] = {"stage": stage, "done": done, "total": total}
        entry["seconds"] = time.process_time() - self._began
        # What came before the first step of a stage is not known to be of that stage.
        if self._last is not None and self._last[0] == stage:
            entry["n"] = done - self._last[1]
            if stage == READING and self._n_steps % EVERY == 0:
                began = time.process_time()
                self._run_plainly(self._last[1], done)
                entry["plain_seconds"] = time.process_time() - began
        entry["most_megabytes"] = most_megabytes()
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self._n_steps += 1
        self._last, self._began = (stage, done), time.process_time()


def most_megabytes() -> float:
    """The most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(steps: Sequence[dict[str, Any]], least_megabytes: float) -> dict[str, Any]:
    """What the steps of one or several runs say."""
    reading = [s for s in steps if s["stage"] == READING and "n" in s]
    both = [s for s in reading if "plain_seconds" in s]
    shares = [s["plain_seconds"] / s["seconds"] for s in both]
    low, middle, high = statistics.quantiles(shares, n=4)
    seconds: dict[str, float] = {}
    for step in steps:
        seconds[step["stage"]] = seconds.get(step["stage"], 0.0) + step["seconds"]
    return {
        "n_tokens": max(s["total"] for s in reading),
        "n_compared": len(both),
        "tokens_a_second": statistics.median(s["n"] / s["seconds"] for s in reading),
        "plain_tokens_a_second": statistics.median(s["n"] / s["plain_seconds"] for s in both),
        "speed_over_plain_forward": {"median": middle, "quartiles": [low, high]},
        "processor_seconds": {stage: round(spent, 1) for stage, spent in seconds.items()},
        "megabytes": {
            "model and SAE loaded": round(least_megabytes),
            "most while reading": round(max(s["most_megabytes"] for s in reading)),
            "most of all": round(max(s["most_megabytes"] for s in steps)),
        },
    }


def main() -> None:
    """Build the index and write what it cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=Path, nargs="+", required=True, help="files of texts")
    parser.add_argument("--work", type=Path, required=True, help="folder of the index and steps")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--max-tokens", type=int, default=2_000_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = saepd.load_model()
    sae = saepd.load_sae(BLOCK, model=model)
    config = saepd.IndexConfig(max_tokens=options.max_tokens)
    passages = cut_passages(model.tokenizer, read_documents(options.texts), config)

    def run_plainly(first_token: int, end_token: int) -> None:
        first, end = np.searchsorted(passages.starts, [first_token, end_token])
        rows = passages.rows[first:end]
        read_site(model, [sae_hook_name(sae)], rows, lambda batch: [None] * len(batch.indices))

    options.work.mkdir(parents=True, exist_ok=True)
    steps_file = options.work / "steps.jsonl"
    least = most_megabytes()
    index = saepd.build_index(
        model,
        sae,
        options.texts,
        options.work / "index",
        config,
        progress=Meter(steps_file, run_plainly),
    )
    steps = [json.loads(line) for line in steps_file.read_text("utf-8").splitlines()]
    scores = index.array("label_scores")
    scores = scores[np.isfinite(scores)]
    low, middle, high = np.quantile(scores, (0.1, 0.5, 0.9)).tolist()
    result = {
        "site": index.info["hook_name"],
        "model": index.info["model_name"],
        "texts": [path.name for path in options.texts],
        **measured(steps, least),
        "folder_megabytes": sum(f.stat().st_size for f in index.folder.iterdir()) / (1 << 20),
        "silent_latents": int((index.density == 0).sum()),
        "label_auroc": {"lowest tenth": low, "median": middle, "highest tenth": high},
        "labels_from_.75": float((scores >= 0.75).mean()),
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads()},
        "versions": {name: version(name) for name in ("torch", "transformers", "saepd")},
    }
    write_json(options.out / "index_pass.json", result)
    speed = result["speed_over_plain_forward"]
    line = (
        f"{result['n_tokens']} tokens at {result['tokens_a_second']:.0f} a second of one core, "
        f"{speed['median']:.2f} of the plain forward's {result['plain_tokens_a_second']:.0f} "
        f"(quartiles {speed['quartiles'][0]:.2f} to {speed['quartiles'][1]:.2f})\n"
    )
    write_atomically(options.out / "index_pass.md", line.encode())
    print(line)


if __name__ == "__main__":
    main()
