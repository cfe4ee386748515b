"""Let other tools run what saepd exports, and hold their numbers against saepd's own.

    python scripts/parity.py --out artifacts/results/parity.json

It runs what is installed of them, and computes the rest by its description; the table says which.
The packaged model answers 30 survey prompts. Of tools in Python the log-probs of every next token
are compared, in float32. Of llama.cpp, which computes the same model from its 4-bit file in its
own precision, the shift of the log-odds between two options is.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "scripts")]

from parity_steps.llama_cpp import LlamaCpp  # noqa: E402
from parity_steps.runtimes import RULES, RUNTIMES  # noqa: E402
from parity_steps.setting import Setting, make_setting  # noqa: E402

import saepd  # noqa: E402
from saepd.common.files import write_atomically, write_json  # noqa: E402
from saepd.interchange.exporting import export_directions  # noqa: E402
from saepd.interchange.from_directions import as_record, by_perspective, model_facts  # noqa: E402
from saepd.interchange.importing import import_directions  # noqa: E402
from saepd.interchange.registry import READERS, TARGETS  # noqa: E402
from saepd.models.packaged import DEFAULT_MODEL, default_gguf  # noqa: E402
from saepd.models.source import find_model  # noqa: E402

TOLERANCE = 1e-4
WRITTEN_TOKENS = 24


def compared(setting: Setting, name: str) -> dict[str, Any]:
    """The largest difference of any next token's log-prob between a tool and saepd."""
    run = RUNTIMES.get(name) or RULES[name]
    try:
        log_probs, runtime = run(setting)
    except ImportError as error:
        return {"figure": f"not run: {error}", "runtime": "not installed", "holds": None}
    furthest = setting.furthest(log_probs)
    moved = float((setting.log_probs[:, 1:] - setting.log_probs[:, :1]).abs().max())
    return {
        "figure": f"{furthest:.1e} nats of {moved:.1f}",
        "furthest": furthest,
        "moved": moved,
        "runtime": runtime,
        "holds": furthest <= TOLERANCE,
    }


def in_llama_cpp(setting: Setting) -> dict[str, Any]:
    """Rank correlation and slope of the shifts of log-odds in llama.cpp on those in saepd."""
    assert setting.gguf is not None
    try:
        engine = LlamaCpp(setting.gguf, setting.log_probs.shape[-1])
    except ImportError as error:
        return {"figure": f"not run: {error}", "runtime": "not installed", "holds": None}
    plain = [engine.log_probs(row) for row in setting.rows]
    found: dict[str, Any] = {"runtime": engine.version, "perspectives": {}}
    tokenizer = setting.model.tokenizer
    texts = {"base": tokenizer.decode(engine.write(setting.rows[0], WRITTEN_TOKENS))}
    for number, written in enumerate(setting.export("llama.cpp"), 1):
        engine.steer(written.files[0])
        theirs = [engine.log_probs(row) for row in setting.rows]
        ours = _shifts(setting, list(setting.log_probs[:, number]), list(setting.log_probs[:, 0]))
        shifts = _shifts(setting, theirs, plain)
        ranked: Any = spearmanr(ours, shifts)
        found["perspectives"][written.perspective] = {
            "rank_correlation": float(ranked.statistic),
            "slope": float(ours @ shifts / (ours @ ours)),
            "mean_shift": float(np.abs(ours).mean()),
        }
        texts[written.perspective] = tokenizer.decode(engine.write(setting.rows[0], WRITTEN_TOKENS))
        engine.steer(None)
    own = found["perspectives"].values()
    rank = min(one["rank_correlation"] for one in own)
    slopes = [one["slope"] for one in own]
    return {
        **found,
        "texts": {"prompt": setting.prompts[0], **texts},
        "figure": f"shift of log-odds: rank correlation >= {rank:.3f}, slope "
        f"{min(slopes):.2f} to {max(slopes):.2f}",
        "holds": rank >= 0.95 and all(0.9 <= slope <= 1.1 for slope in slopes),
    }


def _shifts(setting: Setting, steered: list[torch.Tensor], base: list[torch.Tensor]) -> np.ndarray:
    """How far the log-odds of one option against another move, of each prompt."""
    moved = [
        (s[one] - s[other]) - (b[one] - b[other])
        for s, b, (one, other) in zip(steered, base, setting.options, strict=True)
    ]
    return np.array([float(m) for m in moved])


def round_trip(setting: Setting, name: str) -> str:
    """Whether saepd reads back exactly what it wrote."""
    if name not in READERS:
        return "written only"
    facts = model_facts(setting.model)
    groups = by_perspective(setting.directions)
    for written in setting.export(name):
        read = import_directions(written.files[0], name, setting.model)
        wanted = as_record(groups[written.perspective], facts).by_block()
        found = as_record(read, facts).by_block()
        assert list(wanted) == list(found)
        if not all(np.array_equal(wanted[block], found[block]) for block in wanted):
            return "differs"
    return "exact"


def lost(name: str) -> str:
    """What a format cannot say, in a cell of the table."""
    says = TARGETS[name].says
    words = [] if "answer" in says.positions else ["positions"]
    words += [] if says.any_site else ["sites inside blocks"]
    words += [f"blocks below {says.lowest_block}"] if says.lowest_block else []
    return ", ".join([*words, "readout and gate"])


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        "| format | round trip | against saepd's own run | measured in | what it cannot say |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, row in report["formats"].items():
        lines.append(
            f"| {name} | {row['round_trip']} | {row['figure']} | {row['runtime']} | {row['lost']} |"
        )
    return "\n".join([*lines, ""])


def main() -> int:
    """Run all formats and write the report; exit 1 where one that ran does not agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="JSON; a table is written beside it"
    )
    arguments = parser.parse_args()
    model = saepd.load_model(device="cpu")
    sae = saepd.load_sae(15, model=model)
    feedback = saepd.sample_feedback(saepd.survey_feedback(), 50, 0)
    fitted = saepd.fit_directions(model, sae, feedback).directions
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        moved = export_directions(model, fitted, "repeng", out / "fitted", allow_loss=True)
        directions = [
            direction
            for one in moved
            for direction in import_directions(
                one.files[0], "llama.cpp", model, perspective=one.perspective
            )
        ]
        checkpoint = Path(find_model(DEFAULT_MODEL)[0])
        setting = make_setting(
            model, directions, "blocks.10.hook_resid_post", checkpoint, default_gguf(), out
        )
        formats = {}
        for name in TARGETS:
            row = in_llama_cpp(setting) if name == "llama.cpp" else compared(setting, name)
            formats[name] = {**row, "round_trip": round_trip(setting, name), "lost": lost(name)}
            print(name, row["figure"], row["runtime"], sep="; ", flush=True)
    report = {
        "model": DEFAULT_MODEL,
        "prompts": len(setting.prompts),
        "strength_at_every_token": {
            one.perspective: vars(one.refit) for one in moved if one.refit is not None
        },
        "formats": formats,
    }
    write_json(arguments.out, report)
    write_atomically(arguments.out.with_suffix(".md"), table(report).encode())
    return int(any(row["holds"] is False for row in formats.values()))


if __name__ == "__main__":
    sys.exit(main())
