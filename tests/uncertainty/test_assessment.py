import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from asked import CLOSED, FREE, directions, with_readouts
from scipy.special import rel_entr, softmax
from scipy.stats import entropy
from tiny import D_MODEL

from saepd.branches.run import score_continuations
from saepd.branches.writing.trace import Generated
from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.feedback.schema import Feedback, Item
from saepd.fit.budget import fit_kl_budget
from saepd.models.prompts import item_prompt
from saepd.models.wording import ReadoutConfig
from saepd.readout.calibrate import fit_temperature
from saepd.readout.option_scores import OptionScores
from saepd.readout.options import read_options
from saepd.uncertainty import answers
from saepd.uncertainty import asking_again as iterative_prompting
from saepd.uncertainty.asking_again import iterate_over_options, uncertainty_over_options
from saepd.uncertainty.assessment import SCORES, assess
from saepd.uncertainty.config import AssessmentConfig, EpistemicConfig
from saepd.uncertainty.reading import Reading, fit_reading
from saepd.uncertainty.sway import sway
from saepd.uncertainty.triage import triage_items

CONFIG = AssessmentConfig(epistemic=EpistemicConfig(n_samples=3), max_new_tokens=6)


def test_every_score_is_what_its_own_module_says(llama):
    edits = directions()
    reading = fit_reading(llama, CLOSED, centre=True)
    reading = Reading(3.0, reading.offsets)
    found = assess(llama, CLOSED, edits, reading, CONFIG)
    read = read_options(llama, CLOSED, edits)
    again = iterate_over_options(llama, CLOSED)
    assert [own.item for own in found] == ["a", "b", "c"]
    for item, own, scores, repeated in zip(CLOSED, found, read, again, strict=True):
        offset = reading.offsets.get(item.options, torch.zeros(len(item.options))).numpy()
        centred = scores.scores.double().numpy() - offset
        raw, tempered = softmax(centred[0]), softmax(centred / 3, axis=1)
        np.testing.assert_allclose(own.branches, tempered, atol=1e-6)
        top = np.sort(raw)[::-1]
        expected = {
            "least_confidence": 1 - top[0],
            "least_confidence_scaled": 1 - tempered[0].max(),
            "entropy": entropy(raw),
            "small_margin": 1 - (top[0] - top[1]),
            "branch_disagreement": rel_entr(tempered, tempered.mean(0)).sum() / 3,
            "perspective_disagreement": rel_entr(tempered[1:], tempered[1:].mean(0)).sum() / 2,
            "epistemic": uncertainty_over_options(repeated, torch.from_numpy(offset)),
        }
        for name, value in expected.items():
            assert own.scores[name] == pytest.approx(value, abs=1e-5), name
        assert set(own.scores) == set(SCORES)
        assert own.names == ("base", "p0", "p1")
        np.testing.assert_allclose(own.mass, scores.mass.numpy())


def test_sway_is_of_the_directions_at_the_kl_budget(llama):
    edits = directions()
    found = assess(llama, CLOSED, edits, None, CONFIG)
    prompts = [item_prompt(llama, i.prompt, i.options, ReadoutConfig()) for i in CLOSED]
    budgeted = fit_kl_budget(llama, edits, CONFIG.kl_budget)
    options = [item.options for item in CLOSED]
    expected = sway(llama, prompts, options, budgeted, [lambda s, _place: s.log_softmax(-1)] * 3)
    for own, one in zip(found, expected, strict=True):
        assert own.scores["sway"] == pytest.approx(one.moved.max(), abs=1e-6)
        assert own.scores["ease_of_flip"] == pytest.approx(one.ease)
        assert list(own.flip) == ["p0", "p1"]


def test_a_budget_of_zero_keeps_the_directions_own_coefficients(llama):
    budgeted = fit_kl_budget(llama, directions(), 0.05)
    kept = assess(llama, CLOSED, budgeted, None, AssessmentConfig(kl_budget=0.0))
    found = assess(llama, CLOSED, budgeted, None, AssessmentConfig(kl_budget=0.05))
    for one, other in zip(kept, found, strict=True):
        assert one.scores["sway"] == pytest.approx(other.scores["sway"], abs=1e-6)


def test_what_writes_nothing_sways_nothing(llama):
    # Such are the directions of feedback that does not support steering.
    [moving, _] = directions()
    nothing = Direction("nothing", moving.hook_name, AddVector(torch.zeros(D_MODEL)))
    [both] = assess(llama, CLOSED[:1], [nothing, moving], None, CONFIG)
    [alone] = assess(llama, CLOSED[:1], [moving], None, CONFIG)
    assert both.flip["nothing"] == math.inf
    assert both.scores["sway"] == pytest.approx(alone.scores["sway"], abs=1e-6)
    assert both.scores["ease_of_flip"] == pytest.approx(alone.scores["ease_of_flip"])
    [still] = assess(llama, CLOSED[:1], [nothing], None, CONFIG)
    assert (still.scores["sway"], still.scores["ease_of_flip"]) == (0.0, 0.0)


