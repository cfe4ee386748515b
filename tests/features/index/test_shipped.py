"""The indexes that come with the shipped SAEs."""

import numpy as np
import pytest

from saepd.features.index.feature_index import INFO
from saepd.features.index.reading import OWN, load_index
from saepd.features.index.search import search
from saepd.saes.load import sae_config, shipped_folders

FOLDERS = [folder / OWN for folder in shipped_folders() if (folder / OWN / INFO).is_file()]


def test_there_is_one_for_every_shipped_sae_and_they_are_small():
    assert len(FOLDERS) == len(shipped_folders()) == 3
    files = [file for folder in FOLDERS for file in folder.iterdir()]
    assert sum(file.stat().st_size for file in files) <= 20e6
    assert all((folder / "LICENCE.txt").is_file() for folder in FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.parent.name)
def test_it_is_of_its_sae_and_says_where_its_texts_are_from(folder):
    index = load_index(folder)
    assert index.info["hook_name"] == folder.parent.name
    assert "public domain" in index.info["about"]
    assert (index.density > 0).mean() > 0.98
    assert np.nanmedian(index.array("label_scores")) > 0.6


def test_latents_are_found_by_what_they_are_about():
    index = load_index(next(f for f in FOLDERS if "blocks.15." in str(f)))
    contexts = [one.context.text for one in search("bus", index, n=3)]
    assert any("bus" in text for text in contexts)


def test_where_nothing_is_named_it_is_that_of_the_shipped_sae_everywhere():
    index = load_index()
    folder, _ = sae_config(None)
    assert index.folder == folder / OWN
    assert search("money and taxes") == search("money and taxes", index)


@pytest.mark.slow
@pytest.mark.parametrize("block", [10, 15, 20])
def test_it_is_found_beside_the_sae_and_fits_it(block):
    from saepd.saes.load import load_sae

    assert load_index(None, load_sae(block)).d_sae == 4608
