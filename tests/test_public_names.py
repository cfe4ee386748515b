"""What ``import saepd`` offers, from a checkout and from the wheel that users install."""

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import saepd

ROOT = Path(__file__).parents[1]
TEN_LINES = """\
import saepd

model = saepd.load_model()
sae = saepd.load_sae(15, model=model)
feedback = saepd.sample_feedback(saepd.survey_feedback(), n=50, seed=0)
fitted = saepd.fit_directions(model, sae, feedback)
item = saepd.Item(id="q", prompt="Should the country build more trains?", options=("Yes", "No"))
[scores] = saepd.read_options(model, [item], fitted.directions)
merged = saepd.merge_branches(scores.log_probs(), saepd.MergeConfig())
spread: float = float(saepd.branch_disagreement(scores.log_probs()))
"""


def names():
    return [name for name in saepd.__all__ if name != "__version__"]


def test_every_public_name_is_the_thing_itself():
    assert len(names()) > 50
    assert names() == sorted(names())
    assert set(dir(saepd)) == set(saepd.__all__)
    for name in names():
        thing = getattr(saepd, name)
        assert thing.__name__ == name
        assert getattr(importlib.import_module(thing.__module__), name) is thing


def test_every_public_name_is_described_in_help_and_in_its_docstring():
    for name in names():
        [line] = [text for text in saepd.__doc__.splitlines() if text.split()[:1] == [name]]
        assert len(line.split()) > 1
        assert inspect.getdoc(getattr(saepd, name))


def test_names_that_docstrings_refer_to_exist():
    found = set()
    for file in (ROOT / "saepd").rglob("*.py"):
        found |= set(re.findall(r"(?<!`)`(saepd(?:\.\w+)+)`(?!`)", file.read_text("utf-8")))
    assert len(found) > 50
    for name in sorted(found):
        pkgutil.resolve_name(name)


def test_no_public_name_is_that_of_a_module():
    # Importing a module binds its name in the package, whatever the name meant before.
    modules = {module.name for module in pkgutil.iter_modules(saepd.__path__)}
    assert {"merge", "branches", "fit"} <= modules
    assert not modules & set(saepd.__all__)


def test_names_survive_the_import_of_their_module():
    code = (
        "import saepd.merge.operators, saepd.feedback.schema, saepd.fit.recipe\n"
        "from saepd.merge.operators import merge_branches\n"
        "assert saepd.merge_branches is merge_branches\n"
        "assert saepd.Feedback is saepd.feedback.schema.Feedback\n"
        "from saepd import *\n"
        "assert merge_branches is saepd.merge_branches and Feedback is saepd.Feedback"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_public_name_is_there_without_saelens():
    code = """
import sys
sys.modules["sae_lens"] = None
import saepd
assert all(getattr(saepd, name) for name in saepd.__all__)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_name_that_is_none_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'saepd' has no attribute 'mrege'"):
        _ = saepd.mrege


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that holds the package as the wheel installs it."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [wheel] = folder.glob("saepd-*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


@pytest.mark.slow
def test_the_wheel_brings_types_data_and_dictionaries(installed):
    for file in (
        "py.typed",
        "__init__.pyi",
        "feedback/data/gss_items.jsonl",
        "pages/live/page.html",
    ):
        assert (installed / "saepd" / file).is_file()
    assert list((installed / "saepd" / "saes_shipped").glob("*/sae_weights.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", ""),
        ("saepd.load_sae(block=15)", 'No parameter named "block"'),
        ("saepd.Item(id=1, prompt='?', options=())", "cannot be assigned"),
    ],
)
def test_a_users_lines_type_check_against_the_wheel(installed, tmp_path, line, complaint):
    (tmp_path / "user.py").write_text(TEN_LINES + line)
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "user.py"]
    (tmp_path / "pyrightconfig.json").write_text(f'{{"extraPaths": ["{installed}"]}}')
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (not complaint), done.stdout
    assert complaint in done.stdout