def test_without_perspectives_only_the_base_is_scored(llama):
    for own in assess(llama, CLOSED, (), None, CONFIG):
        undefined = {name for name, value in own.scores.items() if math.isnan(value)}
        assert undefined == {
            *("branch_disagreement", "perspective_disagreement", "sway", "ease_of_flip")
        }
    [alone] = assess(llama, CLOSED[:1], directions(1), None, CONFIG)
    assert math.isnan(alone.scores["perspective_disagreement"])
    assert alone.scores["branch_disagreement"] > 0


def test_letters_are_assessed_as_they_are_read(llama):
    config = AssessmentConfig(readout=ReadoutConfig("letter", "chat"))
    [own] = assess(llama, CLOSED[:1], directions(), None, config)
    [read] = read_options(llama, CLOSED[:1], directions(), config.readout)
    np.testing.assert_allclose(own.branches, read.log_probs().exp().numpy(), atol=1e-6)
    assert math.isfinite(own.scores["sway"])
    assert own.warning == read.warning


def test_scores_per_token_are_read_so_under_every_coefficient(llama):
    long = Item(id="l", prompt="Why?", options=("Yes", "No, not at all"))
    readout = ReadoutConfig(length_normalised=True)
    edits = directions()
    [own] = assess(llama, [long], edits, None, AssessmentConfig(readout=readout))
    [read] = read_options(llama, [long], edits, readout)
    np.testing.assert_allclose(own.branches, read.log_probs().exp().numpy(), atol=1e-6)
    budgeted = fit_kl_budget(llama, edits, AssessmentConfig().kl_budget)
    [at_budget] = read_options(llama, [long], budgeted, readout)
    shares = at_budget.log_probs().exp()
    moved = (shares[1:] - shares[0]).abs().sum(-1) / 2
    assert own.scores["sway"] >= float(moved.max()) - 1e-5
    [again] = iterate_over_options(llama, [long])
    lengths = np.array([4, 15])
    again = type(again)(again.first / lengths, again.second / lengths)
    assert own.scores["epistemic"] == pytest.approx(uncertainty_over_options(again), abs=1e-5)


# --- directions with a fitted readout ---


def test_what_is_assessed_is_what_is_read(llama):
    edits = with_readouts(directions())
    own, *_ = assess(llama, CLOSED[:1], edits, None, CONFIG)
    [read] = read_options(llama, CLOSED[:1], edits)
    np.testing.assert_allclose(own.branches, read.log_probs().exp().numpy(), atol=1e-5)
    assert own.scores["entropy"] == pytest.approx(entropy(own.branches[0]), abs=1e-5)
    np.testing.assert_allclose(own.mass, read.mass.numpy())


def test_sway_is_what_the_direction_does_and_not_its_readout(llama):
    still = [replace(edit, edit=AddVector(torch.full((D_MODEL,), 1e-9))) for edit in directions()]
    config = replace(CONFIG, kl_budget=0.0)
    [own] = assess(llama, CLOSED[:1], with_readouts(still), None, config)
    assert own.scores["sway"] < 1e-4
    assert own.scores["branch_disagreement"] > 0.01


def test_a_temperature_is_fitted_on_what_the_readout_says(llama):
    edits = with_readouts(directions())
    item = CLOSED[0]
    rows = [
        Feedback(id=str(i), perspective="p", prompt=item.prompt, options=item.options, answer=a)
        for i, a in enumerate(("Yes", "Yes", "No", "Not sure"))
    ]
    reading = fit_reading(llama, [item], rows, directions=edits)
    [read] = read_options(llama, [item], edits)
    targets = [np.eye(3)[item.options.index(row.answer)] for row in rows]
    assert reading.temperature == pytest.approx(
        fit_temperature([read.scores[0]] * len(rows), targets), rel=1e-3
    )
    [own] = assess(llama, [item], edits, reading, CONFIG)
    expected = read.log_probs(reading.temperature).exp().numpy()
    np.testing.assert_allclose(own.branches, expected, atol=1e-5)
    with pytest.raises(InputError, match="leave out centring"):
        fit_reading(llama, CLOSED, centre=True, directions=edits)
    with pytest.raises(InputError, match="give fit_reading the directions too"):
        assess(llama, [item], edits, fit_reading(llama, [item], rows), CONFIG)
    with pytest.raises(InputError, match="give fit_reading the directions too"):
        assess(llama, [item], directions(), reading, CONFIG)


# --- free text ---


