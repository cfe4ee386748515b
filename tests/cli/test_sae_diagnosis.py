import json

import pytest
from command_line import refused
from tiny import D_MODEL, save_tiny_sae


def test_a_configuration_tells_what_an_sae_can_do(run, tmp_path):
    folder = save_tiny_sae(tmp_path / "sae", "jumprelu")
    done = run("doctor", "--sae", folder, "--json")
    assert done.code == 0, done.err
    found = {check["name"]: check for check in json.loads(done.out)}
    assert found["architecture"]["detail"] == f"jumprelu, {D_MODEL} to {2 * D_MODEL}"
    assert found["site"]["detail"] == "blocks.1.hook_resid_post"
    assert "can be added, scaled" in found["steering"]["detail"]
    assert found["model"]["detail"] == "model"
    assert all(check["ok"] for check in found.values())


def test_what_cannot_steer_is_said_and_ends_with_code_two(run, tmp_path):
    folder = save_tiny_sae(tmp_path / "sae", hook_name="blocks.1.hook_resid_mid")
    done = run("doctor", "--sae", folder)
    assert done.code == 2
    assert "only the block's MLP" in done.out
    assert "not all is well: steering" in done.err


def test_a_release_lists_its_saes_without_a_network(run):
    done = run("doctor", "--sae", "gemma-scope-2b-pt-res", "--json")
    assert done.code == 0, done.err
    [check] = json.loads(done.out)
    assert "SAEs for gemma-2-2b: embedding/" in check["detail"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sae", "gpt2-smal-res-jb"], "gpt2-small-res-jb"),
        (["--sae", "gpt2-small-res-jb", "--sae-id", "blocks.8.hook"], "blocks.8.hook_resid_pre"),
        (["--sae-id", "x"], "without its release"),
        (["--sae", "x", "--load"], "drop --load"),
    ],
)
def test_wrong_names_and_combinations_are_refused(run, arguments, said):
    refused(run("doctor", *arguments), said)


def rewritten(folder, metadata, **settings):
    path = folder / "cfg.json"
    config = json.loads(path.read_text())
    config |= settings
    config["metadata"] |= metadata
    path.write_text(json.dumps(config))
    return folder


def test_a_transcoder_is_told_with_both_its_sites(run, tmp_path):
    folder = rewritten(
        save_tiny_sae(tmp_path / "sae"),
        {"hook_name": "blocks.1.mlp.hook_in", "hook_name_out": "blocks.1.hook_mlp_out"},
        architecture="skip_transcoder",
        apply_b_dec_to_input=False,
        d_out=D_MODEL,
    )
    done = run("doctor", "--sae", folder, "--json")
    assert done.code == 0, done.err
    found = {check["name"]: check for check in json.loads(done.out)}
    told = "read at blocks.1.mlp.hook_in, written at blocks.1.hook_mlp_out"
    assert found["site"]["detail"] == told
    assert found["steering"]["ok"]


def test_crosscoders_are_refused_in_one_sentence(run, tmp_path):
    folder = rewritten(save_tiny_sae(tmp_path / "sae"), {}, architecture="crosscoder")
    refused(run("doctor", "--sae", folder), "unknown architecture 'crosscoder'; SAELens has")
    clt = ["--sae", "mntss-gemma-2-2b-2.5m-clt-as-per-layer", "--sae-id", "layer_0"]
    refused(run("doctor", *clt), "is a cross-layer transcoder, whose latents write to every later")
