"""``saepd steer``: latents or a vector chosen by hand, the base's text beside the steered one."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saepd.branches.writing.config import SamplingConfig
from saepd.cli.fields import argument
from saepd.cli.options import (
    as_asked,
    check_folder,
    check_replaces_no_fit,
    load_model_and_saes,
    print_json,
    spinning,
)
from saepd.common.checks import check_numbers
from saepd.common.errors import InputError
from saepd.common.progress import progress_bar
from saepd.directions.latent_specs import LatentSpec, parse_latents
from saepd.fit.config import HandConfig
from saepd.models.choice import ModelConfig
from saepd.models.wording import Style

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from saepd.directions.direction import Direction

EXAMPLES = """\
  saepd steer "My town is" --style plain --features 15:1203=4 15:88=-2
  saepd steer "Taxes?" --features 1203=4 --kl-budget 0.1 --out by-hand
  saepd steer "Taxes?" --features 1203 88 --mode ablate --positions all
  saepd steer "Taxes?" --features 1203=4 --dose --towards "too much"
  saepd steer "Taxes?" --vector v.safetensors --site blocks.15.hook_resid_post"""

FIRST = ("prompt", "features", "vector", "site", "strength", "dose", "out", "json")

# Shares of the residual's norm below which texts stay as they are, and above which they break.
_LITTLE, _MUCH = 0.05, 0.8
_STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(kw_only=True)
class Options:
    """What is steered, and what is shown of it.

    Attributes:
        prompt: Text that is continued, or the user's turn that is answered.
        features: Latents that are steered, each as LATENT=VALUE, or as BLOCK:LATENT=VALUE for the
            shipped SAE of that block; without values to ablate.
        vector: Safetensors file of a dense vector that is added.
        tensor: Name of the vector in its file, where that holds several.
        site: Site that the vector is added at, such as blocks.15.hook_resid_post.
        dose: Show what several strengths do instead of two texts side by side.
        strengths: Factors of the strength that the table of strengths shows.
        towards: Text that steering is meant to make likelier; the table of strengths shows the
            nats it gains.
        name: Name of the direction, where it is saved.
        out: Folder that the direction is saved in, as saepd fit writes it.
        style: How a prompt is put to the model: as a user's turn in its chat template, or as
            plain text; if not given, in the template if the model has one.
        json: Print as JSON.
    """

    prompt: str | None = argument(None)
    features: list[str] = field(default_factory=list)
    vector: Path | None = None
    tensor: str | None = None
    site: str | None = None
    dose: bool = False
    strengths: list[float] = field(default_factory=lambda: list(_STRENGTHS))
    towards: str | None = None
    name: str = "by hand"
    out: Path | None = None
    style: Style | None = None
    json: bool = False
    hand: HandConfig = field(default_factory=HandConfig)
    where: ModelConfig = field(default_factory=ModelConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)


def run(options: Options) -> None:
    """Steer and print."""
    specs = _check(options)
    model, direction = _direction(options, specs)
    if options.out is not None:
        from saepd.directions.saving import save_to_disk

        save_to_disk(direction, options.out, model)
    if options.prompt is None:
        return
    [prompt] = as_asked(model, [options.prompt], options.style)
    if options.dose:
        _show_doses(model, prompt, direction, options)
    else:
        _show_texts(model, prompt, direction, options)


def _check(options: Options) -> list[LatentSpec]:
    """The latents that are asked for; refuses what no model is needed to refuse."""
    specs = parse_latents(options.features, options.hand.mode)
    if not specs and options.vector is None:
        raise InputError("nothing to steer with: give --features, or a --vector")
    if (options.vector is None) != (options.site is None):
        raise InputError("--vector and --site belong together: give the file and where it is added")
    if options.tensor is not None and options.vector is None:
        raise InputError("--tensor names a vector of a file: give that file with --vector")
    if options.prompt is None and options.out is None:
        raise InputError("no prompt: give one, or a folder to save the direction in with --out")
    if options.towards is not None and not options.dose:
        raise InputError("--towards is measured for the table of strengths: add --dose")
    check_numbers("strengths", options.strengths)
    if options.out is not None:
        check_folder(options.out)
        check_replaces_no_fit(options.out)
    return specs


def _direction(options: Options, specs: list[LatentSpec]) -> tuple[TransformerBridge, Direction]:
    """The model, and the direction, which has a site for each SAE and for the vector."""
    blocks = list(dict.fromkeys(spec.block for spec in specs))
    vector = None
    if options.vector is not None:
        from saepd.directions.vector_file import read_vector

        vector = read_vector(options.vector, options.tensor)
    model, saes = load_model_and_saes(options.where, blocks)
    from saepd.directions.direction import Direction
    from saepd.directions.edits import AddVector
    from saepd.fit.by_hand import steer, strengthened

    plain = HandConfig(mode=options.hand.mode, positions=options.hand.positions)
    parts = []
    for block, sae in zip(blocks, saes, strict=True):
        values = {s.latent: s.value for s in specs if s.block == block}
        given: Any = list(values) if options.hand.mode == "ablate" else values
        parts.append(steer(model, sae, given, plain, name=options.name))
    if vector is not None and options.site is not None:
        story = {"by_hand": {"vector": options.vector.name}} if options.vector else {}
        parts.append(
            Direction(
                options.name,
                options.site,
                AddVector(vector),
                positions=options.hand.positions,
                lineage=story,
            )
        )
    direction = replace(parts[0], also=tuple(parts[1:]))
    with spinning("finding the strength"):
        [direction] = strengthened(model, direction, options.hand)
    return model, direction


def _summary(model: TransformerBridge, direction: Direction) -> dict[str, Any]:
    """What is written, how much of it, and what it does to text of no concern."""
    from saepd.branches.dose import relative_dose
    from saepd.branches.neutral import side_effects

    [side] = side_effects(model, [direction])
    return {
        "directions": [
            {
                "site": part.hook_name,
                "positions": part.positions,
                "coefficient": part.coefficient,
                "latents": _latents(model, part),
            }
            for part in direction.parts
        ],
        "relative_dose": relative_dose(model, direction)[0],
        "kl_on_neutral_text": side.kl,
        "perplexity_ratio_on_neutral_text": side.perplexity_ratio,
    }


def _latents(model: TransformerBridge, direction: Direction) -> list[dict[str, Any]]:
    """The latents of a direction, with their values and what they are about."""
    from saepd.directions.edits import EditLatents
    from saepd.features.words import latent_words

    edit = direction.edit
    if not isinstance(edit, EditLatents):
        return []
    ids = edit.latents.tolist()
    values = [None] * len(ids) if edit.values is None else edit.values.tolist()
    words = latent_words(model, edit.sae, ids)
    return [
        {"latent": latent, "value": value, "about": about}
        for latent, value, about in zip(ids, values, words, strict=True)
    ]


def _show_texts(
    model: TransformerBridge, prompt: str, direction: Direction, options: Options
) -> None:
    from saepd.branches.writing.compare import compare
    from saepd.cli.strips import show_strips

    with progress_bar("writing") as report:
        [compared] = compare(model, [prompt], direction, options.sampling, progress=report)
        summary = _summary(model, direction)
    written = {"base": compared.base, "steered": compared.steered}
    if options.json:
        texts = {
            name: {
                "text": text.text,
                "ended_by": text.ended_by,
                "tokens": [{"text": step.text, "kl": step.kl[0]} for step in text.steps],
            }
            for name, text in written.items()
        }
        print_json({"prompt": prompt, **summary, **texts})
        return
    for one in summary["directions"]:
        for latent in one["latents"]:
            value = "" if latent["value"] is None else f" {latent['value']:g}"
            print(f"{options.hand.mode} {latent['latent']}{value}: {latent['about']}")
    print(_sentence(summary))
    show_strips(compared.pieces())


def _sentence(summary: dict[str, Any]) -> str:
    sites = ", ".join(dict.fromkeys(one["site"] for one in summary["directions"]))
    coefficients = ", ".join(f"{one['coefficient']:.4g}" for one in summary["directions"])
    dose = summary["relative_dose"]
    return (
        f"at {sites}, coefficient {coefficients}: {dose:.3f} of the residual's "
        f"norm; neutral text moves by {summary['kl_on_neutral_text']:.4f} nats, its perplexity by "
        f"a factor of {summary['perplexity_ratio_on_neutral_text']:.3f}{_hint(dose)}"
    )


def _hint(dose: float) -> str:
    """What to try where so little or so much is written that texts say nothing."""
    if dose < _LITTLE:
        return "; that is little: --relative-dose 0.2 would be seen"
    if dose > _MUCH:
        return "; that is much: --dose shows at which strength the text falls apart"
    return ""


def _show_doses(
    model: TransformerBridge, prompt: str, direction: Direction, options: Options
) -> None:
    from saepd.branches.dose_response import dose_response
    from saepd.cli.doses import show_doses

    with spinning(f"steering at {len(options.strengths)} strengths"):
        response = dose_response(
            model,
            [prompt],
            direction,
            options.strengths,
            towards=options.towards,
            sampling=options.sampling,
        )
    if options.json:
        print_json(
            {"prompt": prompt, "towards": options.towards, "doses": [*map(asdict, response.points)]}
        )
        return
    show_doses(response, options.towards)
