"""Every reader of files from outside, with valid files for it to be damaged."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from fuzzing.mutations import Files

_QUESTION = {"prompt": "Is soup a meal?", "options": ["Yes", "No", "Unsure"]}
_SAID = [
    {"id": f"r{i}", "perspective": "NS"[i % 2], **_QUESTION, "answer": _QUESTION["options"][i % 3]}
    for i in range(5)
] + [{"id": "d", "perspective": "N", **_QUESTION, "distribution": [0.5, 0.25, 0.25]}]
# Questions of one's own take the answers of people, and groups' distributions among the items.
_ANSWERS = [row for row in _SAID if "answer" in row]
_ITEMS = [
    {"id": "q", **_QUESTION, "topic": "food", "perspective": p, "distribution": [0.5, 0.3, 0.2]}
    for p in "NS"
]
_PUBLISHED = {
    "question": "Is tea good?",
    "options": ["Good", "Bad", "Don't know"],
    "selections": {"Norland": [0.5, 0.25, 0.25], "Sudland": [0.2, 0.3, 0.5]},
    "source": "GAS",
}
_PREPARED = {
    "question": "Question: Is tea good?\nOptions: A. Good\nB. Bad\nAnswer:",
    "options": ["Good", "Bad"],
    "attribute": "RACE_White",
    "gold_distribution": [0.5, 0.5],
}
_LEWIDI = {
    str(i): {
        "text": f"A text {i}.",
        "annotations": "0,1,0",
        "annotators": "Ann1,Ann2,Ann3",
        "other_info": {
            "annotators group": "group1,group1,group2",
            "group1": "target group",
            "group2": "control group",
        },
    }
    for i in range(3)
}
_SWEEP = """method: random
run_cap: 3
metric: {name: gain}
parameters:
  n_feedback: {value: 12}
  block: {values: [10, 15]}
  coefficient: {distribution: log_uniform_values, min: 0.1, max: 10.0}
"""


_TRIAGED = {
    "rank": 1,
    "id": "q",
    "need": 0.5,
    "reasons": ["model unsure"],
    "why": "unsure",
    **_QUESTION,
    "of_reason": {"model unsure": 0.5, "easily swayed": None},
    "scores": {"entropy": 0.6},
    "flip": {"N": 0.5},
    "answers": _QUESTION["options"],
    "branches": {"base": [0.5, 0.3, 0.2]},
    "mass": {"base": 0.1},
    "warning": "",
}


@dataclass(frozen=True)
class Target:
    """One reader.

    Attributes:
        name: What it reads.
        files: Valid files, by their names in the folder that it is given.
        read: Reads the folder.
        weight: Share of the cases relative to the others'.
        mend: Makes damaged files consistent again where a hash would else keep damage from going
            any deeper.
    """

    name: str
    files: Files
    read: Callable[[Path], Any]
    weight: int = 2
    mend: Callable[[Files], Files] = dict


def reader_targets() -> list[Target]:
    """Readers that need no model."""
    from saepd.feedback.reading import load_feedback, load_items
    from saepd.pages.report import report
    from saepd.saes.corpus import read_documents
    from saepd.tasks.loading import load_task

    def file(name: str, content: bytes, read: Callable[[Path], Any], what: str = "") -> Target:
        return Target(f"{what or name}", {name: content}, lambda folder: read(folder / name))

    def task(task: str, name: str, content: bytes) -> Target:
        return file(name, content, partial(load_task, task), f"{task} ({name})")

    targets = [
        file(f"feedback{suffix}", content, load_feedback)
        for suffix, content in _tables(_SAID).items()
    ]
    targets += [
        file(f"items{suffix}", content, load_items) for suffix, content in _tables(_ITEMS).items()
    ]
    targets += [
        Target(
            "own",
            {"items.jsonl": _jsonl(_ITEMS), "feedback.jsonl": _jsonl(_ANSWERS)},
            partial(load_task, "own"),
        ),
        task("claims", "c.csv", b"claim,label,annotator,comment\nTea,yes,Ann,\nTea,no,Bo,Why\n"),
        task("claims", "c.jsonl", b'{"claim": "Tea", "label": 1, "annotator": "Ann"}\n'),
        task("globalopinionqa", "g.json", json.dumps([_PUBLISHED] * 2).encode()),
        task("globalopinionqa", "g.parquet", _tables([_PUBLISHED])[".parquet"]),
        task("globalopinionqa", "g.csv", _csv([{k: str(v) for k, v in _PUBLISHED.items()}])),
        task("opinionqa", "o.jsonl", _jsonl([_PREPARED, _PREPARED | {"attribute": "SEX_Male"}])),
        task(
            "hatecheck",
            "h.csv",
            b"case_id,functionality,test_case,label_gold,templ_id,ref_templ_id\n"
            b"1,slur,A text,hateful,1,\n2,slur,Another,non-hateful,2,1\n",
        ),
        task("hs-brexit", "b_train.json", json.dumps(_LEWIDI).encode()),
        task("hs-brexit-annotators", "b_train.json", json.dumps(_LEWIDI).encode()),
        task("liar", "l.tsv", b"1.json\ttrue\tA thing.\tx\n2.json\tfalse\tOther.\tx\n"),
        task("liar-binary", "l.tsv", b"1.json\ttrue\tA thing.\n2.json\tfalse\tOther.\n"),
        task(
            "moralchoice",
            "m.csv",
            b"context,action1,action2,perspective,answer,share\n"
            b"Rain.,Go,Stay,North,action1,\nRain.,Go,Stay,South,,.25\n",
        ),
        file("corpus.jsonl", b'{"text": "A passage."}\n{"text": "More."}\n', _one(read_documents)),
        Target("sweep file", {"s.yaml": _SWEEP.encode()}, _sweep),
        Target("stage cache", {"kind/key.safetensors": _stage()}, _stage_read, mend=_signed_stage),
        Target("evaluation folder", _evaluation_files(), _evaluation_read, weight=1),
        Target("report of an evaluation", _evaluated(), report, weight=1),
        Target("report of a triage", {"triage.jsonl": _jsonl([_TRIAGED] * 2)}, report),
        *_vector_targets(),
    ]
    return targets


def _vector_targets() -> list[Target]:
    """Readers of other tools' vectors."""
    import numpy as np

    from saepd.interchange.importing import import_direction
    from saepd.interchange.record import ModelFacts, SiteVector, SteeringRecord
    from saepd.interchange.registry import READERS, TARGETS

    row = np.arange(1, 9, dtype=np.float32)
    sites = tuple(SiteVector(f"blocks.{i}.hook_resid_post", i, i * row, "every") for i in (1, 2))
    record = SteeringRecord("north", sites, ModelFacts("tiny", "llama", 4, 8, "layers"))
    targets = []
    for name in READERS:
        files = TARGETS["steering-vectors" if name == "tensors" else name].write(record, "v")

        def read(folder: Path, name: str = name, file: str = next(iter(files))) -> Any:
            return import_direction(folder / file, name)

        targets.append(Target(f"vectors of {name}", files, read))
    return targets


