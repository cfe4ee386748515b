"""``saepd features``: which latents encode whose feedback, and the evidence for each."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from saepd.cli.latent_table import TableOptions
from saepd.cli.options import check_file, print_json

EXAMPLES = """\
  saepd features
  saepd features --feedback mine.jsonl --top 10 --contrast options
  saepd features --block 20 --json > features.json"""

FIRST = ("feedback", "top", "k", "contrast", "model", "sae")


@dataclass(kw_only=True)
class Options:
    """What is shown.

    Attributes:
        json: Print as JSON, contexts included.
        out: JSON file that the features are also written to.
    """

    json: bool = False
    out: Path | None = None
    asked: TableOptions = field(default_factory=TableOptions)


def run(options: Options) -> None:
    """Select features and explain the strongest."""
    from saepd.cli.show import shared_sentence, show_contexts, show_evidence, stable_sentence
    from saepd.common.files import write_json
    from saepd.interchange.neuronpedia import latents_link

    check_file(options.out)
    tabled = options.asked.compute()
    table = tabled.table
    if options.out is not None:
        write_json(options.out, table.to_dict())
    if options.json:
        print_json(table.to_dict())
        return
    print(table.sentence)
    for features in table.features:
        evidence = table.of(features.perspective)
        show_evidence(evidence, stable_sentence(features))
        show_contexts(evidence)
        page = getattr(tabled.sae.cfg.metadata, "neuronpedia_id", None)
        if link := latents_link(page, features.perspective, [one.latent for one in evidence]):
            print(f"Their pages: {link}")
        for note in features.notes:
            print(note)
    for (a, b), share in table.overlap.items():
        print(shared_sentence(f"{a} / {b}", share))
    if tabled.index is None:
        print(
            "This SAE has no index, so that latents have no labels: build one with saepd index, "
            "and name it with --index."
        )
