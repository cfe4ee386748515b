"""``saepd features``: which latents encode whose feedback, and the evidence for each."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from saepd.cli.fit import FeedbackOptions
from saepd.cli.options import load_model_and_sae, print_json, progress
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
    """

    top: int = 5
    json: bool = False
    out: Path | None = None
    rows: FeedbackOptions = field(default_factory=FeedbackOptions)
    where: ModelConfig = field(default_factory=ModelConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    readout: ReadoutConfig = field(default_factory=ReadoutConfig)


def run(options: Options) -> None:
    """Select features and explain the strongest."""
    from saepd.cli.show import shared_sentence, show_contexts, show_evidence, stable_sentence
    from saepd.common.files import write_json
    from saepd.features.encode import encode_pairs
    from saepd.features.evidence import explain
    from saepd.features.select import overlap, select_all

    rows = options.rows.load()
    model, sae = load_model_and_sae(options.where)
    with progress(f"encoding {len(rows)} rows") as report:
        pairs = encode_pairs(model, sae, rows, options.features, options.readout, report)
        chosen = select_all(pairs, options.features)
        evidence = [explain(model, sae, pairs, features, options.top) for features in chosen]
    shared = {f"{a} / {b}": share for (a, b), share in overlap(chosen).items()}
    counts = [
        {
            "perspective": features.perspective,
            "n_stable": features.n_stable,
            "n_by_chance": features.n_by_chance,
            "n_candidates": features.n_candidates,
            "n_unstable": features.n_unstable,
            "notes": features.notes,
        }
        for features in chosen
    ]
    found = {
        "features": [e.to_dict() for group in evidence for e in group],
        "counts": counts,
        "overlap": {names: share._asdict() for names, share in shared.items()},
    }
    if options.out is not None:
        write_json(options.out, found)
    if options.json:
        print_json(found)
        return
    for group, features in zip(evidence, chosen, strict=True):
        show_evidence(group, stable_sentence(features))
        show_contexts(group)
        for note in features.notes:
            print(note)
    for names, share in shared.items():
        print(shared_sentence(names, share))
