"""A steering folder that is a repository of the Hugging Face hub: its two files, and nothing else.

``hf://user/name`` is the newest version, ``hf://user/name@revision`` that of a branch, tag or
commit. What was fetched once is taken from the cache afterwards.
"""

from __future__ import annotations

import re
from pathlib import Path

from saepd.common.checks import check_path
from saepd.common.errors import InputError
from saepd.common.files import CONFIG_FILE, WEIGHTS_FILE
from saepd.common.messages import shortened

# A Path makes one slash of two.
_ADDRESS = re.compile(r"hf:/{1,2}(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


def local_folder(folder: str | Path) -> Path:
    """The folder itself, or where the files of an address on the hub are on this machine.

    Raises:
        InputError: an address of another form, or files that are neither here nor can be fetched.
    """
    check_path("folder", folder)
    name = str(folder)
    if not name.startswith("hf:"):
        return Path(folder)
    match = _ADDRESS.fullmatch(name)
    if match is None:
        raise InputError(
            f"{shortened(name)} is no address on the hub: write hf://user/name, or "
            "hf://user/name@revision"
        )
    # It loads torch, which a folder that is here does without.
    from saepd.models.source import read_model

    address = f"hf://{match['repo']}" + (f"@{match['revision']}" if match["revision"] else "")

    def read(here_only: bool) -> Path:
        from huggingface_hub import hf_hub_download

        files = [
            hf_hub_download(
                match["repo"], name, revision=match["revision"], local_files_only=here_only
            )
            for name in (CONFIG_FILE, WEIGHTS_FILE)
        ]
        return Path(files[0]).parent

    return read_model(match["repo"], address, read, what="steering folder")
