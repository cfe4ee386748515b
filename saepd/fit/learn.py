"""Learn directions from feedback: what they write, the readout that belongs to it, the verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int

from saepd.common.checks import check_part
from saepd.common.errors import InputError
from saepd.common.messages import shortlist
from saepd.directions.direction import Direction
from saepd.directions.edits import EditLatents, decoder_rows, scales_with_activation
from saepd.directions.fitted_readout import FittedReadout
from saepd.directions.gate import Reader
from saepd.feedback.accepting import FeedbackLike, as_feedback
from saepd.feedback.schema import Feedback
from saepd.fit.asked import Report, ask
from saepd.fit.at_sites import added, by_site, direction_at
from saepd.fit.candidates import Kind
from saepd.fit.config import FitConfig, LearningConfig
from saepd.fit.gating import Gated, learn_gated, with_gates
from saepd.fit.kinds import LearnedKinds, learn_kinds
from saepd.fit.recipe import lineage, scaled_to_config
from saepd.fit.sparse import Dictionary, Units
from saepd.fit.verdict import Verdict, verdict
from saepd.models.wording import ReadoutConfig
from saepd.saes.fits import check_sae
from saepd.saes.load import sae_hook_name, written_site

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True, repr=False)
class LearnedFit:
    """Directions, and what came out.

    Attributes:
        directions: One direction for each perspective, each with the readout that belongs to it.
        verdict: What the directions gain, what chance gains, and what they cost.
        learned: All that was learned, the controls included.
    """

    directions: list[Direction]
    verdict: Verdict
    learned: LearnedKinds = field(repr=False)

    def __repr__(self) -> str:
        names = [f"{d.perspective!r}" for d in self.directions]
        return f"LearnedFit({shortlist(names)}; {self.verdict})"

    def _repr_html_(self) -> str:
        return self.verdict._repr_html_()


def learn_directions(
    model: TransformerBridge,
    sae: SAE[Any] | Sequence[SAE[Any]],
    feedback: FeedbackLike,
    config: FitConfig | None = None,
    learning: LearningConfig | None = None,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> LearnedFit:
    """Learn a direction of every perspective in the feedback, as it will run.

    Where cross-validation finds that steering foretells answers no better than the readout alone,
    the directions write nothing and their readouts say all that was learned.

    Args:
        model: The language model.
        sae: A dictionary of one of its sites; or several, and then what is written at their sites
            is learned together and makes one direction, or that of the one site which alone
            foretells held-out answers better.
        feedback: Rows with answers among options, to at least five questions; a file of them or a
            pandas frame.
        config: Readout, positions, and what directions are scaled to; latents are chosen here, so
            its features are not used.
        learning: What is tried.
        progress: Called with what is being done, the step, and the number of steps.

    Raises:
        InputError: another mode than ``add``, an SAE that cannot steer, does not fit the model or
            normalises activations, two SAEs of one site, too few questions, feedback without
            answers among options or one item in two wordings, or a readout that is not the
            likelihood of the options' texts.
    """
    config, learning = config or FitConfig(), learning or LearningConfig()
    check_part("config", config, FitConfig)
    check_part("learning", learning, LearningConfig)
    saes = by_site(sae)
    for one in saes:
        check_sae(one, model)
    if config.direction.mode != "add":
        raise InputError(
            f"what is learned is added: leave out mode {config.direction.mode!r}, or fit with "
            "method differences"
        )
    normalising = next((one for one in saes if scales_with_activation(one)), None)
    if learning.n_latents and normalising is not None:
        raise InputError(
            f"this SAE normalises activations ({normalising.cfg.normalize_activations}), so no "
            "scale of its latents writes the same everywhere: take another SAE, fit differences of "
            "means, or learn a dense vector with n_latents 0"
        )
    rows = as_feedback(feedback)
    report: Callable[[str, int, int], None] = progress or (lambda *_: None)
    asked = ask(
        model,
        rows,
        [written_site(one) for one in saes],
        config.readout,
        config.direction.positions,
        report,
        readers=[] if learning.gate == "never" else readers_of(saes),
    )
    dictionary = Dictionary(tuple(unit_rows(one) for one in saes))
    kind: Kind = "latents" if learning.n_latents else "vector"
    controls: tuple[Kind, ...] = ("vector", "random", "shuffled")
    if not learning.n_latents:
        controls = ("shuffled",)
    learned = learn_kinds(asked, dictionary, learning, [kind], controls=controls, report=report)
    saes = saes_written(learned, saes)
    story = {**lineage(model, saes[0], rows, config), "learning": asdict(learning)}
    directions = made_of(learned, kind, saes, config.readout, story)
    gates = gates_of(learned, kind, rows, learning, report)
    if gates is not None:
        directions = with_gates(directions, gates.gates, saes[0])
    directions = scaled_to_config(model, directions, config.direction)
    report("measuring side effects", 0, 1)
    fit = LearnedFit(directions, verdict(model, learned, directions, gates), learned)
    report("done", 1, 1)
    return fit


def readers_of(saes: Sequence[SAE[Any]]) -> list[Reader]:
    """What gates may read: each dictionary's latents."""
    return [Reader(sae_hook_name(sae), sae) for sae in saes]


