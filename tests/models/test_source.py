import time

import huggingface_hub.utils
import pytest

from saepd.common.errors import InputError
from saepd.models import source
from saepd.models.source import find_model, read_model


class Hub:
    """A hub that answers, or raises what it was made with."""

    def __init__(self, failure=None, seconds=0.0):
        self.failure, self.seconds = failure, seconds

    def head(self, _url, timeout):
        time.sleep(self.seconds)
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def hub(monkeypatch):
    def install(answer):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.utils, "get_session", lambda: answer)

    return install


def test_what_is_here_is_read_without_the_hub(hub):
    hub(Hub(AssertionError("asked")))
    assert read_model("owner/name", "owner/name", lambda here_only: here_only) is True


def test_what_is_not_here_is_read_from_the_hub(hub):
    hub(Hub())
    seen = []

    def read(here_only):
        seen.append(here_only)
        if here_only:
            raise OSError("not cached")
        return "model"

    assert read_model("owner/name", "owner/name", read) == "model"
    assert seen == [True, False]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Hub(OSError("name not known")), r"\(name not known\)"),
        (Hub(seconds=1.0), r"\(no answer within 0 s\)"),
    ],
)
def test_a_hub_that_cannot_be_reached_is_said_at_once(hub, monkeypatch, answer, why):
    """Downloads would try again for minutes."""
    hub(answer)
    monkeypatch.setattr(source, "_SECONDS_TO_ANSWER", 0.2)
    seen = []

    def read(here_only):
        seen.append(here_only)
        raise OSError("not cached")

    with pytest.raises(InputError, match=f"not in the local cache, and the hub cannot .*{why}"):
        read_model("owner/name", "owner/name", read)
    assert seen == [True]


def test_offline_mode_is_said(monkeypatch):
    def read(_here_only):
        raise OSError("not cached")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        read_model("owner/name", "owner/name", read)


def test_a_folder_that_cannot_be_read_is_not_looked_for_elsewhere(tmp_path, hub):
    hub(Hub(AssertionError("asked")))

    def read(_here_only):
        raise OSError("damaged\nand more")

    with pytest.raises(InputError, match=r"^cannot load the model 'mine': damaged$"):
        read_model(str(tmp_path), "mine", read)


def test_a_snapshot_of_the_hubs_cache_has_the_models_name(tmp_path):
    folder = tmp_path / "models--owner--some-model" / "snapshots" / "0a1b2c3d"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert find_model(str(folder)) == (str(folder), "some-model")
