"""``saepd features``: which latents encode whose feedback, and the evidence for each."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from saepd.cli.fit import FeedbackOptions
from saepd.cli.options import load_model_and_sae, print_json
from saepd.common.checks import check_number
from saepd.common.progress import progress_bar
from saepd.features.config import FeatureConfig
from saepd.models.choice import ModelConfig
from saepd.models.wording import ReadoutConfig

EXAMPLES = """\
  saepd features
  saepd features --feedback mine.jsonl --top 10 --contrast others
  saepd features --block 20 --json > features.json"""

FIRST = ("feedback", "top", "k", "contrast", "model", "sae")


@dataclass(kw_only=True)
class Options:
    """What is shown.

    Attributes:
        top: Latents shown per perspective.
        json: Print as JSON, contexts included.
        out: JSON file that the features are also written to.
        index: Folder of an index, for labels and contexts; the one beside the SAE if not given.
    """

    top: int = 5
    json: bool = False
    out: Path | None = None
    index: Path | None = None
    rows: FeedbackOptions = field(default_factory=FeedbackOptions)
    where: ModelConfig = field(default_factory=ModelConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    readout: ReadoutConfig = field(default_factory=ReadoutConfig)


def run(options: Options) -> None:
    """Select features and explain the strongest."""
    from saepd.cli.show import shared_sentence, show_contexts, show_evidence, stable_sentence
    from saepd.common.files import write_json
    from saepd.features.index.reading import load_index, own_index, read_info
    from saepd.features.table import feature_table
    from saepd.interchange.neuronpedia import latents_link

    check_number("--top", options.top, at_least=1, whole=True)
    if options.index is not None:
        read_info(options.index)
    rows = options.rows.load()
    model, sae = load_model_and_sae(options.where)
    index = own_index(sae) if options.index is None else load_index(options.index, sae)
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
    found = table.to_dict()
    if options.out is not None:
        write_json(options.out, found)
    if options.json:
        print_json(found)
        return
    print(table.sentence)
    for features in table.features:
        evidence = table.of(features.perspective)
        show_evidence(evidence, stable_sentence(features))
        show_contexts(evidence)
        page = getattr(sae.cfg.metadata, "neuronpedia_id", None)
        if link := latents_link(page, features.perspective, [one.latent for one in evidence]):
            print(f"Their pages: {link}")
        for note in features.notes:
            print(note)
    for (a, b), share in table.overlap.items():
        print(shared_sentence(f"{a} / {b}", share))
    if index is None:
        print(
            "This SAE has no index, so that latents have no labels: build one with saepd index, "
            "and name it with --index."
        )
