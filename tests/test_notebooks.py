"""What every notebook has: public names alone, no outputs, a picture soon, and its own doubts."""

import ast
import json
import re
from pathlib import Path

import pytest

import saepd

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
DOUBTS = "## What would make one doubt"


def cells(path, kind):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == kind]


def test_the_readme_lists_every_notebook():
    linked = set(re.findall(r"\(notebooks/([^)]+)\)", (ROOT / "README.md").read_text()))
    assert linked == {path.name for path in NOTEBOOKS}
    assert len(NOTEBOOKS) == 6


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_uses_public_names_alone(path):
    source = "\n".join(cells(path, "code"))
    used = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert not (node.module or "").startswith("saepd")
        elif isinstance(node, ast.Import):
            assert not any(one.name.startswith("saepd.") for one in node.names)
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "saepd"
        ):
            used.add(node.attr)
    assert used
    assert used <= set(saepd.__all__)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_clean_and_ends_with_its_doubts(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert all(not c.get("outputs") and c.get("execution_count") is None for c in notebook["cells"])
    last = cells(path, "markdown")[-1]
    assert last.startswith(DOUBTS)
    assert "".join(notebook["cells"][-1]["source"]) == last
    # Limits are told with numbers that stand above.
    assert re.search(r"\d", last)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_first_cell_ends_with_a_picture(path):
    last = ast.parse(cells(path, "code")[0]).body[-1]
    assert isinstance(last, ast.Expr)
    assert re.search(r"_figure\(|^px\.", ast.unparse(last))
