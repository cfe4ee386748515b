"""What objects show of themselves in a notebook: whole, escaped, and the same as their numbers."""

import json

import pytest
import torch
from said import opposed
from tiny import D_MODEL, SITE

from saepd.branches.dose_response import dose_response
from saepd.branches.writing.compare import compare
from saepd.branches.writing.config import SamplingConfig
from saepd.branches.writing.generate import generate_batch
from saepd.branches.writing.overton import DistinctAnswer, DistinctAnswers
from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, EditLatents
from saepd.evaluation.results.result import EvaluationResult, read_evaluation
from saepd.features.config import FeatureConfig
from saepd.feedback.schema import Item
from saepd.fit.config import FitConfig
from saepd.fit.recipe import fit_directions
from saepd.readout.options import read_options
from saepd.uncertainty.assessment import assess
from saepd.uncertainty.triage import triage_items

HOSTILE = "<script>alert(1)</script>"
CHOICE = FeatureConfig(contrast="options", k=6, min_stability=0.2, max_density=1.0, n_bootstrap=30)


@pytest.fixture(scope="module")
def fitted(llama, random_sae):
    rows = opposed(HOSTILE, "against")
    return fit_directions(llama, random_sae("jumprelu"), rows, FitConfig(CHOICE))


def direction(name="d"):
    vector = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(0))
    return Direction(name, SITE, AddVector(vector))


def checked(thing, *words):
    """The HTML of a thing, escaped and with these words in it."""
    page = thing._repr_html_()
    assert HOSTILE not in page
    assert "<script" not in page
    for word in words:
        assert str(word) in page
    return page


def test_features_and_fits_show_their_latents(fitted):
    escaped = "&lt;script&gt;alert(1)&lt;/script&gt;"
    for features in fitted.features:
        page = checked(features, *features.latents.tolist(), f"{float(features.effect[0]):.3f}")
        assert page.count("<tr>") == 1 + len(features.latents)
        frame = features.frame()
        assert frame.latent.tolist() == features.latents.tolist()
        assert frame.perspective.unique().tolist() == [features.perspective]
        assert frame.stability.tolist() == pytest.approx(features.stability.tolist())
    name = fitted.features[1].perspective
    assert repr(fitted.features[1]).startswith(f"Features({name!r}: ")
    assert len(repr(fitted.features[1])) < 200
    checked(fitted, escaped, "12 rows of feedback", "latents shared")
    assert len(fitted.frame()) == sum(len(f.latents) for f in fitted.features)


def test_directions_show_what_they_do(fitted, random_sae):
    [first, _] = fitted.directions
    checked(first, SITE, "coefficient", first.lineage["model"], "n_feedback")
    frame = first.frame()
    by_id = dict(zip(first.edit.latents.tolist(), first.edit.values.tolist(), strict=True))
    assert dict(zip(frame.latent, frame.value, strict=True)) == pytest.approx(by_id)
    assert frame.value.abs().is_monotonic_decreasing
    checked(direction(HOSTILE), "AddVector(32 numbers")
    assert direction().frame().latent.tolist() == [None]
    many = Direction("m", SITE, EditLatents(random_sae(), list(range(30)), mode="ablate"))
    checked(many, "and 18 more")
    assert many.frame().latent.tolist() == list(range(30))


def test_option_scores_name_branches_and_options(llama):
    items = [Item(id="q", prompt="So?", options=("Yes", HOSTILE, "Maybe"))]
    [scores] = read_options(llama, items, [direction("one"), [direction("two"), direction("3")]])
    assert scores.branches == ("base", "one", "two + 3")
    checked(scores, "two + 3", "Maybe", "mass")
    shares = scores.log_probs()[2].exp().tolist()
    assert f"two + 3: Yes {shares[0]:.2f}, {HOSTILE} {shares[1]:.2f}" in repr(scores)
    frame = scores.frame()
    assert len(frame) == 9
    table = frame.pivot(index="branch", columns="option", values="probability")
    table = table.loc[list(scores.branches), list(scores.options)].to_numpy()
    torch.testing.assert_close(torch.tensor(table), scores.log_probs().exp().double())


