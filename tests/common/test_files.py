import json
import os
import stat

import pytest

from saepd.common import files
from saepd.common.files import file_sha256, write_atomically, write_json


def test_a_file_is_written_with_its_folders(tmp_path):
    path = tmp_path / "a" / "b" / "c.bin"
    write_atomically(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    write_atomically(path, b"")
    assert path.read_bytes() == b""
    assert list(path.parent.iterdir()) == [path]


def test_the_old_file_is_whole_until_the_new_one_is(tmp_path, monkeypatch):
    path = tmp_path / "c.txt"
    path.write_bytes(b"old")
    seen = []
    replace = os.replace

    def watched(source, target):
        with open(source, "rb") as file:
            seen.append((path.read_bytes(), file.read(), os.path.dirname(source)))
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", watched)
    write_atomically(path, b"new")
    # The new bytes lie in the same folder, since a rename cannot cross file systems.
    assert seen == [(b"old", b"new", str(tmp_path))]
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt("stopped")])
@pytest.mark.parametrize("step", ["replace", "chmod"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step, error):
    path = tmp_path / "c.txt"
    path.write_bytes(b"old")

    def fail(*_args):
        raise error

    monkeypatch.setattr(files.os, step, fail)
    with pytest.raises(type(error), match=str(error)):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_the_way_is_left_alone(tmp_path):
    (tmp_path / "c" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        write_atomically(tmp_path / "c", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    assert (tmp_path / "c" / "inside").is_dir()


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_results_are_as_readable_as_other_files(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "c", b"new")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == mode


def test_json_is_written_as_it_is_read(tmp_path):
    value = {"naïve": [1, 2.5, None, True], "nested": {"a": "\N{SNOWMAN}\n"}}
    write_json(tmp_path / "c.json", value)
    assert json.loads((tmp_path / "c.json").read_bytes()) == value
    assert "\N{SNOWMAN}" in (tmp_path / "c.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_is_no_json_is_refused_before_anything_is_written(tmp_path, value):
    path = tmp_path / "c.json"
    write_json(path, 1)
    with pytest.raises((ValueError, TypeError), match="JSON"):
        write_json(path, [value])
    assert path.read_text() == "1"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_known_by_its_content(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"abc")
    other.write_bytes(b"abc")
    # From FIPS 180-2, appendix B.1.
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(one) == file_sha256(other) == known
