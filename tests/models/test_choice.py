import inspect

import pytest

from saepd.common.errors import InputError
from saepd.models.choice import ModelConfig
from saepd.models.load import load_model


def test_settings_are_those_that_load_model_takes():
    parameters = inspect.signature(load_model).parameters
    settings = ModelConfig().model_settings()
    assert set(settings) == set(parameters) - {"name"}
    assert all(settings[name] == parameters[name].default for name in settings)


def test_sae_is_the_shipped_one_unless_another_is_named():
    assert ModelConfig(block=20).sae_source == 20
    assert ModelConfig(model="m", sae="release", sae_id="id").sae_source == "release"
    with pytest.raises(InputError, match="a model of your own needs an SAE of its own"):
        _ = ModelConfig(model="m").sae_source


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"sae_id": "layer_5"}, "the SAE id 'layer_5' is given without its release"),
        ({"dtype": "float23"}, "unknown dtype 'float23': did you mean 'float32'"),
        ({"quantize": "4bits"}, "unknown quantize '4bits': did you mean '4bit'"),
        ({"device": "cpu", "device_map": "auto"}, "device and device_map exclude each other"),
        ({"revision": "main"}, "a revision is of a model on the hub"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings, match):
    with pytest.raises(InputError, match=match):
        ModelConfig(**settings)
