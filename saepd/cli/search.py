"""``saepd search``: latents by words, by texts in which they fire, or one latent's own page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from saepd.cli.fields import argument
from saepd.cli.options import load_model_and_sae, print_json, print_table
from saepd.common.checks import check_number
from saepd.common.errors import InputError
from saepd.models.choice import ModelConfig

if TYPE_CHECKING:
    from saepd.features.index.feature_index import FeatureIndex
    from saepd.features.index.latent_page import LatentPage
    from saepd.features.index.search import FoundLatent

EXAMPLES = """\
  saepd search "money and taxes"
  saepd search --text "The bus was late again." --top 20
  saepd search --text "Raise taxes." "Taxes are theft." --against "Raise wages."
  saepd search --latent 1203 --block 20
  saepd search "money and taxes" --index index

Words need no model. In a context, the token in brackets is the one that counts."""

FIRST = ("query", "text", "against", "latent", "top", "index", "block", "json")

# Contexts of a page that are shown in a terminal.
_N_SHOWN = 8


@dataclass(kw_only=True)
class Options:
    """What is looked up.

    Attributes:
        query: Words to look for in labels, contexts and promoted tokens.
        text: Texts in which the latents should fire more than usual.
        against: Texts in which they should not.
        latent: Id of a latent, whose page is shown.
        top: Latents that are shown at most.
        index: Folder of the index; the one beside the SAE if not given.
        json: Print as JSON.
    """

    query: str | None = argument(None)
    text: list[str] = field(default_factory=list)
    against: list[str] = field(default_factory=list)
    latent: int | None = None
    top: int = 10
    index: Path | None = None
    json: bool = False
    where: ModelConfig = field(default_factory=ModelConfig)


def run(options: Options) -> None:
    """Look up and show."""
    n_ways = sum((options.query is not None, bool(options.text), options.latent is not None))
    if n_ways != 1:
        raise InputError(
            "look latents up by words, by --text, or by --latent: give one of the three"
        )
    check_number("--top", options.top, at_least=1, whole=True)
    where, folder = options.where, _folder(options)
    from saepd.features.index.reading import load_index, read_info
    from saepd.features.index.search import search

    read_info(folder)
    if options.text:
        model, sae = load_model_and_sae(where)
        index = load_index(folder, sae)
        latents = search(
            None,
            index,
            texts=options.text,
            against=options.against,
            model=model,
            sae=sae,
            n=options.top,
        )
        site = index.info["hook_name"]
        _show_latents(latents, f"fire there more than usual, at {site}", options)
        return
    index = load_index(folder)
    if options.latent is not None:
        index.check(options.latent)
        _show_page(index, index.page(options.latent), options)
        return
    latents = search(options.query, index, n=options.top, against=options.against)
    _show_latents(latents, f"match {options.query!r}", options)


def _folder(options: Options) -> Path:
    if options.index is not None:
        return options.index
    from saepd.features.index.reading import index_folder

    return index_folder(options.where.sae_source, options.where.sae_id)


def _show_latents(latents: Sequence[FoundLatent], title: str, options: Options) -> None:
    from saepd.cli.show import strip

    if options.json:
        print_json([one.to_dict() for one in latents])
        return
    if not latents:
        print("no latent fires there more than usual")
        return
    print_table(
        f"Latents that {title}",
        ["latent", "score", "label", "label AUROC", "context"],
        [
            [
                str(one.latent),
                f"{one.score:.2f}",
                one.label,
                _share(one.label_auroc),
                "" if one.context is None else strip(one.context, 8),
            ]
            for one in latents
        ],
        sentences=("label", "context"),
    )
    for one in latents:
        for label in one.given:
            print(f"{one.latent}, {label.source} says: {label.text}")


def _show_page(index: FeatureIndex, page: LatentPage, options: Options) -> None:
    from saepd.cli.show import strip

    if options.json:
        print_json(page.to_dict())
        return
    auroc = _share(page.label_auroc) or "not known"
    print(f"Latent {page.latent} at {index.info['hook_name']}: {page.label}")
    for label in page.given:
        print(f"{label.source} says: {label.text}")
    print(f"label tells held-out contexts that fire from silent ones: AUROC {auroc}")
    print(f"fires at {page.n_firings} of {index.info['n_counted']} tokens ({page.density:.2%})")
    quantiles = ", ".join(f"{page.quantiles[q]:.3g} ({q:.0%})" for q in (0.1, 0.5, 0.9, 1.0))
    print(f"activations: {quantiles}")
    places = ", ".join(f"{at}: {share:.2%}" for at, share in page.places.items() if share)
    print(f"fires, by tokens before it in the text: {places}")
    for what, tokens in (("raises", page.raises), ("lowers", page.lowers)):
        print(f"{what}: {' '.join(map(repr, tokens))}")
    for what, near in (("fires together with", page.together), ("writes like", page.alike)):
        print(f"{what}: {', '.join(f'{one.latent} ({one.score:.2f})' for one in near)}")
    step = max(1, len(page.contexts) // _N_SHOWN)
    print_table(
        f"contexts, {index.info['n_passages']} passages",
        ["kind", "activation", "context"],
        [[c.kind, f"{c.activation:.3g}", strip(c, 12)] for c in page.contexts[::step]],
        sentences=("context",),
    )


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
