"""``saepd index``: what every latent does over a collection of texts."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from saepd.cli.options import check_folder, load_model_and_sae, print_json
from saepd.common.errors import InputError
from saepd.common.progress import progress_bar
from saepd.features.index.config import IndexConfig
from saepd.models.choice import ModelConfig

if TYPE_CHECKING:
    from saepd.features.index.feature_index import FeatureIndex

EXAMPLES = """\
  saepd index --texts prose/*.txt --out index
  saepd index --model MODEL --sae SAE --texts corpus.jsonl.gz --out SAE/index
  saepd search "money and taxes" --index index
  saepd index --labels labels.jsonl --out index

The same command continues an interrupted run. An index in the folder "index" of
an SAE's own folder is found without being named. With --labels and no texts,
labels are added to the index in --out, or to a copy of the SAE's own."""

FIRST = ("texts", "out", "about", "labels", "max_tokens", "model", "sae")


@dataclass(kw_only=True)
class Options:
    """What is read into the index.

    Attributes:
        texts: Files of texts: .txt (one text each), .jsonl or .jsonl.gz (field "text"). Without
            them, labels are added to an index.
        out: Folder that the index is written to.
        about: Where the texts come from and under which licence, as the index shall say it.
        labels: Files of labels that others gave the SAE's latents, as Neuronpedia exports its
            explanations; they are shown beside the computed ones.
        json: Print what was read as JSON.
    """

    out: Path
    texts: list[Path] = field(default_factory=list)
    about: str = ""
    labels: list[Path] = field(default_factory=list)
    json: bool = False
    where: ModelConfig = field(default_factory=ModelConfig)
    reading: IndexConfig = field(default_factory=IndexConfig)


def run(options: Options) -> None:
    """Build the index, and say what is in it."""
    from saepd.features.index.build import build_index

    check_folder(options.out)
    for option, paths in (("--texts", options.texts), ("--labels", options.labels)):
        for path in paths:
            if not path.is_file():
                raise InputError(f"{option} {path}: there is no such file")
    if not options.texts:
        _add_labels(options)
        return
    model, sae = load_model_and_sae(options.where)
    with progress_bar("reading texts") as report:
        index = build_index(
            model,
            sae,
            options.texts,
            options.out,
            options.reading,
            about=options.about,
            labels=options.labels,
            progress=report,
        )
    _show(index, options)


def _add_labels(options: Options) -> None:
    """Put labels beside the index in --out, or beside a copy of the SAE's own."""
    from saepd.features.index.given_labels import read_labels, write_labels
    from saepd.features.index.reading import load_index, own_index
    from saepd.saes.load import load_sae

    if not options.labels:
        raise InputError("there is nothing to read: give --texts, or --labels for an index")
    out = options.out.resolve()
    sae = load_sae(options.where.sae_source, options.where.sae_id)
    is_new = not out.exists() or not any(out.iterdir())
    index = own_index(sae) if is_new else load_index(out, sae)
    if index is None:
        raise InputError(
            f"neither {options.out} nor the SAE's own folder holds an index: build one with --texts"
        )
    given = read_labels(options.labels, sae)
    if is_new:
        work = out.with_name(f".{out.name}-copied")
        shutil.copytree(index.folder, work, dirs_exist_ok=True)
        work.replace(out)
    write_labels(out, given)
    _show(load_index(out), options)


def _show(index: FeatureIndex, options: Options) -> None:
    if options.json:
        print_json({"out": str(options.out), **index.info})
        return
    info = index.info
    silent = int((index.density == 0).sum())
    print(
        f"{options.out}: {index.d_sae} latents at {info['hook_name']} over {info['n_counted']} "
        f"tokens of {info['n_passages']} passages; {silent} latents never fire"
    )