def saes_written(learned: LearnedKinds, saes: Sequence[SAE[Any]]) -> list[SAE[Any]]:
    """The dictionaries of the sites that cross-validation chose."""
    return [sae for sae in saes if written_site(sae) in learned.asked.hook_names]


def gates_of(
    learned: LearnedKinds,
    kind: Kind,
    rows: Sequence[Feedback],
    learning: LearningConfig,
    report: Report,
) -> Gated | None:
    """The gates that directions get; None where they get none.

    Args:
        learned: From `learn_kinds`, asked with readers.
        kind: Which of its kinds the directions are of.
        rows: The feedback.
        learning: Whether gates are wanted.
        report: Told what is being done.

    Raises:
        InputError: gates are to be there always, and there is nothing for them to weigh.
    """
    if learning.gate == "never":
        return None
    gates = learn_gated(
        learned,
        kind,
        learning.n_folds,
        same_options=len({row.options for row in rows}) == 1,
        report=report,
    )
    if gates is None and learning.gate == "always":
        raise InputError(
            "there is nothing for a gate to weigh: questions differ in their options, and no "
            "direction is supported by the feedback; leave out gate 'always', or steer anyway"
        )
    is_used = gates is not None and (gates.supported or learning.gate == "always")
    return gates if is_used else None


def made_of(
    learned: LearnedKinds,
    kind: Kind,
    saes: Sequence[SAE[Any]],
    readout: ReadoutConfig,
    story: dict[str, Any],
) -> list[Direction]:
    """The directions of one kind, at coefficient 1.

    Args:
        learned: From `learn_kinds`.
        kind: Which of its kinds.
        saes: The dictionaries of the sites that were chosen, from `saes_written`.
        readout: How options were read.
        story: Lineage of the directions.
    """
    solution, asked = learned.solutions[kind], learned.asked
    directions = []
    for name, vector in solution.vectors.items():
        edits = added(vector, len(saes))
        if solution.latents is not None:
            latents, scales = solution.latents[name]
            for site, sae in enumerate(saes):
                here, within = learned.dictionary.at_site(latents, site)
                if len(within):
                    edits[site] = EditLatents(sae, within, scales[here] / _norms(sae, within))
        directions.append(
            direction_at(
                name,
                asked.hook_names,
                edits,
                positions=asked.positions,
                lineage=story,
                readout=FittedReadout(readout, learned.base, solution.readout[name]),
            )
        )
    return directions


def unit_rows(sae: SAE[Any]) -> Units:
    """What each latent writes, at norm 1.

    A ridge on scales is fair to all latents only where each writes as much.
    """
    latents = np.arange(sae.cfg.d_sae)
    return _rows(sae, latents) / _norms(sae, latents)[:, None]


def _norms(sae: SAE[Any], latents: Int[np.ndarray, " latents"]) -> Float[np.ndarray, " latents"]:
    """Of what one unit of each latent writes."""
    return np.maximum(np.linalg.norm(_rows(sae, latents), axis=1), 1e-12)


def _rows(sae: SAE[Any], latents: Int[np.ndarray, " latents"]) -> Units:
    """What one unit of each latent writes."""
    return decoder_rows(sae, torch.from_numpy(latents)).cpu().double().numpy()
