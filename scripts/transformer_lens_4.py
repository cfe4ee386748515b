"""Run the tests that need no SAE on TransformerLens 4, which SAELens refuses to have beside it.

    python scripts/transformer_lens_4.py

TransformerLens 4 goes into a folder of its own, without what it depends on: all of that is here for
the version that saepd is installed with. The folder comes before the environment's packages, and
hides SAELens, so that whatever imports it is skipped or fails. Further arguments go to pytest, in
place of the tests below.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSION = "4.3.0"
# Models and their text, where directions act, and the engine; in a few minutes.
TESTS = [
    "tests/models/test_load.py",
    "tests/models/test_sites.py",
    "tests/models/test_positions.py",
    "tests/models/test_tokens.py",
    "tests/directions/test_direction.py",
    "tests/branches/test_run.py",
]


def install(folder: Path) -> None:
    """Put TransformerLens 4 into a folder, and nothing else."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    wanted = f"transformer-lens=={VERSION}"
    subprocess.run([*pip, "--no-deps", "--target", str(folder), wanted], check=True)
    (folder / "sitecustomize.py").write_text('import sys\n\nsys.modules["sae_lens"] = None\n')


def main() -> int:
    """Install, and run the tests; pytest's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        install(Path(folder))
        before = {"PYTHONPATH": folder, "SAEPD_CACHE": str(Path(folder) / "cache")}
        chosen = sys.argv[1:] or TESTS
        command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", *chosen]
        return subprocess.run(command, cwd=ROOT, env={**os.environ, **before}).returncode


if __name__ == "__main__":
    sys.exit(main())
