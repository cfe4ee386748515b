"""Formats that are JSON: specs of steering, and vectors by layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from saepd.common.errors import InputError
from saepd.common.files import read_text
from saepd.common.messages import shortened
from saepd.interchange.control_vectors import control_vector
from saepd.interchange.record import SteeringRecord, Vector
from saepd.models.position_specs import parse_positions


def write_easysteer(record: SteeringRecord, stem: str) -> dict[str, bytes]:
    """A ``SteeringSpec``, and beside it one control vector for each position spec in it."""
    files: dict[str, bytes] = {}
    vectors = []
    for number, spec in enumerate(dict.fromkeys(site.positions for site in record.sites)):
        sites = tuple(site for site in record.sites if site.positions == spec)
        part = SteeringRecord(record.perspective, sites, record.model)
        name = f"{stem}.gguf" if number == 0 else f"{stem}-{number + 1}.gguf"
        files[name] = control_vector(part, lowest_block=0)
        vectors.append(
            {
                "source": name,
                "algorithm": "direct",
                "scale": 1.0,
                "layers": list(part.by_block()),
                "normalize": False,
                "apply": _apply(spec, record.model.special_ids),
                "name": record.perspective,
            }
        )
    # Several vectors of one perspective all act.
    files[f"{stem}.json"] = _json({"vectors": vectors, "conflict": "sequential"})
    return files


def _apply(spec: str, special_ids: tuple[int, ...]) -> dict[str, Any]:
    """Positions as EasySteer's ``ApplySpec``."""
    positions = parse_positions(spec)
    plain = {
        "prompt": "all",
        "exclude_prompt_positions": [0],
        "exclude_prompt_tokens": list(special_ids),
    }
    return {
        "every": {"prompt": "all", "generation": "all"},
        "all": {**plain, "generation": "all", "exclude_generation_tokens": list(special_ids)},
        "prompt": plain,
        "generated": {"generation": "all"},
        "answer": {"prompt_positions": [-1], "generation": "all"},
        "last": {"prompt_window": [-positions.count, None]},
    }[positions.kind]


def write_transformer_lens(record: SteeringRecord, stem: str) -> dict[str, bytes]:
    """Intervention specs of TransformerLens 4, by hook name; without positions they act at all."""
    total: dict[str, Vector] = {}
    for site in record.sites:
        if site.vector is not None:
            before = total.get(site.hook_name)
            total[site.hook_name] = site.vector if before is None else before + site.vector
    specs = {hook: {"op": "add", "value": v.tolist()} for hook, v in total.items()}
    return {f"{stem}.json": _json(specs)}


def write_interp_engine(record: SteeringRecord, stem: str) -> dict[str, bytes]:
    """What the field ``steering`` of interp-engine's server takes."""
    layers = {
        str(block): [{"method": "additive", "vector": vector.tolist(), "scale": 1.0}]
        for block, vector in record.by_block().items()
    }
    return {f"{stem}.json": _json([{"point": "resid_post", "layers": layers}])}


def write_svec(record: SteeringRecord, stem: str) -> dict[str, bytes]:
    """A steering vector of AISteer360: rows by layer, one row each."""
    directions = {str(block): [vector.tolist()] for block, vector in record.by_block().items()}
    return {f"{stem}.svec": _json({"model_type": record.model.kind, "directions": directions})}


def read_svec(path: Path) -> dict[str, Vector]:
    """The vectors of such a file, by the name of the site that each is added at.

    Raises:
        InputError: a file of another form, or layers of several rows, which are no one vector.
    """
    try:
        content = json.loads(read_text(path), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON: {error}") from error
    directions = content.get("directions") if isinstance(content, dict) else None
    if not isinstance(directions, dict) or not directions:
        raise InputError(f"{path} is no .svec file: it needs directions by layer")
    vectors: dict[str, Vector] = {}
    for layer, rows in directions.items():
        where = f"{path}, layer {shortened(layer)}"
        if not (layer.isascii() and layer.isdigit() and len(layer) <= 6):
            raise InputError(f"{where}: layers are numbered from 0")
        if isinstance(rows, list) and len(rows) == 1 and isinstance(rows[0], list):
            [rows] = rows
        if isinstance(rows, list) and rows and all(isinstance(row, list) for row in rows):
            raise InputError(
                f"{where} has {len(rows)} rows, a plane or a text's tokens: one vector is read"
            )
        vectors[f"blocks.{int(layer)}.hook_resid_post"] = _numbers(where, rows)
    return vectors


def _numbers(where: str, row: Any) -> Vector:
    if not isinstance(row, list) or not all(type(n) in (int, float) for n in row):
        raise InputError(f"{where}: a vector is a list of numbers, not {shortened(row)}")
    try:
        return np.array(row, dtype=np.float32)
    except OverflowError as error:
        raise InputError(f"{where}: a number is too large") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False).encode()
