"""``saepd label``: ask a language model what latents are about, and score what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saepd.cli.options import check_file, load_model_and_sae, print_json, print_table
from saepd.common.checks import check_number
from saepd.common.progress import progress_bar
from saepd.features.index.endpoint import Endpoint, EndpointConfig
from saepd.models.choice import ModelConfig

if TYPE_CHECKING:
    from saepd.features.index.given_labels import Detection

EXAMPLES = """\
  saepd label --out labels.jsonl --dry-run
  saepd label --endpoint http://127.0.0.1:8000/v1 --endpoint-model MODEL \\
    --latents 1203 88 --out labels.jsonl
  saepd index --labels labels.jsonl --out labelled      (shown with --index)

Each label is scored on texts it was not made of, beside the label of another
latent. Excerpts of the index's texts, tokens that the latents promote and the
labels are sent to the endpoint; without --endpoint nothing is. A key is read
from the environment variable SAEPD_ENDPOINT_KEY alone. The same command goes on
where it was stopped."""

FIRST = ("endpoint", "endpoint_model", "latents", "top", "out", "dry_run", "index", "block")

# What is taken for an answer, and for a token, where nothing is sent.
_ANSWER = "words that are about one thing or another, number {}"
_CHARACTERS_PER_TOKEN = 4


@dataclass(kw_only=True)
class Options:
    """Which latents are labelled.

    Attributes:
        out: JSON lines that the labels are written to, or gone on with.
        latents: Ids of the latents; those that fire most often if not given.
        top: Number of latents that are labelled where none are named; those that fire at a tenth
            of all tokens are left out.
        dry_run: Send nothing; say how much would be sent, and show the first request.
        index: Folder of the index; the one beside the SAE if not given.
        json: Print the labels as JSON.
    """

    out: Path
    latents: list[int] = field(default_factory=list)
    top: int = 20
    dry_run: bool = False
    index: Path | None = None
    json: bool = False
    asked: EndpointConfig = field(default_factory=EndpointConfig)
    where: ModelConfig = field(default_factory=ModelConfig)


def run(options: Options) -> None:
    """Ask, score, and say what came out."""
    check_file(options.out, "a file of labels")
    check_number("--top", options.top, at_least=1, whole=True)
    ask = _Counting() if options.dry_run else Endpoint(options.asked)
    from saepd.features.index.asked_labels import HeldOutTexts, LabelFile, densest, label_latents
    from saepd.features.index.reading import index_folder, load_index, read_info

    where = options.where
    folder = options.index or index_folder(where.sae_source, where.sae_id)
    read_info(folder)
    model, sae = load_model_and_sae(where)
    index = load_index(folder, sae)
    latents = list(dict.fromkeys(options.latents)) or densest(index, options.top)
    name = options.asked.endpoint_model or "MODEL"
    file = LabelFile(options.out, index, sae, name, writes=not options.dry_run)
    with progress_bar("asking for labels") as report:
        label_latents(index, latents, ask, file, HeldOutTexts(model, sae, index), report)
    if isinstance(ask, _Counting):
        _show_counted(ask, options)
        return
    rows = [file.rows[latent] for latent in latents]
    if options.json:
        print_json(rows)
        return
    _show(rows, name, options.out)


class _Counting:
    """Stands for the endpoint where nothing is sent, and keeps what would be."""

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def __call__(self, prompt: str) -> str:
        self.prompts.append(prompt)
        return _ANSWER.format(len(self.prompts))


def _show_counted(ask: _Counting, options: Options) -> None:
    n_tokens = sum(map(len, ask.prompts)) // _CHARACTERS_PER_TOKEN
    n_most = len(ask.prompts) * options.asked.max_tokens
    print(
        f"{len(ask.prompts)} requests with about {n_tokens} tokens would be sent, and at most "
        f"{n_most} tokens answered"
    )
    if ask.prompts:
        print("The first:")
        print_json(options.asked.request(ask.prompts[0]))


def _show(rows: Sequence[dict[str, Any]], name: str, out: Path) -> None:
    from saepd.features.index.given_labels import detection

    scored = [detection(str(out), row) for row in rows]
    print_table(
        f"Labels by {name}",
        ["latent", "label", "balanced accuracy", "under another's label", "better"],
        [
            [str(row["index"]), row["description"] or row.get("note", ""), *_cells(score, row)]
            for row, score in zip(rows, scored, strict=True)
        ],
        sentences=("label",),
    )
    print(_sentence(rows, [score for score in scored if score is not None]))
    print(f"{out}: saepd index --labels {out} --out FOLDER shows them beside the computed ones")


def _cells(score: Detection | None, row: dict[str, Any]) -> list[str]:
    if score is None:
        return [row.get("note", "") if row["description"] else "", "", ""]
    return [
        f"{score.value:.2f} [{score.low:.2f}, {score.high:.2f}]",
        f"{score.null:.2f} [{score.null_low:.2f}, {score.null_high:.2f}]",
        "yes" if score.better else "no",
    ]


def _sentence(rows: Sequence[dict[str, Any]], scores: Sequence[Detection]) -> str:
    """Whether the labels say anything, all taken together."""
    import numpy as np

    from saepd.metrics.intervals import draw_weights, interval
    from saepd.metrics.weighted import mean

    n_labelled = sum(bool(row["description"]) for row in rows)
    said = f"{n_labelled} of {len(rows)} latents labelled, {len(scores)} of the labels scored"
    gains = np.array([score.value - score.null for score in scores])
    found = interval(mean(gains, draw_weights(range(len(gains)), 0))) if len(gains) else None
    if found is None:
        return f"{said}: too few to say what labels by this model are worth"
    worth = "" if found.low > 0 else ": no better than the label of another latent"
    n_better = sum(score.better for score in scores)
    return (
        f"{said}; balanced accuracy {np.mean([score.value for score in scores]):.2f} in the mean, "
        f"{found.estimate:+.2f} [{found.low:+.2f}, {found.high:+.2f}] to the label of another "
        f"latent{worth}; {n_better} labels are better each by itself"
    )
