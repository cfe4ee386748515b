import contextlib
import io
import logging
import os
import types

import pytest
from command_line import LENIENT, OPTIONS, feedback_row, write_rows
from tiny import save_tiny_model, save_tiny_sae

from saepd.cli import main


@pytest.fixture(autouse=True)
def as_before():
    """What a command changes for its process does not reach other tests."""
    environment = set(os.environ)
    loggers = [logging.getLogger(n) for n in ("transformers", "sae_lens", "httpx")]
    levels = [logger.level for logger in loggers]
    yield
    for name in set(os.environ) - environment:
        del os.environ[name]
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths of a tiny model, an SAE that fits it, and feedback."""
    folder = tmp_path_factory.mktemp("cli")
    rows = [feedback_row(i, p) for p in ("left", "right") for i in range(8)]
    return types.SimpleNamespace(
        folder=folder,
        model=str(save_tiny_model("llama", folder / "model")),
        sae=str(save_tiny_sae(folder / "sae")),
        feedback=write_rows(folder / "feedback.jsonl", rows),
    )


@pytest.fixture(scope="module")
def where(files):
    return ["--model", files.model, "--sae", files.sae, "--device", "cpu"]


@pytest.fixture(scope="module")
def steering(files, where):
    out = files.folder / "steering"
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["fit", "--feedback", files.feedback, "--out", str(out), *where, *LENIENT]) == 0
    return str(out)


@pytest.fixture
def run(capsys):
    """Run a command in this process: exit code, standard output, standard error."""

    def run(*arguments):
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        return types.SimpleNamespace(code=code, **capsys.readouterr()._asdict())

    return run


@pytest.fixture
def items(tmp_path):
    rows = [
        {"id": f"q{i}", "prompt": f"Q{i}?", "options": OPTIONS, "perspective": p}
        | {"distribution": [0.5, 0.3, 0.2] if p == "left" else [0.1, 0.1 * i, 0.9 - 0.1 * i]}
        for i in range(4)
        for p in ("left", "right")
    ]
    return write_rows(tmp_path / "items.jsonl", rows)
