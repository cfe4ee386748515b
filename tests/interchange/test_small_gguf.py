"""Control vectors from anywhere: what the library reads is read, and nothing else is believed."""

import struct

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from saepd.common.errors import InputError
from saepd.interchange.control_vectors import read_control_vector
from saepd.interchange.small_gguf import read_small_gguf

FLOATS = arrays(np.float32, st.integers(1, 9), elements=st.floats(-9, 9, width=32))


def save(path, tensors, architecture="controlvector", extra=()):
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_string("controlvector.model_hint", "llama")
    for add, *values in extra:
        getattr(writer, add)(*values)
    for name, value in tensors.items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@given(st.dictionaries(st.integers(0, 99), FLOATS, min_size=1, max_size=4))
def test_what_the_library_writes_is_read(tmp_path_factory, vectors):
    path = tmp_path_factory.mktemp("gguf") / "v.gguf"
    save(
        path,
        {f"direction.{block}": vector for block, vector in vectors.items()},
        extra=[
            ("add_int32", "controlvector.layer_count", -1),
            ("add_array", "some.names", ["a", "bc"]),
            ("add_array", "some.numbers", [1, 2, 3]),
            ("add_float64", "some.fraction", 0.5),
            ("add_bool", "some.flag", True),
        ],
    )
    fields, _ = read_small_gguf(path)
    assert fields["controlvector.layer_count"] == -1
    assert (fields["some.fraction"], fields["some.flag"]) == (0.5, True)
    read = read_control_vector(path)
    assert list(read) == [f"blocks.{block}.hook_resid_post" for block in vectors]
    for block, vector in vectors.items():
        assert np.array_equal(read[f"blocks.{block}.hook_resid_post"], vector)


@given(cut=st.integers(0, 400))
def test_a_file_that_ends_too_early_is_refused(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("gguf") / "v.gguf"
    whole = save(path, {"direction.1": np.ones(64, np.float32)}).read_bytes()
    path.write_bytes(whole[: min(cut, len(whole) - 1)])
    with pytest.raises(InputError, match="is no GGUF of vectors"):
        read_control_vector(path)


@given(st.binary(max_size=300))
def test_any_bytes_behind_the_magic_are_read_or_refused(tmp_path_factory, payload):
    path = tmp_path_factory.mktemp("gguf") / "v.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<I", 3) + payload)
    with pytest.raises(InputError):
        read_control_vector(path)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (struct.pack("<IQQ", 9, 0, 0), "of version 9"),
        (struct.pack("<IQQ", 3, 2**60, 0), "more than 4096 entries"),
        (struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**63), "ends in the middle"),
        (
            struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q1sIIQ", 1, b"a", 9, 0, 2**60),
            "ends in the middle",
        ),
        (
            struct.pack("<IQQ", 3, 1, 0)
            + struct.pack("<Q1sIQQQIQ", 1, b"a", 3, 2**60, 2**60, 2**60, 0, 0),
            "reaches beyond its end",
        ),
    ],
)
def test_what_a_file_claims_is_never_built(tmp_path, body, message):
    path = tmp_path / "v.gguf"
    path.write_bytes(b"GGUF" + body)
    with pytest.raises(InputError, match=message):
        read_control_vector(path)


@pytest.mark.parametrize(
    ("tensors", "architecture", "message"),
    [
        ({"direction.1": np.ones(4, np.float32)}, "llama", "is a GGUF of 'llama'"),
        ({"direction.1": np.ones(4, np.float16)}, "controlvector", "is not of float32"),
        ({"direction.1": np.ones((2, 4), np.float32)}, "controlvector", "one row of numbers"),
        ({"direction.x": np.ones(4, np.float32)}, "controlvector", "are direction.N"),
        ({"other": np.ones(4, np.float32)}, "controlvector", "are direction.N"),
    ],
)
def test_other_ggufs_are_refused(tmp_path, tensors, architecture, message):
    path = save(tmp_path / "v.gguf", tensors, architecture)
    with pytest.raises(InputError, match=message):
        read_control_vector(path)


def test_a_file_of_no_vectors_size_is_not_read(tmp_path):
    path = tmp_path / "v.gguf"
    with path.open("wb") as file:
        file.truncate(65 * 10**6)
    with pytest.raises(InputError, match="larger than 64 MB"):
        read_control_vector(path)
    with pytest.raises(InputError, match="is no file"):
        read_control_vector(tmp_path)
    with pytest.raises(InputError, match="cannot read"):
        read_control_vector(tmp_path / "none.gguf")