def test_free_text_is_scored_over_what_was_written(llama):
    edits = directions()
    closed, own = assess(llama, [CLOSED[0], FREE], edits, None, CONFIG)
    assert closed.item == "a" and own.item == "free"
    assert len(own.answers) >= 2
    assert np.allclose(own.branches.sum(1), 1)
    assert all(math.isfinite(value) for value in own.scores.values())
    n = len(own.answers)
    assert 0 <= own.scores["entropy"] <= math.log(n) + 1e-9
    assert own.scores["entropy"] == pytest.approx(entropy(own.branches[0]))
    assert np.isnan(own.mass).all()


def written(monkeypatch, base, branches):
    texts_of_base = iter(base)

    def by_base(_model, prompts, _directions, _sampling):
        return [[Generated(next(texts_of_base), (), "end", ())] for _ in prompts]

    def by_all(_model, prompts, edits, _sampling):
        texts = ["", *branches]
        assert len(texts) == 1 + len(edits)
        return [[Generated(text, (), "end", ()) for text in texts] for _ in prompts]

    monkeypatch.setattr(iterative_prompting, "generate_branches", by_base)
    monkeypatch.setattr(answers, "generate_branches", by_all)


def test_texts_that_match_are_one_answer(llama, monkeypatch):
    written(monkeypatch, ["red", "the red", "blue"], ["red!", "green"])
    [own] = assess(llama, [FREE], directions(), None, CONFIG)
    assert own.answers == ("red", "blue", "green")
    texts = ["red", "the red", "blue", "red!", "green"]
    prompt = item_prompt(llama, FREE.prompt, (), ReadoutConfig())
    [(scores, _)] = score_continuations(llama, [prompt], [texts], directions())
    shares = scores.double().softmax(-1).numpy()
    expected = np.stack([shares[:, [0, 1, 3]].sum(1), shares[:, 2], shares[:, 4]], 1)
    np.testing.assert_allclose(own.branches, expected, atol=1e-5)


def test_one_answer_throughout_is_sure(llama, monkeypatch):
    written(monkeypatch, ["red"] * 3, ["red", "The red."])
    [own] = assess(llama, [FREE], directions(), None, CONFIG)
    assert own.answers == ("red",) and own.warning == ""
    assert set(own.scores.values()) == {0.0}


@pytest.mark.parametrize("n_directions", [0, 1])
def test_what_one_answer_is_sure_by_is_what_others_are_scored_by(llama, monkeypatch, n_directions):
    """Else triage would rank it by reasons that no other item has, in the middle of them."""
    written(monkeypatch, ["red"] * 3, ["red"] * n_directions)
    sure, other = assess(llama, [FREE, CLOSED[0]], directions()[:n_directions], None, CONFIG)
    assert sure.answers == ("red",)
    for name, score in sure.scores.items():
        assert math.isnan(score) == math.isnan(other.scores[name]), name
        assert math.isnan(score) or score == 0.0
    assert triage_items([sure, other])[-1].assessment is sure


def test_empty_answers_are_counted(llama, monkeypatch):
    written(monkeypatch, ["red", "", "blue"], ["", " "])
    [own] = assess(llama, [FREE], directions(), None, CONFIG)
    assert own.answers == ("red", "blue")
    assert own.warning == "item 'free': 1 of 3 sampled answers were empty"
    written(monkeypatch, [""] * 3, ["", ""])
    [own] = assess(llama, [FREE], directions(), None, CONFIG)
    assert own.answers == () and "3 of 3" in own.warning
    assert all(math.isnan(value) for value in own.scores.values())


# --- what cannot be assessed ---


def test_options_without_probability_are_said_and_have_no_scores(llama, monkeypatch):
    real = answers.read_options

    def nothing(model, items, edits, config, **settings):
        first, second, third = real(model, items, edits, config, **settings)
        scores = torch.full_like(second.scores, -math.inf)
        return [first, OptionScores(scores, torch.zeros_like(second.mass), second.n_tokens), third]

    monkeypatch.setattr(answers, "read_options", nothing)
    found = assess(llama, CLOSED, directions(), None, CONFIG)
    assert "hold only 0.0e+00 of the probability" in found[1].warning
    assert all(math.isnan(value) for value in found[1].scores.values())
    assert np.isnan(found[1].branches).all()
    assert math.isfinite(found[0].scores["entropy"]) and math.isfinite(found[2].scores["sway"])


def test_options_that_are_hardly_said_are_scored_with_a_warning(llama):
    unlikely = Item(id="x", prompt="Why?", options=("zzqq#~zz", "~~qx$$@@"))
    [own] = assess(llama, [unlikely], (), None, CONFIG)
    assert "the options hold only" in own.warning and "'x'" in own.warning
    assert math.isfinite(own.scores["entropy"])


def test_what_is_refused(llama):
    with pytest.raises(InputError, match="no items to assess"):
        assess(llama, [])
    with pytest.raises(InputError, match="two items have the same id"):
        assess(llama, [CLOSED[0], CLOSED[0]])
    with pytest.raises(ValueError, match="only one option"):
        Item(id="one", prompt="Why?", options=("Yes",))
