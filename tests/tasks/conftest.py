"""Where the public data lie that some tests read; nothing of them is copied into the project."""

import os
from pathlib import Path

import pytest

BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data():
    """A function from a file's name to its path; it skips the test where the file is missing."""
    folder = Path(os.environ.get("SAEPD_DATA", BESIDE))

    def find(name=""):
        if not (folder / name).exists():
            pytest.skip(f"needs {name or 'the folder'} of ../shared/data, or of $SAEPD_DATA")
        return folder / name

    return find
