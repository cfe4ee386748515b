"""What tests of the command line share: rows, files, and how a refusal looks."""

import json
import subprocess
import sys

OPTIONS = ["Yes", "No", "Unsure"]


# So little feedback on so small a model: nothing is screened out.
UNSCREENED = ["--k", "4", "--n-bootstrap", "8", "--min-stability", "0", "--max-density", "1"]
# The same where directions are fitted.
LENIENT = ["--method", "differences", *UNSCREENED]


def feedback_row(i, perspective, **more):
    return {
        "id": f"{perspective}{i}",
        "perspective": perspective,
        "prompt": f"Q{i % 4}?",
        "item": f"q{i % 4}",
        "options": OPTIONS,
        "answer": OPTIONS[(i + (perspective == "left")) % 2],
        **more,
    }


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def in_a_process(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=120
    )


def refused(done, *expected):
    """The last line says what is wrong; nothing was printed as a result."""
    assert (done.code, done.out) == (2, "")
    # A bar of transformers' may stand before it: here, it was imported before it could be quieted.
    *before, line = done.err.splitlines()
    assert line.startswith("saepd")
    assert not any(text.startswith(("saepd", "Traceback")) for text in before)
    for text in expected:
        assert text in line
