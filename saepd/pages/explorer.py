"""The explorer: every latent of an SAE, search and the table of feedback, in one file.

The file loads nothing. Its one script is named by its hash in the page's policy, so that nothing
that stands in texts can run, and sets text as text only.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from saepd.common.html import STYLE, Html, element, joined
from saepd.features.index.feature_index import FeatureIndex
from saepd.features.index.labels import WHERE
from saepd.features.index.latent_page import Context
from saepd.features.index.statistics import PLACES
from saepd.features.table import FeatureTable

_SCRIPT = Path(__file__).with_name("explorer.js")
_STYLE = """
:root{color-scheme:light dark}
body{font-family:system-ui,sans-serif;line-height:1.5;margin:0 auto;padding:1em;max-width:70em;
background:Canvas;color:CanvasText}
h1{font-size:1.3em;margin:.2em 0}a{color:LinkText}
form{display:flex;gap:.5em;flex-wrap:wrap;align-items:center;margin:.6em 0}
input{flex:1 1 14em;font:inherit;padding:.3em}button{font:inherit;padding:.3em .8em}
main{outline:none}.saepd{max-width:none}.lead{font-size:1.1em}td:not(.n):last-child{min-width:14em}
.peak{outline:2px solid rgba(230,120,0,.9);border-radius:2px;display:inline-block;white-space:pre}
.bars .name{display:inline-block;width:5em;text-align:right;margin-right:.6em}
"""


def explorer(index: FeatureIndex, table: FeatureTable | None = None) -> bytes:
    """The file.

    Args:
        index: What every latent does in texts.
        table: Which latents encode some feedback; without it, the file is of the index alone.
    """
    script = _SCRIPT.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    info = index.info
    title = f"Latents at {info['hook_name']} of {info['model_name']}"
    data = json.dumps(_data(index, table), ensure_ascii=False, separators=(",", ":"))
    # Within a script element only "<" could end it.
    escaped = data.replace("<", "\\u003c")
    head = joined(
        Html('<meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width,initial-scale=1">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        element("title", title),
        Html(f"<style>{STYLE}{_STYLE}</style>"),
    )
    hint = "words, or the id of a latent"
    form = element(
        "form",
        element("input", id="query", type="search", aria_label=hint, placeholder=hint),
        element("button", "Search", type="submit"),
        element("a", "Feedback", href="#table"),
        id="search",
        role="search",
    )
    body = joined(
        element("h1", title),
        form,
        element("main", id="main", tabindex="-1", class_="saepd"),
        element("footer", element("p", info["about"], class_="note"), class_="saepd"),
        Html(f'<script id="data" type="application/json">{escaped}</script>'),
        Html(f"<script>{script}</script>"),
    )
    html = f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'
    return html.encode()


def _data(index: FeatureIndex, table: FeatureTable | None) -> dict[str, Any]:
    numbers = {piece: i for i, piece in enumerate(index.pieces)}
    sentence = "Search for words, or for the id of a latent."
    return {
        "sentence": sentence if table is None else table.sentence,
        "pieces": index.pieces,
        "places": list(PLACES),
        "table": None if table is None else table.to_dict(),
        "latents": [_latent(index, latent, numbers) for latent in range(index.d_sae)],
    }


def _latent(index: FeatureIndex, latent: int, numbers: dict[str, int]) -> dict[str, Any] | None:
    page = index.page(latent)
    if not page.n_firings:
        return None
    return {
        "n": page.n_firings,
        "density": _short(page.density),
        "auroc": page.label_auroc and _short(page.label_auroc),
        "terms": [[t.word, WHERE.index(t.where), _short(t.weight)] for t in page.terms],
        "quantiles": [_short(value) for value in page.quantiles.values()],
        "histogram": page.histogram,
        "places": [_short(value) for value in page.places.values()],
        "contexts": [_context(context, numbers) for context in page.contexts],
        "together": [[one.latent, _short(one.score)] for one in page.together],
        "alike": [[one.latent, _short(one.score)] for one in page.alike],
        "raises": [numbers[token] for token in page.raises],
        "lowers": [numbers[token] for token in page.lowers],
        "given": [[label.text, label.source] for label in page.given],
    }


def _context(context: Context, numbers: dict[str, int]) -> list[Any]:
    fired = [[i, _short(a)] for i, a in enumerate(context.activations) if a > 0]
    return [context.kind, context.peak, [numbers[token] for token in context.tokens], fired]


def _short(value: float) -> float:
    """Four digits, which is what a half float holds."""
    return float(f"{value:.4g}")
