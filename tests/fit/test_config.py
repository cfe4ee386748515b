import pytest

from saepd.common.errors import InputError
from saepd.features.config import FeatureConfig
from saepd.fit.config import DirectionConfig, FitConfig, LearningConfig

NAN = float("nan")


@pytest.mark.parametrize(
    ("kind", "settings", "match"),
    [
        (DirectionConfig, {"mode": "foo"}, "unknown mode 'foo': use one of add, scale, clamp"),
        (DirectionConfig, {"mode": "reconstruct"}, "unknown mode 'reconstruct'"),
        (DirectionConfig, {"positions": "nowhere"}, "unknown positions 'nowhere'"),
        (DirectionConfig, {"coefficient": NAN}, "the coefficient is nan"),
        (DirectionConfig, {"coefficient": "2"}, "the coefficient is '2': it must be a finite"),
        (DirectionConfig, {"kl_budget": -1.0}, "the KL budget is -1.0: it must be .* at least 0"),
        (DirectionConfig, {"factor": float("inf")}, "the factor is inf"),
        (FitConfig, {"features": None}, "features is None: it must be of class FeatureConfig"),
        (FitConfig, {"direction": FeatureConfig()}, "it must be of class DirectionConfig"),
        (FitConfig, {"readout": "text"}, "readout is 'text': it must be of class ReadoutConfig"),
        (LearningConfig, {"n_latents": -1}, "n_latents is -1: it must be .* at least 0"),
        (LearningConfig, {"shared": ()}, r"shared is \(\): it must be a list of at least one"),
        (LearningConfig, {"own": (0.1, 0.0)}, "a number of own is 0.0: .* above 0"),
        (LearningConfig, {"biases": (NAN,)}, "a number of biases is nan"),
        (LearningConfig, {"n_folds": 1}, "n_folds is 1: it must be a whole number at least 2"),
        (LearningConfig, {"gate": "alway"}, "unknown use of gates 'alway': did you mean 'always'"),
        (LearningConfig, {"max_dose": 0.0}, "max_dose is 0.0: it must be .* above 0"),
    ],
)
def test_a_configuration_checks_itself(kind, settings, match):
    kind()
    with pytest.raises(InputError, match=match):
        kind(**settings)
