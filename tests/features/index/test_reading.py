import shutil

import pytest

from saepd.common.errors import InputError
from saepd.features.index.feature_index import INFO
from saepd.features.index.reading import as_index, index_folder, load_index


def test_an_index_of_another_sae_is_refused(index, random_sae):
    with pytest.raises(InputError, match="index of another SAE"):
        load_index(index.folder, random_sae("topk", d_sae=48, seed=1))


def test_what_is_no_index_is_refused(index, tmp_path, tiny_topk):
    with pytest.raises(InputError, match="holds no index"):
        load_index(tmp_path)
    with pytest.raises(InputError, match="has no index beside it"):
        load_index(None, tiny_topk)
    damaged = shutil.copytree(index.folder, tmp_path / "damaged")
    (damaged / "index.safetensors").write_bytes(b"{}")
    with pytest.raises(InputError, match="damaged index"):
        load_index(damaged)
    (damaged / INFO).write_text('{"format": 99}')
    with pytest.raises(InputError, match="format 99"):
        load_index(damaged)
    (damaged / INFO).write_text("[" * 100_000)
    with pytest.raises(InputError, match="not readable"):
        load_index(damaged)


def test_an_index_or_its_folder_will_do(index):
    assert as_index(index) is index
    assert as_index(str(index.folder)).info == index.info


def test_an_index_is_looked_for_beside_the_sae(tmp_path):
    with pytest.raises(InputError, match="no such SAE folder"):
        index_folder(tmp_path / "none")
