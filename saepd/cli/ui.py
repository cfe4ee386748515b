"""``saepd ui``: a page on this machine where perspectives are steered and seen side by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from saepd.cli.steering import SteeringOptions
from saepd.merge.config import MergeConfig
from saepd.models.choice import ModelConfig

EXAMPLES = """\
  saepd fit --out steering
  saepd ui --steering steering
  saepd ui --steering steering --items questions.jsonl --port 8000

The page is on this machine alone, sends nothing anywhere, and ends with Ctrl-C."""

FIRST = ("steering", "items", "port")


@dataclass(kw_only=True)
class Options:
    """What the page shows.

    Attributes:
        items: JSONL or CSV file of questions to choose from, with what people answered; the
            packaged survey's if not given.
        port: Port of the page; 0 takes a free one.
    """

    items: Path | None = None
    port: int = 7860
    directions: SteeringOptions
    where: ModelConfig = field(default_factory=ModelConfig)


def run(options: Options) -> None:
    """Load, serve until interrupted."""
    from saepd.feedback.reading import load_items
    from saepd.feedback.survey import survey_items

    items = survey_items() if options.items is None else load_items(options.items).rows
    options.directions.check(MergeConfig())
    model, directions = options.directions.load(options.where)
    from saepd.pages.live.server import LiveServer
    from saepd.pages.live.session import LiveSession

    session = LiveSession(model, directions, items, str(options.directions.steering))
    with LiveServer(session, options.port) as server:
        print(f"open {server.url} in a browser; Ctrl-C ends it", flush=True)
        server.serve_forever()
