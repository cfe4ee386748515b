import os

import pytest

from saepd.sweeps.point import content
from saepd.sweeps.point.content import content_of


@pytest.fixture
def large(tmp_path):
    """A file too large to be read whole, of nothing but zeros."""
    file = tmp_path / "model.safetensors"
    with file.open("wb") as opened:
        opened.truncate(content._READ_WHOLE + 12345)
    return file


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_a_large_file_of_other_weights_is_another_wherever_they_lie(large, tmp_path, share):
    before = content_of(str(tmp_path))
    # A weight of a small model: a fiftieth of the file.
    size = large.stat().st_size
    length = size // 50
    with large.open("r+b") as opened:
        opened.seek(int(share * (size - length)))
        opened.write(b"\1" * length)
    assert large.stat().st_size == size
    assert content_of(str(tmp_path)) != before


def test_a_copy_of_a_large_file_has_the_same_content(large, tmp_path):
    before = content_of(str(large))
    os.utime(large, (1, 1))
    assert content_of(str(large)) == before


def test_what_is_no_path_has_no_content(tmp_path):
    assert content_of(None) is None
    assert content_of(str(tmp_path / "none")) is None
    assert content_of("owner/name") is None
