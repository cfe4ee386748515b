import json
from dataclasses import replace

import pytest
import torch
from tiny import D_MODEL, SITE, save_tiny_model, save_tiny_sae

from saepd.common.errors import InputError
from saepd.common.files import CONFIG_FILE, WEIGHTS_FILE
from saepd.directions.direction import Direction
from saepd.directions.edits import EditLatents
from saepd.directions.saving import load_from_disk, save_to_disk
from saepd.interchange.hub_folder import write_hub_folder
from saepd.models.load import load_model
from saepd.saes.load import load_sae

VERDICT = {
    "sentence": "Steering helps: a little.",
    "better than no steering": True,
    "gain": {"nats": 0.0123456, "interval": [0.001, 0.02]},
}


@pytest.fixture
def folder(llama, plain, tmp_path):
    pair = [plain(positions="answer"), plain(2, perspective="| <b>x</b>\n# y", seed=1)]
    save_to_disk(pair, tmp_path / "steering", llama, VERDICT)
    return tmp_path / "steering"


def test_what_is_written_loads_and_names_no_place_of_this_machine(llama, folder, tmp_path):
    out = tmp_path / "out"
    assert len(write_hub_folder(folder, out)) == 1
    assert str(llama.cfg.loaded_from["model"]) in (folder / CONFIG_FILE).read_text()
    for path in (CONFIG_FILE, "README.md"):
        assert str(tmp_path.parent) not in (out / path).read_text()
        assert "/tmp" not in (out / path).read_text()
    for one, other in zip(load_from_disk(out, llama), load_from_disk(folder, llama), strict=True):
        assert torch.equal(one.constant, other.constant)
        assert one.constant.shape == (D_MODEL,)


def test_further_sites_are_on_the_card_and_name_no_place_either(tmp_path):
    model = load_model(save_tiny_model("llama", tmp_path / "model"), device="cpu")
    parts = []
    for i, site in enumerate((SITE, "blocks.2.hook_resid_post")):
        sae = load_sae(save_tiny_sae(tmp_path / f"sae{i}", hook_name=site), model=model)
        parts.append(Direction("d", site, EditLatents(sae, [i], [1.0])))
    save_to_disk(replace(parts[0], also=(parts[1],)), tmp_path / "steering", model)
    out = tmp_path / "out"
    # The model and the SAEs.
    assert len(write_hub_folder(tmp_path / "steering", out)) == 2
    assert str(tmp_path) not in (out / CONFIG_FILE).read_text()
    card = (out / "README.md").read_text()
    assert all(part.hook_name in card.replace("\\", "") for part in parts)


def test_the_card_says_what_the_verdict_says_and_escapes_names(folder, tmp_path):
    write_hub_folder(folder, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| left | blocks.1.hook\\_resid\\_post | add | answer | 1 | none | none |" in card
    assert "\n\nSteering helps: a little.\n\n" in card
    assert "| better than no steering | True |" in card
    assert "| gain, nats | 0.01235 |" in card
    assert "| gain, interval | 0.001, 0.02 |" in card
    assert "\\| \\<b\\>x\\</b\\> \\# y" in card
    assert "<b>" not in card


def test_a_folder_without_a_verdict_says_so(llama, plain, tmp_path):
    save_to_disk(plain(), tmp_path / "steering", llama)
    write_hub_folder(tmp_path / "steering", tmp_path / "out")
    assert "come without a verdict" in (tmp_path / "out" / "README.md").read_text()


def test_damaged_folders_and_the_folder_itself_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match="is the folder that is exported"):
        write_hub_folder(folder, folder)
    (folder / WEIGHTS_FILE).write_bytes(b"other")
    with pytest.raises(InputError, match="are no pair"):
        write_hub_folder(folder, tmp_path / "out")
    story = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps({**story, "format": 99}))
    with pytest.raises(InputError, match="is of format 99"):
        write_hub_folder(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
