import json
import shutil

import pytest
from command_line import OPTIONS, refused
from tiny import save_tiny_sae

from saepd.cli.steering import SteeringOptions
from saepd.common.files import CONFIG_FILE
from saepd.models.choice import ModelConfig


def asked(run, *arguments):
    done = run("answer", "So?", "--options", *OPTIONS, "--json", *arguments)
    assert done.code == 0, done.err
    return json.loads(done.out)["branches"]


def test_a_folder_brings_its_model_and_its_sae(run, where, steering):
    named = asked(run, "--steering", steering, *where)
    assert asked(run, "--steering", steering, "--device", "cpu") == named


def test_strength_multiplies_every_coefficient(run, steering):
    one, none, five = (
        asked(run, "--steering", steering, "--strength", n, "--device", "cpu") for n in (1, 0, 5)
    )
    assert none["left"] == pytest.approx(none["base"], abs=1e-5)
    assert one["base"] == pytest.approx(five["base"], abs=1e-6)

    def moved(branches):
        return max(abs(a - b) for a, b in zip(branches["left"], branches["base"], strict=True))

    assert moved(five) > moved(one) > 0


def test_what_is_given_takes_the_place_of_what_the_folder_names(files, steering):
    recorded = SteeringOptions(steering).chosen(ModelConfig())
    assert (recorded.model, recorded.sae) == (files.model, files.sae)
    other = ModelConfig(sae="release", sae_id="id", dtype="float32", device="cpu")
    given = frozenset({"sae", "sae_id", "device", "steering"})
    chosen = SteeringOptions(steering, given=given).chosen(other)
    assert (chosen.model, chosen.sae, chosen.sae_id) == (files.model, "release", "id")
    assert chosen.device == "cpu"


def test_an_sae_that_is_not_the_folders_is_refused_by_the_option_that_named_it(
    run, steering, tmp_path
):
    sae = save_tiny_sae(tmp_path / "sae", "jumprelu")
    done = run("answer", "So?", "--options", *OPTIONS, "--steering", steering, "--sae", sae)
    refused(done, "was made with another SAE", "without --sae, what")


def test_a_direction_named_like_the_base_model_is_refused(run, steering, tmp_path):
    folder = shutil.copytree(steering, tmp_path / "steering")
    story = json.loads((folder / CONFIG_FILE).read_text())
    story["directions"][0]["perspective"] = "base"
    (folder / CONFIG_FILE).write_text(json.dumps(story))
    done = run("answer", "So?", "--options", *OPTIONS, "--steering", folder)
    refused(done, "holds a direction named base")
