"""Find an index on disk, and refuse one that is damaged or of another SAE."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from saepd.common.checks import check_path
from saepd.common.errors import InputError, first_line
from saepd.features.index.feature_index import INFO, FeatureIndex
from saepd.saes.load import sae_fingerprint, sae_folder, sae_hook_name, source_folder

if TYPE_CHECKING:
    from sae_lens import SAE

FORMAT = 1
# The SAEs that an index at hand was found to be of: to hash weights again takes its time.
_of_sae: weakref.WeakKeyDictionary[FeatureIndex, weakref.WeakSet[Any]] = weakref.WeakKeyDictionary()
# The folder that an SAE's own index is in, within the SAE's.
OWN = "index"


def read_info(folder: Path) -> dict[str, Any]:
    """What an index is of, before anything large is read.

    Raises:
        InputError: the folder holds no index, or one of another format.
    """
    path = folder / INFO
    if not path.is_file():
        raise InputError(f"{folder} holds no index: build one with saepd index --out {folder}")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        form = info["format"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is not readable as an index: {first_line(error)}") from error
    if form != FORMAT:
        raise InputError(f"{folder} is an index of format {form!r}; this version reads {FORMAT}")
    return info


def sae_identity(sae: SAE[Any]) -> dict[str, str]:
    """What makes an SAE another one: its weights, its site and its architecture."""
    return {
        "sae": sae_fingerprint(sae),
        "site": sae_hook_name(sae),
        "architecture": sae.cfg.architecture(),
    }


def own_index(sae: SAE[Any]) -> FeatureIndex | None:
    """The index in the folder of an SAE; None where there is none.

    Raises:
        InputError: the index is damaged, or of another SAE.
    """
    folder = sae_folder(sae)
    if folder is None or not (folder / OWN / INFO).is_file():
        return None
    return load_index(folder / OWN, sae)


def index_folder(source: str | Path | int | None = None, sae_id: str | None = None) -> Path:
    """The folder of the index beside an SAE, without loading the SAE.

    Args:
        source: Where the SAE is loaded from, as for `saepd.load_sae`; if None, the shipped SAE.
        sae_id: The SAE's id within a release.

    Raises:
        InputError: no such SAE, or one of a release, which has no folder.
    """
    folder = source_folder(source, sae_id)
    if folder is None:
        raise InputError(
            "an SAE of a release has no index beside it: build one with saepd index, and name its "
            "folder with --index"
        )
    return folder / OWN


def load_index(folder: str | Path | None = None, sae: SAE[Any] | None = None) -> FeatureIndex:
    """Read an index, and check that it is of the SAE at hand.

    Args:
        folder: Folder that the index lies in; if None, it is looked for beside the SAE, or, where
            no SAE is given either, beside the shipped SAE.
        sae: The SAE that the index must be of; if None, an index of any SAE is read.

    Raises:
        InputError: no path, no index there, a damaged one, or one of another SAE.
    """
    if folder is None and sae is not None:
        index = own_index(sae)
        if index is None:
            raise InputError(
                "this SAE has no index beside it: build one with saepd index, and name its folder"
            )
        return index
    if folder is not None:
        check_path("folder", folder)
    folder = index_folder() if folder is None else Path(folder)
    info = read_info(folder)
    if sae is not None:
        _check_of(folder, info, sae)
    try:
        return FeatureIndex(folder, info)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder} is a damaged index: {first_line(error)}") from error


def as_index(index: FeatureIndex | str | Path | None, sae: SAE[Any] | None = None) -> FeatureIndex:
    """An index at hand, or else as `load_index` reads it; one of another SAE is refused.

    Raises:
        InputError: whatever `load_index` refuses.
    """
    if not isinstance(index, FeatureIndex):
        return load_index(index, sae)
    known = _of_sae.setdefault(index, weakref.WeakSet())
    if sae is not None and sae not in known:
        _check_of(index.folder, index.info, sae)
        known.add(sae)
    return index


def _check_of(folder: Path, info: dict[str, Any], sae: SAE[Any]) -> None:
    if any(info["identity"].get(name) != own for name, own in sae_identity(sae).items()):
        raise InputError(
            f"{folder} is an index of another SAE (at {info['hook_name']} of "
            f"{info['model_name']}): build one of this SAE with saepd index"
        )
