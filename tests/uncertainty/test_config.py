import pytest

from saepd.common.errors import InputError
from saepd.uncertainty.config import AssessmentConfig, EpistemicConfig


@pytest.mark.parametrize(
    ("kind", "settings", "match"),
    [
        (EpistemicConfig, {"n_samples": 1}, "n_samples is 1: it must be a whole number at least 2"),
        (EpistemicConfig, {"n_samples": 2.5}, "n_samples is 2.5"),
        (EpistemicConfig, {"temperature": 0}, "the temperature is 0: .* above 0"),
        (EpistemicConfig, {"similarity": 1.1}, "similarity is 1.1: .* above 0 and at most 1"),
        (EpistemicConfig, {"gamma1": float("inf")}, "gamma1 is inf"),
        (EpistemicConfig, {"gamma2": -1}, "gamma2 is -1: .* at least 0"),
        (AssessmentConfig, {"readout": None}, "readout is None: it must be of class ReadoutConfig"),
        (AssessmentConfig, {"epistemic": {}}, "it must be of class EpistemicConfig"),
        (AssessmentConfig, {"kl_budget": -0.1}, "the KL budget is -0.1"),
        (AssessmentConfig, {"max_new_tokens": 0}, "max_new_tokens is 0"),
        (AssessmentConfig, {"seed": "x"}, "the seed is 'x'"),
    ],
)
def test_a_configuration_checks_itself(kind, settings, match):
    kind()
    with pytest.raises(InputError, match=match):
        kind(**settings)
