import numpy as np

from saepd.fit.asked import Effect
from saepd.fit.choosing_sites import best_sites, effects_at
from saepd.fit.config import LearningConfig
from saepd.fit.penalised import Row
from saepd.fit.sparse import Dictionary

CONFIG = LearningConfig(shared=(0.001, 0.01), own=(0.01,))
N = 24
SITES = Dictionary((np.eye(3), np.eye(3)))
PARTS = [{f"q{i}" for i in range(N) if i % 4 == part} for part in range(4)]


def rows(told_at):
    """Answers that follow one effect of the site that each question has, among noise."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(N):
        effects = 0.3 * rng.normal(size=(2, 6))
        site = told_at(i)
        effects[:, 3 * site] += (1, -1)
        for name in ("a", "b"):
            found.append(
                Row(f"q{i}", name, np.zeros((2, 1)), effects, np.zeros(2), np.array([0.9, 0.1]))
            )
    return found


def test_sites_that_tell_of_different_questions_are_used_together():
    assert best_sites(rows(lambda i: i % 2), SITES, CONFIG, "vector", PARTS) == (0, 1)


def test_a_site_that_tells_of_all_is_used_alone():
    assert best_sites(rows(lambda i: 1), SITES, CONFIG, "vector", PARTS) == (1,)
    everywhere = LearningConfig(shared=(0.001,), own=(0.01,), sites="all")
    assert best_sites(rows(lambda i: 1), SITES, everywhere, "vector", PARTS) == (0, 1)


def test_few_latents_go_where_they_tell_most():
    both, one = rows(lambda i: i % 2), LearningConfig(n_latents=1, shared=(0.001,), own=(0.01,))
    assert best_sites(both, SITES, CONFIG, "vector", PARTS) == (0, 1)
    assert len(best_sites(both, SITES, one, "latents", PARTS)) == 1


def test_effects_at_a_site_are_its_part():
    gradients = np.arange(12.0).reshape(2, 6)
    around = {("q", None): Effect(np.zeros(6), np.zeros(2), gradients)}
    [found] = effects_at(around, (1,), 2).values()
    assert np.array_equal(found.gradients, gradients[:, 3:]) and found.vector.shape == (3,)
