import json
import os
import time
from pathlib import Path

import pytest

from saepd.common.errors import InputError
from saepd.common.files import file_sha256
from saepd.models import cache as cache_module
from saepd.models import conversion as models
from saepd.models.cache import converted_folder, is_intact
from saepd.models.conversion import converted


@pytest.fixture
def conversions(monkeypatch):
    """Conversions that copy the source's text, and the folders they were made in."""
    made = []

    def convert(source, out):
        made.append(out)
        (out / "weights").write_bytes(source.read_bytes())
        (out / "tokenizer").write_text("tokens")

    monkeypatch.setattr(models, "convert_gguf", convert)
    return made


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.gguf"
    path.write_bytes(b"some weights")
    return path


def test_a_conversion_is_made_once_and_appears_whole(source, conversions, cache, monkeypatch):
    seen = []
    convert = models.convert_gguf

    def watched(source, out):
        convert(source, out)
        seen.extend(p for p in cache.iterdir() if not p.name.startswith("."))

    monkeypatch.setattr(models, "convert_gguf", watched)
    folder = converted(source)
    assert seen == []
    assert folder == converted_folder(source, file_sha256(source))
    assert folder.parent == cache
    assert (folder / "weights").read_bytes() == b"some weights"
    assert converted(source) == folder
    assert len(conversions) == 1
    assert list(cache.iterdir()) == [folder]


def test_another_source_of_the_same_name_is_converted_anew(source, conversions):
    first = converted(source)
    source.write_bytes(b"other weights")
    second = converted(source)
    assert first != second
    assert (second / "weights").read_bytes() == b"other weights"
    assert (first / "weights").read_bytes() == b"some weights"


DISORDERS = {
    "a truncated file": lambda folder: (folder / "weights").write_bytes(b"some"),
    "a changed byte": lambda folder: (folder / "weights").write_bytes(b"some w3ights"),
    "a missing file": lambda folder: (folder / "tokenizer").unlink(),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "half a manifest": lambda folder: (folder / "manifest.json").write_text('{"files":'),
    "a manifest of nothing": lambda folder: (folder / "manifest.json").write_text("{}"),
    "the manifest of another source": lambda folder: (folder / "manifest.json").write_text(
        json.dumps({"source_sha256": "0" * 64, "files": {}})
    ),
}


@pytest.mark.parametrize("disorder", DISORDERS)
def test_a_damaged_conversion_is_made_again(source, conversions, cache, disorder):
    folder = converted(source)
    DISORDERS[disorder](folder)
    assert converted(source) == folder
    assert len(conversions) == 2
    assert (folder / "weights").read_bytes() == b"some weights"
    assert (folder / "tokenizer").read_text() == "tokens"
    assert converted(source) == folder
    assert len(conversions) == 2
    assert list(cache.iterdir()) == [folder]


@pytest.mark.parametrize("error", [InputError, KeyboardInterrupt])
def test_a_failed_conversion_leaves_nothing(source, conversions, cache, monkeypatch, error):
    def fail(_source, out):
        (out / "weights").write_bytes(b"half")
        raise error("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(models, "convert_gguf", fail)
        with pytest.raises(error, match="stopped"):
            converted(source)
    assert list(cache.iterdir()) == []
    assert (converted(source) / "weights").read_bytes() == b"some weights"


def test_of_two_that_convert_at_once_the_first_one_stays(source, conversions, cache, monkeypatch):
    convert, nested = models.convert_gguf, []

    def overtaken(source, out):
        convert(source, out)
        if not nested:
            nested.append(None)
            folder = converted(source)
            nested[0] = folder.stat().st_ino

    monkeypatch.setattr(models, "convert_gguf", overtaken)
    folder = converted(source)
    assert len(conversions) == 2
    # The other one may be reading its files already.
    assert folder.stat().st_ino == nested[0]
    assert list(cache.iterdir()) == [folder]


def test_a_conversion_that_appears_at_the_last_moment_is_used(
    source, conversions, cache, monkeypatch
):
    def rival(work, folder):
        Path(work).rename(folder)
        raise OSError("directory not empty")

    monkeypatch.setattr(models.os, "replace", rival)
    folder = converted(source)
    assert (folder / "weights").read_bytes() == b"some weights"

    def refuse(_work, _folder):
        raise OSError("disk full")

    monkeypatch.setattr(models.os, "replace", refuse)
    source.write_bytes(b"other weights")
    with pytest.raises(OSError, match="disk full"):
        converted(source)
    assert list(cache.iterdir()) == [folder]


def test_another_version_of_what_converts_converts_anew(source, conversions, monkeypatch):
    first = converted(source)
    monkeypatch.setattr(cache_module, "version", lambda name: f"{name} of tomorrow")
    second = converted(source)
    assert first != second
    assert len(conversions) == 2
    assert converted(source) == second


def test_damage_that_leaves_size_and_times_alone_is_found_afresh(source, conversions, monkeypatch):
    monkeypatch.setattr(cache_module, "_SETTLED_SECONDS", -1.0)
    folder = converted(source)
    digest = file_sha256(source)
    assert is_intact(folder, digest)
    monkeypatch.setattr(cache_module, "file_sha256", lambda path: "0" * 64)
    assert is_intact(folder, digest)
    assert not is_intact(folder, digest, afresh=True)


def test_what_a_killed_conversion_left_is_removed_once_nobody_can_be_at_it(
    source, conversions, cache
):
    name = converted_folder(source, file_sha256(source)).name
    old, new = cache / f".{name}-old", cache / f".{name}-new"
    for left in (old, new):
        left.mkdir(parents=True)
        (left / "weights").write_bytes(b"half")
    long_ago = time.time() - 2 * 24 * 3600
    os.utime(old, (long_ago, long_ago))
    converted(source)
    assert not old.exists()
    assert new.exists()
