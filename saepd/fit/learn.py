"""Learn directions from feedback: what they write, the readout that belongs to it, the verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from saepd.common.errors import InputError
from saepd.common.messages import shortlist
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, EditLatents, decoder_rows, scales_with_activation
from saepd.directions.fitted_readout import FittedReadout
from saepd.directions.gate import Reader
from saepd.feedback.accepting import FeedbackLike, as_feedback
from saepd.feedback.schema import Feedback
from saepd.fit.asked import Report, ask
from saepd.fit.candidates import Kind
from saepd.fit.config import FitConfig, LearningConfig
from saepd.fit.gating import Gated, learn_gated, with_gates
from saepd.fit.kinds import LearnedKinds, learn_kinds
from saepd.fit.recipe import lineage, scaled_to_config
from saepd.fit.sparse import Units
from saepd.fit.verdict import Verdict, verdict
from saepd.models.wording import ReadoutConfig
from saepd.saes.abilities import check_writes
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
        told = [f"{d.perspective!r}" for d in self.directions]
        return f"LearnedFit({shortlist(told)}; {self.verdict})"

    def _repr_html_(self) -> str:
        return self.verdict._repr_html_()


def learn_directions(
    model: TransformerBridge,
    sae: SAE[Any],
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
        sae: A dictionary of one of its sites.
        feedback: Rows with answers among options, of at least as many questions as there are
            folds; a file of them or a pandas frame.
        config: Readout, positions, and what directions are scaled to; latents are chosen here, so
            its features are not used.
        learning: What is tried.
        progress: Called with what is being done, the step, and the number of steps.

    Raises:
        InputError: another mode than ``add``, an SAE that cannot steer or normalises activations,
            fewer questions than folds, or whatever `ask` refuses.
    """
    config, learning = config or FitConfig(), learning or LearningConfig()
    check_writes(sae)
    if config.direction.mode != "add":
        raise InputError(
            f"what is learned is added: leave out mode {config.direction.mode!r}, or fit with "
            "method differences"
        )
    if learning.n_latents and scales_with_activation(sae):
        raise InputError(
            f"this SAE normalises activations ({sae.cfg.normalize_activations}), so no scale of "
            "its latents writes the same everywhere: take another SAE, fit differences of means, "
            "or learn a dense vector with n_latents 0"
        )
    rows = as_feedback(feedback)
    report: Callable[[str, int, int], None] = progress or (lambda *_: None)
    place, positions = written_site(sae), config.direction.positions
    reader = None if learning.gate == "never" else Reader(sae_hook_name(sae), sae)
    asked = ask(model, rows, place, config.readout, positions, report, reader=reader)
    dictionary, norms = unit_rows(sae)
    kind: Kind = "latents" if learning.n_latents else "vector"
    controls: tuple[Kind, ...] = ("vector", "random", "shuffled")
    if not learning.n_latents:
        controls = ("shuffled",)
    learned = learn_kinds(asked, dictionary, learning, [kind], controls=controls, report=report)
    story = {**lineage(model, sae, rows, config), "learning": asdict(learning)}
    directions = made_of(learned, kind, sae, norms, config.readout, story)
    gates = gates_of(learned, kind, rows, learning, report)
    if gates is not None:
        directions = with_gates(directions, gates.gates, sae)
    directions = scaled_to_config(model, directions, config.direction)
    report("measuring side effects", 0, 1)
    found = verdict(model, learned, directions, gates)
    report("done", 1, 1)
    return LearnedFit(directions, found, learned)


def gates_of(
    learned: LearnedKinds,
    kind: Kind,
    rows: Sequence[Feedback],
    learning: LearningConfig,
    report: Report,
) -> Gated | None:
    """The gates that directions get; None where they get none.

    Args:
        learned: From `learn_kinds`, asked with a reader.
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
    sae: SAE[Any],
    norms: Units,
    readout: ReadoutConfig,
    story: dict[str, Any],
) -> list[Direction]:
    """The directions of one kind, at coefficient 1.

    Args:
        learned: From `learn_kinds`.
        kind: Which of its kinds.
        sae: The dictionary.
        norms: Of its decoder rows, from `unit_rows`.
        readout: How options were read.
        story: Lineage of the directions.
    """
    solution, asked = learned.solutions[kind], learned.asked
    directions = []
    for name, vector in solution.vectors.items():
        edit: AddVector | EditLatents = AddVector(torch.from_numpy(vector))
        if solution.latents is not None:
            latents, scales = solution.latents[name]
            edit = EditLatents(sae, latents, scales / norms[latents])
        own = FittedReadout(readout, learned.base, solution.readout[name])
        directions.append(
            Direction(
                name,
                asked.hook_name,
                edit,
                positions=asked.positions,
                lineage=story,
                readout=own,
            )
        )
    return directions


def unit_rows(sae: SAE[Any]) -> tuple[Units, Units]:
    """What each latent writes, at norm 1; and the norm that one unit of it writes.

    A ridge on scales is fair to all latents only where each writes as much.
    """
    rows = decoder_rows(sae, torch.arange(sae.cfg.d_sae)).cpu().double().numpy()
    norms = np.maximum(np.linalg.norm(rows, axis=1), 1e-12)
    return rows / norms[:, None], norms
