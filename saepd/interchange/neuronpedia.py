"""Neuronpedia: what its forms take, and links that need no key. Nothing is sent from here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from saepd.interchange.record import SteeringRecord

_SITE = "https://neuronpedia.org"
# A link of more latents is longer than browsers take.
_MOST_LINKED = 40


def write_neuronpedia(record: SteeringRecord, stem: str) -> dict[str, bytes]:
    """Bodies for ``/api/vector/new`` and ``/api/list/new-with-features``, and links to open.

    The list and the links are there where the SAE says which of Neuronpedia's it is.
    """
    pages = [s.source.neuronpedia_id for s in record.sites if s.source is not None]
    first_page = next((page for page in pages if page), None)
    model = first_page.split("/")[0] if first_page else record.model.name.rsplit("/", 1)[-1].lower()
    vectors = [
        {
            "modelId": model,
            "layerNumber": block,
            "hookType": "hook_resid_post",
            "vector": vector.tolist(),
            "vectorDefaultSteerStrength": 1,
            "vectorLabel": record.perspective,
        }
        for block, vector in record.by_block().items()
    ]
    features = _features(record)
    files = {f"{stem}.vector.json": _json(vectors)} if vectors else {}
    if features:
        numbered = [{**f, "index": int(f["index"])} for f in features]
        body = {"name": record.perspective, "features": numbered}
        files[f"{stem}.list.json"] = _json(body)
        links = [_quick_list(record.perspective, features), *_links(features), ""]
        files[f"{stem}.links.txt"] = "\n".join(links).encode()
    return files


def latents_link(page: str | None, name: str, latents: Sequence[int]) -> str | None:
    """A link that shows latents of an SAE side by side, at most 40; None where it has no page.

    Args:
        page: ``neuronpedia_id`` in the SAE's metadata.
        name: Heading of the list.
        latents: Their ids, in the order in which they are shown.
    """
    if not page or "/" not in page:
        return None
    return _quick_list(name, [_feature(page, latent) for latent in latents])


def _quick_list(name: str, features: list[dict[str, str]]) -> str:
    shown = json.dumps(features[:_MOST_LINKED])
    return f"{_SITE}/quick-list/?name={quote(name)}&features={quote(shown)}"


def _links(features: list[dict[str, str]]) -> list[str]:
    return [f"{_SITE}/{f['modelId']}/{f['layer']}/{f['index']}" for f in features]


def _feature(page: str, latent: int) -> dict[str, str]:
    model, layer = page.split("/", 1)
    return {"modelId": model, "layer": layer, "index": str(latent)}


def _features(record: SteeringRecord) -> list[dict[str, str]]:
    """Latents as Neuronpedia names them, those that are written most first."""
    weighted = []
    for site in record.sites:
        source = site.source
        if source is None or not source.neuronpedia_id or "/" not in source.neuronpedia_id:
            continue
        weights = source.values or (1.0,) * len(source.latents)
        weighted += [
            (abs(weight), _feature(source.neuronpedia_id, latent))
            for latent, weight in zip(source.latents, weights, strict=True)
        ]
    return [feature for _, feature in sorted(weighted, key=lambda pair: -pair[0])]


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False).encode()
