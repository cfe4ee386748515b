import os

import pytest

from saepd.common.files import file_sha256
from saepd.models import cache as models
from saepd.models.cache import cache_dir, known_sha256


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.gguf"
    path.write_bytes(b"some weights")
    return path


def test_the_cache_is_the_users_unless_it_is_named(tmp_path, monkeypatch):
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    for value in ("", None):
        if value is None:
            monkeypatch.delenv("SAEPD_CACHE")
        else:
            monkeypatch.setenv("SAEPD_CACHE", value)
        assert cache_dir().name == "saepd"
        assert cache_dir() != tmp_path / "cache"


@pytest.fixture
def read_files(monkeypatch):
    """Files whose content was read to hash it."""
    read = []

    def counted(path):
        read.append(path.name)
        return file_sha256(path)

    monkeypatch.setattr(models, "file_sha256", counted)
    return read


def test_a_file_is_read_once_for_as_long_as_it_stays(source, read_files, monkeypatch):
    monkeypatch.setattr(models, "_SETTLED_SECONDS", -1.0)
    digest = known_sha256(source)
    assert digest == file_sha256(source)
    assert known_sha256(source) == digest
    assert read_files == ["source.gguf"]
    source.write_bytes(b"same weights")
    assert known_sha256(source) == file_sha256(source) != digest
    # Also where somebody sets the time of the change back.
    before = source.stat()
    source.write_bytes(b"some weights")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert known_sha256(source) == digest
    assert len(read_files) == 3


def test_a_file_that_was_just_written_is_read_again(source, read_files):
    known_sha256(source)
    known_sha256(source)
    assert len(read_files) == 2


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"a": 3}', '{"a": [1, 2]}'])
def test_damaged_hashes_are_made_anew(source, cache, content):
    cache.parent.mkdir(parents=True)
    (cache.parent / "hashes.json").write_text(content)
    assert known_sha256(source) == file_sha256(source)
