"""README and docs: tables are those of the results files, and what they tell users to do works."""

from __future__ import annotations

import ast
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from contextlib import chdir, contextmanager
from pathlib import Path

import documents
import pytest
from documents import PAGES, README, ROOT

import saepd
from saepd.cli import COMMANDS, main
from saepd.cli.command import Command, load_command
from saepd.cli.option_specs import options_of
from saepd.cli.parsing import parse
from saepd.models import source
from saepd.saes import load

RUN = [
    page for page in PAGES if any(b.language in ("python", "sh") for b in documents.blocks(page))
]
START = ROOT / "docs" / "index.md"
SITES = (10, 15, 20)


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_tables_are_those_of_the_results_files():
    script = ROOT / "scripts" / "readme_tables.py"
    assert "<!-- table: " in README.read_text()
    assert subprocess.run([sys.executable, script, "--check"], check=False).returncode == 0


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_names_and_files_that_a_page_names_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        # The reference is made when the site is built, which complains of what is missing.
        if not re.match(r"(\.\./)*reference/", target):
            assert (page.parent / target).exists(), target
    code = [ast.parse(b.text) for b in documents.blocks(page) if b.language == "python"]
    used = {
        node.attr
        for tree in code
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "saepd"
    }
    assert used <= set(saepd.__all__)
    for name in re.findall(r"`(saepd(?:\.\w+)+)", text):
        pkgutil.resolve_name(name)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_that_a_page_names_have_these_options(page):
    for words in documents.commands_in_text(page):
        if words[1:] and words[1] in COMMANDS:
            check_options(*split(words))
    for block in documents.blocks(page):
        if block.language == "sh":
            for words, _ in documents.console_lines(block):
                check_line(words)


def split(words: list[str]) -> tuple[Command, list[str]]:
    """A command, and what it is given."""
    n = 3 if " ".join(words[1:3]) in COMMANDS else 2
    return load_command(" ".join(words[1:n])), words[n:]


def check_options(command: Command, given: list[str]) -> None:
    known = {"--config", "--help", "--help-all", *(o.flag for o in options_of(command.options))}
    used = {word.partition("=")[0] for word in given if word.startswith("--")}
    assert used <= known | {flag.replace("--", "--no-", 1) for flag in known}


def check_line(words: list[str]) -> None:
    """Fail unless a console line is one that could be run: the command, its options, its files."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    match words:
        case ["saepd", *_]:
            assert parse(*split(words)) is not None
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)
        case ["pip", "install", *rest]:
            extras = re.findall(r"^(?:saepd|\.)\[([\w-]+)\]", "\n".join(rest), re.M)
            assert set(extras) <= set(project["optional-dependencies"])
        case ["python", script, *_]:
            assert (ROOT / script).is_file()
        case _:
            assert words[0] in ("python3", ".")


def test_few_lines_of_the_documents_are_not_run():
    lines = [
        may_run
        for page in RUN
        for block in documents.blocks(page)
        if block.language == "sh"
        for words, may_run in documents.console_lines(block)
        if words[0] == "saepd"
    ]
    assert lines.count(False) <= len(lines) / 5


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Folders of a small model and of SAEs for it, with an index beside each."""
    model, saes = documents.save_small_default(tmp_path_factory.mktemp("default"), SITES)
    with in_place_of_the_default(model, saes):
        loaded = saepd.load_model()
        [folder] = [one for one in saes if one.name.startswith("blocks.15.")]
        texts = [f"money and taxes, the bus was late {i} times" for i in range(8)]
        saepd.build_index(loaded, saepd.load_sae(15), texts, folder / "index")
    return model, saes


@contextmanager
def in_place_of_the_default(model, saes):
    """Wherever the packaged model and the shipped SAEs are asked for, these are there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "default_gguf", lambda: model)
        patch.setattr(source, "converted", lambda gguf, sha256: gguf)
        patch.setattr(load, "shipped_folders", lambda: saes)
        yield


def follow(page: Path, folder: Path) -> None:
    """Do what a page says, block after block, in a folder."""
    names: dict[str, object] = {}
    with chdir(folder):
        # Pages name files of the clone that they are read in.
        Path("scripts").unlink(missing_ok=True)
        Path("scripts").symlink_to(ROOT / "scripts")
        for block in documents.blocks(page):
            where = f"{named(page)}:{block.line}"
            if block.title:
                Path(block.title).write_text(block.text, encoding="utf-8")
            if block.language == "python":
                exec(compile(block.text, where, "exec"), names)
            elif block.language == "sh":
                for words, may_run in documents.console_lines(block):
                    if may_run and words[0] == "saepd":
                        assert main(words[1:]) == 0, f"{where}: {' '.join(words)}"


@pytest.fixture(scope="module")
def started(small, tmp_path_factory):
    """The folder that the first page of the docs leaves, from which the others go on."""
    folder = tmp_path_factory.mktemp("started")
    with in_place_of_the_default(*small):
        follow(START, folder)
    return folder


@pytest.mark.parametrize("page", [page for page in RUN if page != START], ids=named)
def test_what_a_page_says_can_be_done(page, small, started, tmp_path):
    folder = tmp_path / "here"
    shutil.copytree(started, folder, symlinks=True)
    with in_place_of_the_default(*small):
        follow(page, folder)
