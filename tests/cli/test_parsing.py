import json
import os
import subprocess
import sys

import pytest

from saepd.cli import main
from saepd.cli.command import load_command
from saepd.cli.parsing import parse
from saepd.common.errors import InputError
from saepd.fit.config import FitConfig


def parsed(name, *arguments):
    return parse(load_command(name), arguments)


def test_options_reach_the_dataclass_that_nests_them():
    options = parsed("fit", "--out", "x", "--k", "5", "--kl-budget", "0.5", "--sae-id=s", "--sae=r")
    assert (options.fit.features.k, options.fit.direction.kl_budget) == (5, 0.5)
    assert (options.where.sae, options.where.sae_id) == ("r", "s")
    assert parsed("fit", "--out", "x").fit == FitConfig()


def test_values_without_a_name_and_lists():
    options = parsed("answer", "So?", "--options", "Yes", "No", "--steering", "s")
    assert (options.question, options.options) == ("So?", ["Yes", "No"])
    assert parsed("sweep point", "block=15", "k=8", "--out", "x").parameters == ["block=15", "k=8"]
    assert (
        parsed("generate", "--prompts", "p", "--steering", "s", "--stop", ".", "?").prompt is None
    )


def test_names_that_two_dataclasses_share_are_told_apart():
    options = parsed(
        *("train-sae", "--corpus", "a.txt", "b.txt", "--work", "w", "--out", "o"),
        *("--training-seed", "3", "--corpus-seed", "4"),
    )
    assert (options.training.seed, options.training.corpus.seed) == (3, 4)
    assert [path.name for path in options.corpus] == ["a.txt", "b.txt"]


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_file_sets_options_and_the_command_line_goes_first(tmp_path, suffix):
    values = {"out": "steering", "k": 5, "anyway": True, "sae-id": "s", "sae": "r", "factor": 3}
    path = tmp_path / f"mine.{suffix}"
    path.write_text(json.dumps(values, indent="\t" if suffix == "json" else 1))
    options = parsed("fit", "--config", str(path), "--k", "7", "--no-anyway")
    assert (str(options.out), options.fit.features.k) == ("steering", 7)
    assert not options.learning.anyway
    assert (options.where.sae_id, options.fit.direction.factor) == ("s", 3.0)
    assert parsed("fit", f"--config={path}").learning.anyway


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kk: 3", "there is no option 'kk': did you mean 'k'?"),
        ("- 3", r"holds \[3\]: write a mapping of options"),
        ("k: [", "line 1 is not YAML: "),
        ("k: 3\nk: 4", "line 2: the key 'k' comes twice"),
        ("kl-budget: 1\nkl_budget: 2", "gives kl_budget twice"),
        ("k: many", "k is 'many': input should be a valid integer"),
        ("contrast: othrs", "contrast is 'othrs': input should be 'options', 'anchor' or"),
        ("k: null", "k is None: input should be a valid integer"),
        ("sae: Yes", "sae is Yes, which YAML reads as true"),
        ("sae: true", "sae is True: input should be a valid string"),
    ],
)
def test_a_file_that_sets_nothing_sensible_is_refused(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        parsed("fit", "--out", "x", "--config", str(path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kk", "3"], r"Unknown option: --kk\. Did you mean --k\?"),
        (["--k", "many"], 'Invalid value for --k: unable to convert "many" into int'),
        (["--contrast", "othrs"], 'Did you mean "others"'),
        (["--k", "3", "--k", "4"], "--k specified multiple times"),
        (["more"], "'more' belongs to no option"),
        (["--config", "none.yaml"], "cannot read --config none.yaml: No such file"),
        (["--sae-id", "15"], "the SAE id '15' is given without its release"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_sentence(arguments, message):
    with pytest.raises(InputError, match=message) as refused:
        parsed("fit", "--out", "x", *arguments)
    assert "\n" not in str(refused.value)


def test_what_must_be_given_is_asked_for():
    with pytest.raises(InputError, match="--out is missing"):
        parsed("fit")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(capsys, shell):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in ("train-sae", "kl-budget", "othe"))


def test_bash_reads_the_completion_script(capsys):
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    words = 'COMP_WORDS=(saepd fit --kl-b); COMP_CWORD=2; _saepd; echo "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{words}"], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["--kl-budget"], done.stderr


# What rich prints ends with rich's own code.
@pytest.mark.parametrize(
    ("arguments", "code"), [(["completion", "bash"], 141), (["fit", "--help-all"], 1)]
)
def test_a_reader_that_has_gone_ends_the_command_quietly(arguments, code):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "saepd.cli", *arguments]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (code, "")
