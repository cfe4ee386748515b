import gguf
import numpy as np
import pytest
import torch
import transformers
from safetensors import safe_open

from saepd.common.errors import InputError
from saepd.models.identity import weights_fingerprint
from saepd.models.load import load_model


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def write_tiny_gguf(folder, path, *, splitting="smollm", add=None):
    """The model of a folder as a GGUF with 32-bit weights, as llama.cpp would convert it.

    ``add`` is called with the writer before anything is written.
    """
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
    writer.add_tokenizer_pre(splitting)
    writer.add_token_list(tokens)
    special = set(tokenizer.all_special_ids)
    writer.add_token_types([3 if i in special else 1 for i in range(len(tokens))])
    writer.add_token_merges(["q x"])
    writer.add_add_bos_token(True)
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
    if add is not None:
        add(writer)
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


def yarn(writer):
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(4.0)


def tensor(name, *shape):
    return lambda writer: writer.add_tensor(name, np.ones(shape, dtype=np.float32))


LEFT_OUT = {
    "a bias": (tensor("blk.0.attn_q.bias", 32), r"has no place for blk\.0\.attn_q\.bias$"),
    "a scaling": (yarn, r"leaves out of .*: llama\.rope\.scaling\.type = yarn, .*factor = 4\.0;"),
    "rotary factors": (tensor("rope_freqs.weight", 4), r"rope_freqs\.weight = rotary factors;"),
    "a window": (
        lambda writer: writer.add_sliding_window(64),
        r"llama\.attention\.sliding_window = 64;",
    ),
}


@pytest.mark.parametrize("what", LEFT_OUT)
def test_what_the_reader_would_leave_out_is_refused(folder, tmp_path, cache, what):
    add, fault = LEFT_OUT[what]
    path = write_tiny_gguf(folder, tmp_path / "more.gguf", add=add)
    with pytest.raises(InputError, match=fault) as caught:
        load_model(path, device="cpu")
    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


def test_scalings_that_change_nothing_are_no_fault(folder, tmp_path):
    def add(writer):
        writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
        writer.add_key_length(8)

    path = write_tiny_gguf(folder, tmp_path / "plain.gguf", add=add)
    assert load_model(path, device="cpu").cfg.model_name == "plain"


def test_text_that_would_be_split_otherwise_is_refused(folder, tmp_path):
    path = write_tiny_gguf(folder, tmp_path / "other.gguf", splitting="deepseek-coder")
    with pytest.raises(InputError, match="splits text the way 'deepseek-coder', which"):
        load_model(path, device="cpu")


def test_the_chat_template_comes_along(folder, tmp_path):
    template = "{{ messages[0]['content'] }}<|end|>"
    path = write_tiny_gguf(
        folder, tmp_path / "chat.gguf", add=lambda writer: writer.add_chat_template(template)
    )
    assert load_model(path, device="cpu").tokenizer.chat_template == template


@pytest.mark.parametrize(("dtype", "kept"), [("float16", "F16"), ("bfloat16", "BF16")])
def test_halves_are_kept_as_halves(folder, tmp_path, cache, dtype, kept):
    halves = tmp_path / "halves"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    model.float().save_pretrained(halves)
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(halves)
    path = write_tiny_gguf(halves, tmp_path / "halves.gguf")
    found, plain = load_model(path, device="cpu"), load_model(halves, device="cpu")
    tokens = torch.arange(3, 33)[None]
    torch.testing.assert_close(found(tokens), plain(tokens))
    [converted] = cache.iterdir()
    with safe_open(converted / "model.safetensors", "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {kept}  # noqa: SIM118
