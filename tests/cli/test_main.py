import os

import pytest
from command_line import in_a_process, refused
from tiny import save_tiny_sae

from saepd.cli import COMMANDS, main


def test_an_unknown_command_is_refused(run):
    refused(run("anser"), "unknown command 'anser': did you mean 'answer'?")
    refused(run("zzzz"), f"unknown command 'zzzz': use one of {', '.join(COMMANDS)}")


@pytest.mark.parametrize(
    "arguments", [("fit",), ("answer", "So?", "--no-such-option"), ("fit", "--k", "many")]
)
def test_options_that_cannot_be_read_are_refused(run, arguments):
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"saepd {arguments[0]}: ")
    assert len(done.err.splitlines()) == 1
    assert "Traceback" not in done.err


def test_missing_files_are_named(run, files, where, tmp_path):
    none = tmp_path / "none"
    fit = ("fit", "--method", "differences", "--out", tmp_path / "out")
    refused(run(*fit, "--feedback", f"{none}.jsonl", *where), f"cannot read {none}.jsonl")
    model = ("--model", f"{none}", "--sae", files.sae)
    refused(run(*fit, "--feedback", files.feedback, *model), f"no such model folder: {none}")
    sae = ("--model", files.model, "--sae", f"{none}")
    refused(run(*fit, "--feedback", files.feedback, *sae), f"no such SAE folder: {none}")
    asked = ("generate", "So?", "--steering", f"{none}")
    refused(run(*asked, *where), f"{none} holds no directions: cannot read steering.json")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("fit", "--out"),
        ("steer", "So?", "--features", "1=2", "--out"),
        ("evaluate", "--task", "gss", "--out"),
        ("index", "--texts", "t.txt", "--out"),
        ("sweep", "sweep.yaml", "--out"),
        ("sweep", "show", "sweep", "--pictures"),
        ("train-sae", "--corpus", "c.txt", "--out", ".", "--work"),
        ("features", "--out"),
        ("explore", "--out"),
        ("report", "steering", "--out"),
        ("generate", "So?", "--steering", "steering", "--trace"),
    ],
    ids=" ".join,
)
def test_a_place_where_nothing_can_be_written_is_refused_before_all_else(run, tmp_path, arguments):
    (tmp_path / "file").touch()
    *before, flag = arguments
    within = tmp_path / "file" / "folder" / "out"
    refused(run(*before, flag, within), f"{flag} {within}: {tmp_path / 'file'} is a file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to_is_refused(run, tmp_path):
    tmp_path.chmod(0o555)
    for command in ("fit", "features"):
        refused(run(command, "--out", tmp_path / "out"), f"{tmp_path} cannot be written to")
    assert not (tmp_path / "out").exists()


def test_a_folder_in_the_place_of_a_file_is_refused(run, tmp_path):
    refused(run("features", "--out", tmp_path), f"--out {tmp_path} is a folder: name a file")


def test_a_full_disk_is_no_defect(run, monkeypatch):
    from saepd.cli import fit

    def full(_options):
        with open("/dev/full", "w") as file:
            file.write("x")

    monkeypatch.setattr(fit, "run", full)
    refused(run("fit", "--out", "x"), "saepd fit: No space left on device: make room")


def test_what_has_no_flag_is_missing_under_the_name_that_help_has_for_it(run):
    refused(run("completion"), "SHELL is missing")
    refused(run("export", "--to", "hub", "--out", "x"), "FOLDER is missing")
    refused(run("fit"), "--out is missing")


def test_an_interrupt_is_no_traceback(run, monkeypatch):
    from saepd.cli import fit

    def interrupted(_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "run", interrupted)
    done = run("fit", "--out", "x")
    assert (done.code, done.out, done.err) == (130, "", "saepd fit: interrupted\n")


def test_a_defect_keeps_its_traceback(monkeypatch):
    from saepd.cli import fit

    def broken(_options):
        raise ZeroDivisionError

    monkeypatch.setattr(fit, "run", broken)
    with pytest.raises(ZeroDivisionError):
        main(["fit", "--out", "x"])


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ()])
def test_help_lists_every_command(run, arguments):
    done = run(*arguments)
    assert done.code == (0 if arguments else 2)
    assert all(f"  {name} " in done.out and text in done.out for name, text in COMMANDS.items())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(run, command):
    done = run(command, "--help")
    assert done.code == 0
    assert COMMANDS[command] in " ".join(done.out.split())
    assert f"saepd {command} " in done.out.partition("examples:")[2]


def test_the_version_is_the_packages(run):
    from importlib.metadata import version

    assert run("--version").out == version("saepd") + "\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("zzzz",), "saepd: unknown command 'zzzz'"),
        (("fit", "--out", "x", "--feedback", "none.jsonl"), "saepd fit: cannot read none.jsonl"),
        (("fit", "--out", "x", "--feedback", "none.txt"), "unknown suffix '.txt'"),
    ],
)
def test_a_process_ends_with_one_line_and_code_two(arguments, message):
    done = in_a_process("-m", "saepd.cli", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert message in line


def test_a_process_that_loads_a_model_says_no_more_than_that(files, tmp_path):
    folder = save_tiny_sae(tmp_path / "sae")
    weights = folder / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    done = in_a_process(
        *("-m", "saepd.cli", "fit", "--method", "differences", "--out", str(tmp_path / "out")),
        *("--feedback", files.feedback, "--model", files.model, "--sae", str(folder)),
    )
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"saepd fit: cannot load the SAE in {folder}: ")
    assert not (tmp_path / "out").exists()


HEAVY = "{'torch', 'transformers', 'numpy', 'transformer_lens', 'sae_lens'}"


@pytest.mark.parametrize(
    "code",
    [
        "import saepd; dir(saepd); saepd.InputError",
        "from saepd.cli import main; assert main(['--help']) == 0",
        "from saepd.cli import main; assert main(['--version']) == 0",
        "from saepd.cli import main; assert main(['zzzz']) == 2",
    ],
)
def test_what_needs_no_model_imports_nothing_heavy(code):
    done = in_a_process("-c", f"{code}\nimport sys; print(*({HEAVY} & set(sys.modules)))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == ""


def test_words_are_looked_up_without_the_libraries_of_models():
    code = (
        "import sys; from saepd.cli import main\n"
        "assert main(['search', 'money and taxes', '--top', '1', '--json']) == 0\n"
        "assert not {'transformers', 'transformer_lens', 'sae_lens'} & set(sys.modules)"
    )
    done = in_a_process("-c", code)
    assert done.returncode == 0, done.stderr


def test_no_help_of_a_command_imports_anything_heavy():
    code = (
        "import sys; from saepd.cli import COMMANDS, main\n"
        "for name in COMMANDS:\n"
        "    assert main([*name.split(), '--help-all']) == 0\n"
        f"    assert not ({HEAVY} - {{'numpy'}}) & set(sys.modules), name"
    )
    done = in_a_process("-c", code)
    assert done.returncode == 0, done.stderr
