"""``saepd explore``: every latent, search and the table of feedback in one HTML file."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from saepd.cli.latent_table import TableOptions
from saepd.cli.options import check_file

EXAMPLES = """\
  saepd explore --feedback mine.jsonl --out explore.html
  saepd explore --sae SAE --index index --feedback mine.jsonl --out explore.html

The file opens in any browser, from a file system and without a network."""

FIRST = ("out", "feedback", "index", "top", "model", "sae", "block")


@dataclass(kw_only=True)
class Options:
    """What is written.

    Attributes:
        out: HTML file that is written.
    """

    out: Path
    asked: TableOptions = field(default_factory=partial(TableOptions, top=10))


def run(options: Options) -> None:
    """Compute the table, write the file, and say how large it is."""
    from saepd.common.files import write_atomically
    from saepd.pages.explorer import explorer

    check_file(options.out, "an HTML file")
    tabled = options.asked.compute(needs_index=True)
    assert tabled.index is not None
    html = explorer(tabled.index, tabled.table)
    write_atomically(options.out, html)
    print(tabled.table.sentence)
    print(f"{options.out}: {tabled.index.d_sae} latents, {len(html) / 1e6:.1f} MB")
