"""Kill commands at random moments, as often as asked, and say what was lost.

    python scripts/faults.py --kills 20 --out artifacts/results/faults.json

Each command first runs undisturbed. Then it is started in another folder and killed (SIGKILL, so
nothing can be tidied up) at a random moment, again and again in the same folder, and at last left
to finish. After every kill, what lies in the folder is read: it is whole or it is refused, never
half. In the end the folder must hold what the undisturbed run wrote.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

# Before torch is imported, since a fork cannot take over a pool of threads.
os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "tests")]

import sae_lens  # noqa: E402, F401
import transformer_lens.model_bridge  # noqa: E402, F401
from tiny import save_tiny_model, save_tiny_sae  # noqa: E402

from saepd.cli import main as main_of_saepd  # noqa: E402
from saepd.common.errors import InputError  # noqa: E402
from saepd.common.files import file_sha256, write_atomically, write_json  # noqa: E402
from saepd.models.cache import is_intact  # noqa: E402
from saepd.models.packaged import DEFAULT_MODEL_SHA256, default_gguf  # noqa: E402
from saepd.sweeps.results.frame import read_sweep  # noqa: E402

# Columns of a sweep that do not depend on when it ran.
_COMPARED = ["key", "status", "k", "coefficient", "operator", "gain", "js_distance", "kl_to_base"]
NAMES = ("fit", "evaluate", "sweep", "train-sae", "conversion")


@dataclass(frozen=True)
class Trial:
    """One command, and how its folder is read.

    Attributes:
        command: Arguments of the ``saepd`` command; ``OUT`` stands for the folder.
        read: From the folder to what it holds, as JSON values; None where it says that nothing
            whole is there.
        resumes: Whether what one run finished is taken up by the next.
    """

    command: list[str]
    read: Callable[[Path], Any]
    resumes: bool


def trials(work: Path) -> dict[str, Trial]:
    """The commands, on a tiny model and what they need of files."""
    model = str(save_tiny_model("llama", work / "model"))
    sae = str(save_tiny_sae(work / "sae"))
    on = ["--model", model, "--sae", sae]
    sweep = work / "sweep.yaml"
    parameters = {"model": model, "sae": sae, "n_feedback": 8, "limit": 4}
    varied = {"k": [2, 4, 8], "coefficient": [1, 3], "operator": ["mixture", "pluralistic"]}
    entries = {k: {"value": v} for k, v in parameters.items()}
    entries |= {k: {"values": v} for k, v in varied.items()}
    file = {"method": "grid", "metric": {"name": "gain"}, "parameters": entries}
    sweep.write_text(json.dumps(file))
    corpus = work / "corpus.jsonl"
    words = [
        "The",
        "ferry",
        "leaves",
        "the",
        "old",
        "harbour",
        "twice",
        "a",
        "day",
        "and",
        "comes",
        "back",
        "at",
        "night",
    ]
    drawn = random.Random(0)
    texts = (" ".join(drawn.choices(words, k=200)) for _ in range(60))
    corpus.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    training = ["--sites", "blocks.1.hook_resid_post", "--tokens", "6000", "--expansion", "2"]
    training += ["--training-tokens", "60000", "--batch-size", "256", "--k", "8"]
    text = ["--corpus", str(corpus), "--work", "OUT/work", "--out", "OUT/saes"]
    task = ["--task", "gss", "--n-feedback", "8", "--draws", "3", "--limit", "6"]
    # With a tokenizer of single bytes, letters are no single tokens, and examples do not fit.
    task += ["--methods", "uniform", "train-mean", "zero-shot", "position-bias"]
    task += ["selected-latents", "fitted-scales"]
    return {
        "fit": Trial(
            ["fit", *on, "--n-feedback", "12", "--anyway", "--out", "OUT"],
            _steering,
            resumes=False,
        ),
        "evaluate": Trial(["evaluate", *task, *on, "--out", "OUT"], _summary, resumes=True),
        "sweep": Trial(["sweep", str(sweep), "--out", "OUT"], _points, resumes=True),
        "train-sae": Trial(
            ["train-sae", *text, "--model", model, *training], _weights, resumes=True
        ),
        "conversion": Trial(["doctor", "--load", "--json"], _converted, resumes=False),
    }


def _steering(folder: Path) -> Any:
    from saepd.directions.lineage import read_lineage

    try:
        read_lineage(folder)
    except InputError:
        return None
    return file_sha256(folder / "steering.safetensors")


def _summary(folder: Path) -> Any:
    file = folder / "summary.json"
    return json.loads(file.read_text()) if file.is_file() else None


def _points(folder: Path) -> Any:
    try:
        frame = read_sweep(folder)
    except InputError:
        return None
    rows: list[dict[str, Any]] = frame.loc[:, _COMPARED].to_dict(orient="records")
    if len(rows) < 12 or any(row["status"] != "finished" for row in rows):
        return None
    return sorted(rows, key=lambda row: row["key"])


def _weights(folder: Path) -> Any:
    from saepd.saes.load import load_sae, sae_fingerprint

    [*files] = (folder / "saes").glob("*/sae_weights.safetensors")
    if not files or not (files[0].parent / "cfg.json").is_file():
        return None
    return sae_fingerprint(load_sae(files[0].parent))


def _converted(folder: Path) -> Any:
    whole = [
        f
        for f in (folder / "cache" / "models").glob("*")
        if f.is_dir() and f.name[0] != "." and is_intact(f, DEFAULT_MODEL_SHA256)
    ]
    return len(whole) or None


def run(trial: Trial, folder: Path, seconds: float | None = None) -> float:
    """Start a command; kill it after some seconds, or let it finish. How long it took.

    The command is a fork of this process, which has imported all that it needs: so the moments at
    which it is killed fall into its work, not into its start.
    """
    arguments = [argument.replace("OUT", str(folder)) for argument in trial.command]
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.parent / f"{folder.name}.log"
    started = time.monotonic()
    child = os.fork()
    if not child:
        _become(arguments, folder / "cache", log)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        taken = time.monotonic() - started
        if ended and os.waitstatus_to_exitcode(status):
            raise SystemExit(f"{' '.join(arguments)} failed:\n{log.read_text()}")
        if ended:
            return taken
        if seconds is not None and taken > seconds:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return taken
        time.sleep(0.005)


def _become(arguments: list[str], cache: Path, log: Path) -> NoReturn:
    """Run the command in this process, which is a child made for it, and end."""
    os.setsid()
    os.environ["SAEPD_CACHE"] = str(cache)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    code = 1
    try:
        code = main_of_saepd(arguments)
        sys.stdout.flush()
    finally:
        os._exit(code)


def outcome_of(trial: Trial, work: Path, n_kills: int, seed: int) -> dict[str, Any]:
    """Kill one command again and again; what its folder held after each kill, and in the end."""
    undisturbed = run(trial, work / "undisturbed")
    wanted = trial.read(work / "undisturbed")
    assert wanted is not None
    moments = random.Random(seed)
    folder, half_read, ends, killed, usual = work / "killed", 0, [], 0, undisturbed
    while killed < n_kills:
        limit, is_new = moments.uniform(0.02, 1.0) * usual, not folder.exists()
        taken = run(trial, folder, limit)
        if taken <= limit:
            # It was finished before its time: the next kill needs work that is still to do.
            # A busy machine may have taken longer for the undisturbed run.
            usual = min(usual, taken) if is_new else usual
            ends.append(trial.read(folder))
            folder = work / f"killed-{len(ends)}"
            continue
        killed += 1
        held = trial.read(folder)
        half_read += held is not None and held != wanted
    seconds = run(trial, folder)
    ends.append(trial.read(folder))
    return {
        "kills": killed,
        "half-written results read": half_read,
        "folders killed and finished": len(ends),
        "same result in the end": all(end == wanted for end in ends),
        "seconds undisturbed": round(undisturbed, 1),
        "seconds of the last run": round(seconds, 1),
        "takes up what was finished": trial.resumes,
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows in Markdown."""
    columns = list(next(iter(rows.values())))
    said = {True: "yes", False: "no"}
    lines = ["| command | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    for name, row in rows.items():
        cells = [said[v] if isinstance(v, bool) else str(v) for v in row.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Try every command; 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=NAMES, default=NAMES)
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts" / "results" / "faults.json")
    options = parser.parse_args()
    default_gguf()
    rows = json.loads(options.out.read_text()) if options.out.is_file() else {}
    with tempfile.TemporaryDirectory() as work:
        for name, trial in trials(Path(work)).items():
            if name in options.only:
                rows[name] = outcome_of(trial, Path(work) / name, options.kills, options.seed)
                print(name, rows[name], flush=True)
                write_json(options.out, rows)
    write_atomically(options.out.with_suffix(".md"), table(rows).encode())
    lost = [
        n
        for n, r in rows.items()
        if r["half-written results read"] or not r["same result in the end"]
    ]
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
