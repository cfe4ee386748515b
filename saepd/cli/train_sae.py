"""``saepd train-sae``: dictionaries for a model, trained on one's own text."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from saepd.cli.options import check_folder
from saepd.common.errors import InputError
from saepd.saes.config import TrainConfig

EXAMPLES = """\
  saepd train-sae --corpus corpus/*.jsonl.gz --work work --out saes
  saepd train-sae --corpus prose.txt --sites blocks.4.hook_resid_post \\
      --tokens 200000 --training-tokens 1000000 --work work --out saes

The same command continues an interrupted run."""

FIRST = ("corpus", "work", "out", "model", "sites", "tokens", "training_tokens")


@dataclass(kw_only=True)
class Options:
    """What is trained on what.

    Attributes:
        corpus: Text to train on: .txt, .jsonl or .jsonl.gz files (field "text").
        work: Folder for cached activations and checkpoints; large.
        out: Folder that gets one SAELens folder per site.
        model: Hub id, folder or .gguf file of the language model; the packaged one if not given.
        eval_texts: Further texts that the card measures on, as NAME=FILE.
    """

    corpus: list[Path]
    work: Path
    out: Path
    model: str | None = None
    eval_texts: list[str] = field(default_factory=list)
    training: TrainConfig = field(default_factory=TrainConfig)


def run(options: Options) -> None:
    """Train, measure and say where the results are."""
    import os

    from saepd.saes.corpus import read_documents
    from saepd.saes.train import train_saes

    check_folder(options.out)
    check_folder(options.work, "--work")
    texts = {}
    for pair in options.eval_texts:
        name, _, path = pair.partition("=")
        if not path:
            raise InputError(f"--eval-texts {pair!r}: write NAME=FILE")
        texts[name] = read_documents([Path(path)])
    # The one command whose progress is a library's own bar.
    os.environ.pop("TQDM_DISABLE", None)
    folders = train_saes(
        options.training,
        options.model,
        options.corpus,
        options.out,
        options.work,
        eval_texts=texts,
    )
    for folder in folders:
        print(folder)
