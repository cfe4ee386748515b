"""Let other tools run what saepd exports, and hold their numbers against saepd's own.

    python scripts/parity.py --out artifacts/results/parity.json

It runs what is installed of them, and computes the rest by its description; the table says which.
The packaged model answers 30 survey prompts. Of tools in Python the log-probs of every next token
are compared, in float32. Of llama.cpp, which keeps its cache in 16 bits, the shift of the log-odds
between two options is: with the packaged model's weights as float32, and with its 4-bit file, which
llama.cpp computes with 8-bit activations and saepd with float32.
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

from parity_steps.llama_cpp import LlamaCpp, float32_copy  # noqa: E402
from parity_steps.runtimes import RULES, RUNTIMES  # noqa: E402
from parity_steps.setting import KL_BUDGET, Setting, make_setting  # noqa: E402

import saepd  # noqa: E402
from saepd.common.files import write_atomically, write_json  # noqa: E402
from saepd.interchange.exporting import export_directions  # noqa: E402
from saepd.interchange.from_directions import as_record, by_perspective, model_facts  # noqa: E402
from saepd.interchange.importing import import_direction  # noqa: E402
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


def in_llama_cpp(setting: Setting, gguf: Path) -> dict[str, Any]:
    """Rank correlation and slope of the shifts of log-odds in llama.cpp on those in saepd.

    Args:
        setting: What is compared.
        gguf: The file of the model that llama.cpp runs.
    """
    try:
        engine = LlamaCpp(gguf, setting.log_probs.shape[-1])
    except ImportError as error:
        return {"figure": f"not run: {error}", "runtime": "not installed", "holds": None}
    base = setting.log_probs[:, 0]
    plain = torch.stack([engine.log_probs(row) for row in setting.rows])
    tokenizer, perspectives = setting.model.tokenizer, {}
    texts = {"base": tokenizer.decode(engine.write(setting.rows[0], WRITTEN_TOKENS))}
    for number, written in enumerate(setting.export("llama.cpp"), 1):
        engine.steer(written.files[0])
        steered = torch.stack([engine.log_probs(row) for row in setting.rows])
        ours = _shifts(setting, setting.log_probs[:, number], base)
        theirs = _shifts(setting, steered, plain)
        ranked: Any = spearmanr(ours, theirs)
        perspectives[written.perspective] = {
            "rank_correlation": float(ranked.statistic),
            "slope": float(ours @ theirs / (ours @ ours)),
            "mean_shift": float(np.abs(ours).mean()),
            "furthest": float((steered - setting.log_probs[:, number]).abs().max()),
        }
        texts[written.perspective] = tokenizer.decode(engine.write(setting.rows[0], WRITTEN_TOKENS))
        engine.steer(None)
    rank = min(one["rank_correlation"] for one in perspectives.values())
    slopes = [one["slope"] for one in perspectives.values()]
    furthest = float((plain - base).abs().max())
    return {
        "runtime": engine.version,
        "perspectives": perspectives,
        "base_furthest": furthest,
        "texts": {"prompt": setting.prompts[0], **texts},
        "figure": f"shift of log-odds: rank correlation {rank:.3f} or more, slope "
        f"{min(slopes):.2f} to {max(slopes):.2f} (unsteered, {furthest:.2g} nats apart)",
        "holds": rank >= 0.95 and all(0.9 <= slope <= 1.1 for slope in slopes),
    }


def _shifts(setting: Setting, steered: torch.Tensor, base: torch.Tensor) -> np.ndarray:
    """How far the log-odds of one option against another move, of each prompt."""
    moved = (steered - base).double().numpy()
    return np.array([row[a] - row[b] for row, (a, b) in zip(moved, setting.options, strict=True)])


def round_trip(setting: Setting, name: str) -> str:
    """Whether saepd reads back exactly what it wrote."""
    if name not in READERS:
        return "written only"
    facts = model_facts(setting.model)
    groups = by_perspective(setting.directions)
    for written in setting.export(name):
        read = import_direction(written.files[0], name, setting.model)
        wanted = as_record(groups[written.perspective], facts).by_block()
        read_back = as_record([read], facts).by_block()
        assert list(wanted) == list(read_back)
        if not all(np.array_equal(wanted[block], read_back[block]) for block in wanted):
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
        read = [
            import_direction(one.files[0], "llama.cpp", model, perspective=one.perspective)
            for one in moved
        ]
        # As strong as stands out of the rounding of 4-bit files.
        directions = list(saepd.fit_kl_budget(model, read, KL_BUDGET))
        checkpoint = Path(find_model(DEFAULT_MODEL)[0])
        setting = make_setting(model, directions, "blocks.10.hook_resid_post", checkpoint, out)
        formats = {}
        for name in TARGETS:
            shared = {"round_trip": round_trip(setting, name), "lost": lost(name)}
            if name == "llama.cpp":
                copy = float32_copy(default_gguf(), out / "float32.gguf")
                formats[f"{name}, weights as float32"] = in_llama_cpp(setting, copy) | shared
                formats[f"{name}, packaged 4-bit file"] = (
                    in_llama_cpp(setting, default_gguf()) | shared
                )
            else:
                formats[name] = compared(setting, name) | shared
            write_json(arguments.out.with_suffix(".part.json"), formats)
        arguments.out.with_suffix(".part.json").unlink()
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
    # llama.cpp computes a 4-bit file with 8-bit activations, which is another model a little.
    exact = [row for name, row in formats.items() if "4-bit" not in name]
    return int(any(row["holds"] is False for row in exact))


if __name__ == "__main__":
    sys.exit(main())
