"""The README says what the results files say, and its code runs as far as it is written."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import saepd

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_tables_are_those_of_the_results_files():
    script = ROOT / "scripts" / "readme_tables.py"
    assert "<!-- table: " in README
    assert subprocess.run([sys.executable, script, "--check"], check=False).returncode == 0


def test_python_examples_use_names_that_exist():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    used = {
        node.attr
        for block in blocks
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "saepd"
    }
    assert used
    assert used <= set(saepd.__all__)


def test_files_named_in_the_readme_exist():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
