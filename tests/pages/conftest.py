"""An index and a table of feedback, whose texts would run if a page took them for more."""

import pytest
from tiny import D_MODEL

from saepd.features.config import FeatureConfig
from saepd.features.index.build import build_index
from saepd.features.index.given_labels import write_labels
from saepd.features.index.latent_page import GivenLabel
from saepd.features.index.reading import load_index
from saepd.features.table import feature_table
from saepd.feedback.schema import Feedback

HOSTILE = (
    "</script><script>window.ran=1</script><img src=x onerror=window.ran=1> javascript:alert(1)"
)


@pytest.fixture(scope="session")
def hostile():
    return HOSTILE


@pytest.fixture(scope="module")
def index(llama, random_sae, tmp_path_factory):
    texts = [f"the {w} of {n} trees {HOSTILE}" for n in range(4) for w in ("bus", "שלום", "🚌")]
    sae = random_sae("topk", d_in=D_MODEL, d_sae=48, k=6)
    folder = tmp_path_factory.mktemp("index") / "x"
    build_index(llama, sae, texts, folder, about=f"made up {HOSTILE}")
    # A language model's answer is text like any other.
    given = GivenLabel(f"about {HOSTILE}", f"by {HOSTILE}")
    write_labels(folder, {latent: [given] for latent in range(48)})
    return load_index(folder, sae)


@pytest.fixture(scope="module")
def table(llama, random_sae, index):
    rows = [
        Feedback(
            id=f"{name}{i}", perspective=f"{name}<b>", prompt=f"{HOSTILE} Q{i % 3}?",
            item=f"q{i % 3}", options=("Yes", "No"), answer=("Yes", "No")[i % (2 + (name == "B"))],
        )
        if i % 3 < 2
        else Feedback(
            id=f"{name}{i}", perspective=f"{name}<b>", prompt=f"Q{i % 3}?", item=f"q{i % 3}",
            options=("Yes", "No"), answer="Yes" if name == "A" else "No",
        )
        for name in "AB"
        for i in range(9)
    ]  # fmt: skip
    config = FeatureConfig(k=3, n_bootstrap=4, min_stability=0, max_density=1)
    sae = random_sae("topk", d_in=D_MODEL, d_sae=48, k=6)
    return feature_table(llama, sae, rows, config, index=index, top=2)