def model_targets(folder: Path) -> list[Target]:
    """Readers of what is made for a model: a tiny one with random weights.

    Args:
        folder: Where the model is kept.
    """
    import tiny  # pyright: ignore[reportMissingImports] - beside the tests, see scripts/fuzz.py

    from saepd.directions.saving import load_from_disk
    from saepd.models.gguf import convert_gguf
    from saepd.models.load import load_model
    from saepd.pages.report import report
    from saepd.saes.load import load_sae

    model = load_model(tiny.save_tiny_model("llama", folder / "model"), device="cpu")
    sae_folder = tiny.save_tiny_sae(folder / "sae")
    sae = load_sae(sae_folder, model=model)
    steering = folder / "steering"
    _save_directions(model, sae, steering)
    return [
        Target(
            "steering folder", _files(steering), lambda path: load_from_disk(path, model, sae),
            mend=_signed_steering,
        ),
        Target(
            "report of a fit", _files(steering), report, weight=1, mend=_signed_steering,
        ),
        Target("SAE folder", _files(sae_folder), load_sae),
        Target(
            "GGUF header", {"m.gguf": _gguf()},
            lambda path: convert_gguf(path / "m.gguf", path / "out"), weight=1,
        ),
    ]  # fmt: skip


def _save_directions(model: Any, sae: Any, folder: Path) -> None:
    import numpy
    import tiny  # pyright: ignore[reportMissingImports] - beside the tests, see scripts/fuzz.py
    import torch

    from saepd.directions.direction import Direction
    from saepd.directions.edits import AddVector
    from saepd.directions.fitted_readout import FittedReadout
    from saepd.directions.gate import Gate
    from saepd.directions.saving import save_to_disk
    from saepd.feedback.accepting import as_feedback
    from saepd.fit.recipe import fit_directions
    from saepd.models.wording import ReadoutConfig

    fitted = fit_directions(model, sae, as_feedback(_ANSWERS))
    readout = FittedReadout(
        ReadoutConfig(), numpy.array([0.5, 0.0, 0.1, -0.1]), numpy.array([0.4, 0.2, -0.3, 0.0])
    )
    gate = Gate(tiny.SITE, torch.ones(int(sae.cfg.d_sae)), sae=sae)
    plain = Gate(tiny.SITE, torch.ones(tiny.D_MODEL), rule="above", threshold=0.2, cosine=True)
    directions = [
        replace(direction, readout=readout, gate=one)
        for direction, one in zip(fitted.directions, (gate, plain), strict=True)
    ]
    vector = AddVector(torch.ones(tiny.D_MODEL))
    above = Direction(directions[1].perspective, "blocks.2.hook_resid_post", vector)
    directions[1] = replace(directions[1], also=(above,))
    save_to_disk(directions, folder, verdict={"said": "It helps.", "gain": 0.1})


