import numpy as np
import pytest
import torch

pytest.importorskip("plotly")

from said import opposed

from saepd.branches.dose_response import DosePoint, DoseResponse
from saepd.common.errors import InputError
from saepd.features.config import FeatureConfig
from saepd.features.encode import encode_pairs
from saepd.features.select import overlap, select_all
from saepd.models.wording import ReadoutConfig
from saepd.pages.figures import (
    activations_figure,
    dose_figure,
    effects_figure,
    options_figure,
    overlap_figure,
)
from saepd.readout.option_scores import OptionScores

CHOICE = FeatureConfig(contrast="options", k=6, min_stability=0.2, max_density=1.0, n_bootstrap=30)


@pytest.fixture(scope="module")
def pairs(llama, random_sae):
    rows = opposed("for", "against")
    return encode_pairs(llama, random_sae("jumprelu"), rows, CHOICE, ReadoutConfig())


@pytest.fixture(scope="module")
def features(pairs):
    return select_all(pairs, CHOICE)


def test_the_heat_map_holds_every_chosen_latents_effect(pairs, features):
    [drawn] = effects_figure(pairs, features).data
    assert list(drawn.x) == ["for", "against"]
    for own in features:
        column = list(drawn.x).index(own.perspective)
        for latent in own.latents.tolist():
            rows = pairs.latents[pairs.of(own.perspective), latent]
            at = list(drawn.y).index(f"latent {latent}")
            assert drawn.z[at][column] == pytest.approx(float(rows.mean() / (rows.std() + 1e-6)))
    assert drawn.zmid == 0
    with pytest.raises(InputError, match="no features to draw"):
        effects_figure(pairs, [])


def test_the_overlap_is_that_of_the_features(features):
    [drawn] = overlap_figure(features).data
    share = overlap(features)["for", "against"].same
    np.testing.assert_allclose(drawn.z, [[1, share], [share, 1]])
    with pytest.raises(InputError, match="two perspectives or more"):
        overlap_figure(features[:1])


def test_activations_are_those_of_the_rows(pairs, features):
    latent = int(features[0].latents[0])
    own, others = activations_figure(pairs, latent, "for").data
    assert (own.name, others.name) == ("for", "all others")
    for drawn, name in ((own, "for"), (others, "against")):
        expected = pairs.positive_latents[pairs.of(name), latent]
        assert list(drawn.x) == pytest.approx(expected.tolist())
        assert drawn.xbins.end >= max(drawn.x)
    with pytest.raises(InputError, match="no feedback is of 'fro': did you mean 'for'"):
        activations_figure(pairs, latent, "fro")
    with pytest.raises(InputError, match=r"latent 48 is none of the SAE's: they are 0\.\.47"):
        activations_figure(pairs, 48, "for")


def test_a_dose_response_is_drawn_by_strength():
    points = tuple(DosePoint(s, 0.1, s * s, 0.2, 1.0, 0.3, 9.0, ("t",)) for s in (0.0, 2.0, -1.0))
    figure = dose_figure(DoseResponse(points, "text", ("p",)))
    assert [list(trace.x) for trace in figure.data] == [[-1, 0, 2]] * 4
    assert list(figure.data[0].y) == [1, 0, 4]
    assert figure.layout.annotations[0].text == "nats gained"
    other = dose_figure(DoseResponse(points, None, ("p",)))
    assert other.layout.annotations[0].text == "KL at the prompt, nats"


def test_options_stand_beside_what_people_answered():
    log_probs = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()
    scores = OptionScores(
        log_probs,
        torch.ones(2),
        torch.ones(2).long(),
        options=("Yes", "No"),
        branches=("base", "a"),
    )
    base, branch, people = options_figure(scores, {"a": [0.7, 0.3]}).data
    assert list(base.y) == pytest.approx([0.5, 0.5])
    assert list(branch.y) == pytest.approx([0.9, 0.1])
    assert (people.name, list(people.y)) == ("a, people", [0.7, 0.3])
    assert people.marker.color == branch.marker.color
    with pytest.raises(InputError, match="people of 'x' answer no branch"):
        options_figure(scores, {"x": [1, 0]})
    with pytest.raises(InputError, match="have 3 shares, and there are 2 options"):
        options_figure(scores, {"a": [1, 0, 0]})
