"""No test of this room sees the user's cache."""

import pytest
from tiny import save_tiny_model


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder of conversions in a cache of its own."""
    monkeypatch.setenv("SAEPD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model("llama", tmp_path_factory.mktemp("models") / "some-model")