def _evaluated() -> Files:
    """Summary, questions and predictions of an evaluation."""
    import io

    import pandas as pd

    row = {"method": "m", "title": "M", "null": False, "js_distance": 0.2, "js_ci": [0.1, 0.3]}
    null = {**row, "method": "n", "title": "N", "null": True}
    summary = {
        "rows": [{**r, "perspective": p} for r in (row, null) for p in ("all", "N")],
        "methods": {"m": "what we do", "n": "nothing"},
        "config": {"task": "mine", "draws": 1},
        "n_test_items": [1],
        "left_out": {},
    }
    predicted = [
        {"draw": 0, "method": m, "item": "q", "perspective": "N", "probabilities": [0.5, 0.3, 0.2]}
        for m in "mn"
    ]
    frame = pd.DataFrame([{**p, "readable": True, "gold": [0.2, 0.3, 0.5]} for p in predicted])
    parquet = io.BytesIO()
    frame.to_parquet(parquet)
    return {
        "summary.json": json.dumps(summary).encode(),
        "items.json": json.dumps([{"id": "q", **_QUESTION}]).encode(),
        "predictions.parquet": parquet.getvalue(),
    }


def _tables(rows: list[dict[str, Any]]) -> dict[str, bytes]:
    import io

    import pandas as pd

    flat = [{k: json.dumps(v) if isinstance(v, list) else v for k, v in r.items()} for r in rows]
    parquet = io.BytesIO()
    pd.DataFrame(rows).to_parquet(parquet)
    return {
        ".jsonl": _jsonl(rows),
        ".json": json.dumps(rows).encode(),
        ".csv": _csv(flat),
        ".tsv": pd.DataFrame(flat).to_csv(index=False, sep="\t").encode(),
        ".parquet": parquet.getvalue(),
    }


def _csv(rows: list[dict[str, Any]]) -> bytes:
    import pandas as pd

    return pd.DataFrame(rows).to_csv(index=False).encode()


def _jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def _files(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _one(read: Callable[[list[Path]], Any]) -> Callable[[Path], Any]:
    return lambda path: read([path])


def _sweep(folder: Path) -> Any:
    from saepd.sweeps.space.sweep_file import load_sweep

    return load_sweep(folder / "s.yaml")


def _stage() -> bytes:
    import tempfile

    import torch

    from saepd.sweeps.point.stage_cache import StageCache

    with tempfile.TemporaryDirectory() as name:
        cache = StageCache(Path(name), 10**9)
        cache.get_or_compute("kind", "key", lambda: ({"scores": torch.ones(3, 4)}, 3))
        return cache.path("kind", "key").read_bytes()


def _stage_read(folder: Path) -> Any:
    from saepd.sweeps.point.stage_cache import StageCache

    return StageCache(folder, 10**9).get("kind", "key")


def _signed_stage(files: Files) -> Files:
    """The length of the header set right again, so that the header itself is read."""
    content = files["kind/key.safetensors"]
    end = content.rfind(b"}") + 1
    if end < 9:
        return files
    return {"kind/key.safetensors": struct.pack("<Q", end - 8) + content[8:]}


def _evaluation_files() -> Files:
    import tempfile

    import numpy as np

    from saepd.evaluation.results.parts import Parts

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = Parts(folder, {"task": "x", "seed": 0})
        parts.write(0, "uniform", {("q", "North"): np.array([0.5, 0.5])})
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _evaluation_read(folder: Path) -> Any:
    from saepd.evaluation.results.parts import Parts

    parts = Parts(folder, {"task": "x", "seed": 0})
    return parts.read(0, "uniform"), parts.side_effects(0, "uniform")


def _signed_steering(files: Files) -> Files:
    """The hash of the tensors set right again, so that damaged ones are read."""
    try:
        story = json.loads(files["steering.json"])
        story["sha256"] = hashlib.sha256(files["steering.safetensors"]).hexdigest()
        return files | {"steering.json": json.dumps(story).encode("utf-8", "surrogatepass")}
    except (ValueError, TypeError, KeyError, RecursionError):
        return files


def _gguf() -> bytes:
    """A header with a few keys and one small tensor, as its specification lays it out."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    keys = [text("general.architecture") + struct.pack("<I", 8) + text("llama")]
    keys += [text("llama.block_count") + struct.pack("<II", 4, 1)]
    tensor = text("token_embd.weight") + struct.pack("<IQQIQ", 2, 4, 4, 0, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(keys)) + b"".join(keys) + tensor
    return head + bytes(-len(head) % 32) + bytes(64)
