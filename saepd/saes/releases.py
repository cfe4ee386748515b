"""SAELens' published dictionaries: which there are, and what was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from saepd.common.errors import InputError, first_line
from saepd.common.messages import shortened
from saepd.models.source import why_unreachable

if TYPE_CHECKING:
    from sae_lens import SAE

T = TypeVar("T")

# SAELens calls this hook_mlp_in, by which TransformerLens means the residual before the norm.
_NORMED_MLP_INPUT = re.compile(r"model\.layers\.(\d+)\.pre_feedforward_layernorm\.output")


def check_release(release: str, sae_id: str | None) -> None:
    """Refuse a release that SAELens does not list, or an id that the release does not have.

    A hub repository (``owner/name``) that SAELens does not list is not known to be wrong.

    Raises:
        InputError: which of the two is wrong, and the names nearest to it; or a release of another
            kind than saepd can use.
    """
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    releases = get_pretrained_saes_directory()
    if release not in releases:
        if "/" in release and sae_id is not None:
            return
        raise InputError(
            f"there is no SAE folder and no SAELens release {shortened(release)}: "
            f"{_nearest(release, releases)}"
        )
    ids = releases[release].saes_map
    if sae_id is None:
        some = ", ".join(list(ids)[:5]) + (", ..." if len(ids) > 5 else "")
        raise InputError(
            f"the release {release!r} has {len(ids)} SAEs and needs a sae_id as well: {some}"
        )
    if sae_id not in ids:
        raise InputError(
            f"the release {release!r} has no SAE {shortened(sae_id)}: {_nearest(sae_id, ids)}"
        )
    if "clt" in (releases[release].conversion_func or ""):
        raise InputError(
            f"the release {release!r} is a cross-layer transcoder, whose latents write to every "
            "later block at once, and saepd edits one block: take a transcoder of single blocks"
        )


def release_config(release: str, sae_id: str) -> dict[str, Any]:
    """The configuration of a published SAE, without its weights.

    Raises:
        InputError: it cannot be fetched or read.
    """
    from sae_lens.loading.pretrained_sae_loaders import load_sae_config_from_huggingface

    config = _read(release, sae_id, lambda: load_sae_config_from_huggingface(release, sae_id))
    metadata = config["metadata"]
    metadata["hook_name"] = _site_read(metadata.get("hook_name"), metadata.get("hf_hook_name"))
    return config


def load_release(release: str, sae_id: str) -> SAE[Any]:
    """A published SAE, in float32 on the CPU.

    Raises:
        InputError: it cannot be fetched or read.
    """
    from sae_lens import SAE

    sae = _read(
        release, sae_id, lambda: SAE.from_pretrained(release, sae_id, device="cpu", dtype="float32")
    )
    metadata = sae.cfg.metadata
    metadata.hook_name = _site_read(metadata.hook_name, metadata.hf_hook_name)
    return sae


def _site_read(hook_name: str | None, hf_hook_name: str | None) -> str | None:
    """The site that an SAE reads, where SAELens' name of it is another one's."""
    match = _NORMED_MLP_INPUT.fullmatch(hf_hook_name or "")
    if match is None or hook_name != f"blocks.{match[1]}.hook_mlp_in":
        return hook_name
    return f"blocks.{match[1]}.mlp.hook_in"


def _read(release: str, sae_id: str, read: Callable[[], T]) -> T:
    """What SAELens reads from the hub, or out of the cache where the hub cannot be reached."""
    from huggingface_hub import constants

    why, was_offline = why_unreachable(), constants.HF_HUB_OFFLINE
    # Else every file would be asked for in vain, for minutes.
    constants.HF_HUB_OFFLINE = bool(why)
    try:
        with _shapes_in_cache() if why else nullcontext():
            return read()
    except Exception as error:
        raise _unreadable(release, sae_id, error, why) from error
    finally:
        constants.HF_HUB_OFFLINE = was_offline


@contextmanager
def _shapes_in_cache() -> Iterator[None]:
    """Let SAELens learn shapes, which some configurations are made of, from files in the cache.

    It asks the hub for them even where it has the file.
    """
    from huggingface_hub import hf_hub_download
    from sae_lens.loading import pretrained_sae_loaders
    from safetensors import safe_open

    def shapes(repo_id: str, filename: str) -> dict[str, list[int]]:
        with safe_open(hf_hub_download(repo_id, filename), framework="pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118

    before = pretrained_sae_loaders.get_safetensors_tensor_shapes
    pretrained_sae_loaders.get_safetensors_tensor_shapes = shapes
    try:
        yield
    finally:
        pretrained_sae_loaders.get_safetensors_tensor_shapes = before


def _unreadable(release: str, sae_id: str, error: Exception, why: str) -> InputError:
    # The hub, its cache and some thirty converters raise unrelated classes.
    from sae_lens.loading.pretrained_saes_directory import get_repo_id_and_folder_name

    repo, path = get_repo_id_and_folder_name(release, sae_id)
    what = f"the SAE {sae_id!r} of release {release!r}, which is the path {path!r} of the hub "
    what += f"repository {repo!r}"
    if why:
        return InputError(
            f"{what}, is not in the local cache, and the hub cannot be reached ({why}): load it "
            "once with a network"
        )
    return InputError(f"cannot load {what}: {first_line(error)}")


def _nearest(name: str, known: Collection[str]) -> str:
    """The names most like one that does not exist."""
    lower = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name[:200].lower(), lower, n=5, cutoff=0.4)
    names = [lower[each] for each in close] or list(known)[:5]
    return f"the {'nearest' if close else 'first'} of {len(known)} are {', '.join(names)}"
