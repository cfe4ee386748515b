"""``saepd explore``: every latent, search and the table of feedback in one HTML file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from saepd.cli.fit import FeedbackOptions
from saepd.cli.options import load_model_and_sae
from saepd.common.checks import check_number
from saepd.common.errors import InputError
from saepd.common.progress import progress_bar
from saepd.features.config import FeatureConfig
from saepd.models.choice import ModelConfig
from saepd.models.wording import ReadoutConfig

EXAMPLES = """\
  saepd explore --feedback mine.jsonl --out explore.html
  saepd explore --sae SAE --index index --feedback mine.jsonl --out explore.html

The file opens in any browser, from a file system and without a network."""

FIRST = ("out", "feedback", "index", "top", "model", "sae", "block")


@dataclass(kw_only=True)
class Options:
    """What the file shows.

    Attributes:
        out: HTML file that is written.
        index: Folder of the index; the one beside the SAE if not given.
        top: Latents of each perspective in the table of feedback.
    """

    out: Path
    index: Path | None = None
    top: int = 10
    rows: FeedbackOptions = field(default_factory=FeedbackOptions)
    where: ModelConfig = field(default_factory=ModelConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    readout: ReadoutConfig = field(default_factory=ReadoutConfig)


def run(options: Options) -> None:
    """Compute the table, write the file, and say how large it is."""
    from saepd.common.files import write_atomically
    from saepd.features.index.reading import index_folder, load_index, read_info
    from saepd.features.table import feature_table
    from saepd.pages.explorer import explorer

    check_number("--top", options.top, at_least=1, whole=True)
    if options.out.is_dir():
        raise InputError(f"--out {options.out} is a folder: name an HTML file")
    where = options.where
    folder = options.index or index_folder(where.sae_source, where.sae_id)
    read_info(folder)
    rows = options.rows.load()
    model, sae = load_model_and_sae(where)
    index = load_index(folder, sae)
    with progress_bar(f"encoding {len(rows)} rows") as report:
        table = feature_table(
            model,
            sae,
            rows,
            options.features,
            options.readout,
            index=index,
            top=options.top,
            progress=report,
        )
    written = explorer(index, table)
    write_atomically(options.out, written)
    print(table.sentence)
    print(f"{options.out}: {index.d_sae} latents, {len(written) / 1e6:.1f} MB")
