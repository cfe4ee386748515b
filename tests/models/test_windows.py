from types import SimpleNamespace

import pytest
import transformers

from saepd.models.windows import attention_windows


@pytest.mark.parametrize(
    ("config", "windows"),
    [
        (transformers.LlamaConfig(), []),
        (transformers.MistralConfig(sliding_window=64), [64]),
        (transformers.MistralConfig(sliding_window=None), []),
        (transformers.GPTNeoConfig(window_size=32), [32]),
        (transformers.ModernBertDecoderConfig(local_attention=16), [8]),
        (transformers.Llama4TextConfig(attention_chunk_size=48), [48]),
    ],
    ids=lambda one: type(one).__name__,
)
def test_windows_are_found_whatever_a_configuration_calls_them(config, windows):
    found = attention_windows(SimpleNamespace(config=config))
    assert sorted(set(found)) == windows