def test_texts_show_their_tokens(llama):
    sampling = SamplingConfig(max_new_tokens=8, temperature=1.2)
    [found] = compare(llama, [HOSTILE], direction(), sampling)
    checked(found, "steered", "KL, nats:")
    assert f"steered: {found.steered.text!r}" in repr(found)
    frame = found.frame()
    assert frame[frame.text == "steered"].kl.tolist() == [s.kl[0] for s in found.steered.steps]
    [traced] = generate_batch(llama, ["So?"], [direction()], None, sampling, trace=True)
    checked(traced, "disagreement, nats:", f"ended by {traced.ended_by}")
    assert traced.frame().disagreement.tolist() == [s.disagreement for s in traced.steps]
    [plain] = generate_batch(llama, ["So?"], [direction()], None, sampling)
    checked(plain, "written without a trace")
    assert repr(plain).startswith(f"Generated({plain.text!r}; {len(plain.tokens)} tokens")
    assert len(repr(traced)) < len(repr(plain)) + 20


def test_a_dose_response_shows_numbers_and_texts(llama):
    found = dose_response(
        llama, ["So?"], direction(), [1.0, 3.0], sampling=SamplingConfig(max_new_tokens=6)
    )
    checked(found, "relative dose", f"{found.points[2].kl:.3f}")
    assert f"strength 3: effect {found.points[2].effect:+.3f}" in repr(found)
    frame = found.frame()
    assert frame.strength.tolist() == [0, 1, 3]
    assert frame.kl.tolist() == [point.kl for point in found.points]


def test_assessed_and_triaged_items_show_why(llama):
    items = [Item(id=f"q{i}", prompt=f"So {i}?", options=("Yes", HOSTILE)) for i in range(3)]
    found = assess(llama, items, [direction("one"), direction("two")])
    checked(found[0], "item q0", "entropy", "flipped by one at")
    frame = found[0].frame()
    assert len(frame) == 6
    assert frame.probability.tolist() == pytest.approx(found[0].branches.ravel().tolist())
    first = triage_items(found)[0]
    checked(first, f"1. {first.assessment.item}", "need", "perspectives differ")


def test_an_evaluation_shows_its_table_and_its_finding():
    rows = [
        {
            "method": id_,
            "title": title,
            "null": null,
            "perspective": "all",
            "js_distance": value,
            "js_ci": [value - 0.1, value + 0.1],
            "js_minus_best_null": None if null else [-0.1, -0.2, -0.05],
        }
        for id_, title, null, value in (("a", HOSTILE, False, 0.2), ("b", "null b", True, 0.3))
    ]
    result = EvaluationResult(rows=rows, config={"task": "mine"}, methods={})
    checked(result, "mine, questions held out", "0.200", "is better")
    assert repr(result) == f"EvaluationResult('mine': {result.finding()})"
    assert result.frame().js_distance.tolist() == [0.2, 0.3]
    assert json.loads(json.dumps(result))["rows"] == rows


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"rows": []}', '{"rows": [{"perspective": "all"}], "config": {}}']
)
def test_what_no_evaluation_wrote_is_refused(tmp_path, text):
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(InputError, match="is not what an evaluation wrote"):
        read_evaluation(tmp_path)
    with pytest.raises(InputError, match="cannot read"):
        read_evaluation(tmp_path / "nowhere")


def test_distinct_answers_show_their_shares_and_who_gives_them():
    answers = (
        DistinctAnswer(HOSTILE, 0.75, {"base": 0.0, "left": 1.0, "right": 0.5}, {HOSTILE: 3}),
        DistinctAnswer("No.", 0.25, {"base": 1.0, "left": 0.0, "right": 0.5}, {"No.": 3}),
    )
    found = DistinctAnswers("So?", answers, 2, 1)
    page = checked(found, "No.", "0.75", "left", "1 more said nothing")
    assert page.index("0.75") < page.index("No.")
    assert found.frame()["part"].tolist() == [0.0, 1.0, 0.5, 1.0, 0.0, 0.5]
    assert repr(found).splitlines()[2] == "  0.25 'No.')"
    assert json.loads(json.dumps(found.as_json()))["answers"][1]["texts"] == {"No.": 3}
