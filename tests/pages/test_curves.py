import numpy as np
import pytest

pytest.importorskip("plotly")

from saepd.metrics.calibration import reliability_diagram
from saepd.metrics.selective import risk_coverage_curve
from saepd.pages.curves import Curve, curves_figure, reliability_figure, risk_coverage_figure


def test_a_reliability_diagram_draws_its_bins():
    rng = np.random.default_rng(0)
    predicted, labels = list(rng.dirichlet(np.ones(3), 50)), rng.integers(3, size=50).tolist()
    panels = {"a": ({"base": predicted, "other": predicted}, labels), "b": ({}, labels)}
    figure = reliability_figure(panels, n_bins=5)
    bins = reliability_diagram(predicted, labels, n_bins=5, binning="equal-mass")
    first, second = figure.data
    np.testing.assert_allclose(first.x, bins.confidence)
    np.testing.assert_allclose(second.y, bins.accuracy)
    assert (first.name, first.showlegend) == ("base", True)
    assert len(figure.layout.shapes) == 2


def test_a_name_has_one_colour_and_one_entry_in_the_legend():
    lines = [Curve("x", [0, 1], [0, 1]), Curve("y", [0, 1], [1, 0])]
    figure = curves_figure({"a": lines, "b": lines[::-1]}, "cost", "loss")
    colours = {trace.name: trace.line.color for trace in figure.data}
    assert all(trace.line.color == colours[trace.name] for trace in figure.data)
    assert sum(trace.showlegend for trace in figure.data) == 2


def test_risk_and_coverage_are_those_of_the_curve():
    rng = np.random.default_rng(1)
    uncertainty, losses = rng.random(30), rng.integers(2, size=30)
    figure = risk_coverage_figure({"task": ({"entropy": uncertainty}, losses)})
    [drawn] = figure.data
    curve = risk_coverage_curve(uncertainty, losses)
    np.testing.assert_allclose(drawn.x, curve.coverage)
    np.testing.assert_allclose(drawn.y, curve.risk)
