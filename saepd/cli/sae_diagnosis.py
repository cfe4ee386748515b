"""What an SAE can do, by its configuration alone: nothing large is fetched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from saepd.cli.diagnosis import Check
from saepd.common.messages import shortlist

_GB = 1e9
_FLOAT32 = 4


def diagnose_sae(source: str, sae_id: str | None) -> list[Check]:
    """Whether an SAE can be read and can steer, at which site, of which model, and what it takes.

    Of a release without an id, which SAEs there are.

    Args:
        source: SAELens release, hub repository, or folder.
        sae_id: Id of the SAE within a release.

    Raises:
        InputError: no such release, id or folder, or a configuration that cannot be read.
    """
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    from saepd.saes.load import sae_config

    releases = get_pretrained_saes_directory()
    if sae_id is None and source in releases:
        release = releases[source]
        detail = f"{len(release.saes_map)} SAEs for {release.model}: {shortlist(release.saes_map)}"
        return [Check("release", True, detail, "choose one with --sae-id")]
    _, config = sae_config(source, sae_id)
    return list(_checks(config))


def _checks(config: dict[str, Any]) -> Iterator[Check]:
    from saepd.saes.abilities import TRANSCODERS, abilities_of

    able = abilities_of(config)
    metadata = config.get("metadata") or {}
    kind, site = config["architecture"], metadata.get("hook_name")
    yield Check("architecture", able.reads, f"{kind}, {config['d_in']} to {config['d_sae']}")
    place = str(site or "not said")
    if kind in TRANSCODERS:
        place = f"read at {place}, written at {metadata.get('hook_name_out') or 'not said'}"
    yield Check("site", bool(site), place, "" if site else "saepd needs one")
    yield Check(
        "steering",
        able.writes,
        "its latents can be added, scaled, clamped and ablated" if able.writes else able.why_not,
        "" if able.writes or not able.reads else "its latents can be read all the same",
    )
    name = metadata.get("model_name")
    yield Check("model", bool(name), str(name or "not said"), "" if name else "give --any-model")
    yield _memory(config)
    if page := metadata.get("neuronpedia_id"):
        yield Check("pages of its latents", True, f"https://neuronpedia.org/{page}/LATENT")


def _memory(config: dict[str, Any]) -> Check:
    import psutil

    # Encoder and decoder; biases and thresholds are a thousandth of them.
    width = int(config["d_in"]) + int(config.get("d_out") or config["d_in"])
    needed = width * int(config["d_sae"]) * _FLOAT32 / _GB
    free = psutil.virtual_memory().available / _GB
    return Check(
        "memory",
        needed < free,
        f"{needed:.2g} GB as float32, beside the model; {free:.1f} GB are free",
        "" if needed < free else "close other programs, or choose a narrower SAE",
    )
