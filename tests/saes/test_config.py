import pytest

from saepd.common.errors import InputError
from saepd.saes.config import CorpusConfig, TrainConfig


@pytest.mark.parametrize(
    ("config", "settings", "match"),
    [
        (TrainConfig, {"sites": ()}, "name at least one site"),
        (TrainConfig, {"sites": ("a", "a")}, "name at least one site, each once"),
        (TrainConfig, {"expansion": 0}, "expansion is 0: it must be a whole number at least 1"),
        (TrainConfig, {"k": -1}, "k is -1"),
        (TrainConfig, {"k": 2.5}, "k is 2.5: it must be a whole number"),
        (TrainConfig, {"tokens": "many"}, "tokens is 'many': it must be a whole number"),
        (TrainConfig, {"tokens": 0}, "tokens is 0"),
        (TrainConfig, {"batch_size": 0}, "batch_size is 0"),
        (TrainConfig, {"training_tokens": 10}, "at least one batch of 512"),
        (TrainConfig, {"lr": 0.0}, "lr is 0.0: it must be a finite number above 0"),
        (TrainConfig, {"lr": float("nan")}, "lr is nan"),
        (
            TrainConfig,
            {"warm_up_share": 1.5},
            "warm_up_share is 1.5: it must be a .* at least 0 and at most 1",
        ),
        (TrainConfig, {"warm_up_share": 0.6, "decay_share": 0.6}, "more than 1 together"),
        (TrainConfig, {"auxiliary_coefficient": float("inf")}, "auxiliary_coefficient is inf"),
        (TrainConfig, {"checkpoints": -1}, "checkpoints is -1"),
        (TrainConfig, {"card_contexts": 0}, "card_contexts is 0"),
        (TrainConfig, {"model_dtype": "int8"}, "model_dtype is 'int8': use one of float32"),
        (TrainConfig, {"wandb": "on"}, "wandb is 'on': use one of off, offline, online"),
        (
            CorpusConfig,
            {"context_size": 1},
            "context_size is 1: it must be a whole number at least 2",
        ),
        (CorpusConfig, {"passage_characters": 0}, "passage_characters is 0"),
        (CorpusConfig, {"held_out_share": -0.1}, "held_out_share is -0.1"),
        (CorpusConfig, {"chat_share": 0.7, "questionnaire_share": 0.4}, "more than 1 together"),
    ],
)
def test_settings_that_make_no_sense_are_refused_when_made(config, settings, match):
    with pytest.raises(InputError, match=match):
        config(**settings)
