"""Sparse feedback in, plural answers out: steer a language model towards several perspectives.

The names below are loaded when first used, so that ``import saepd`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saepd.branches.run import branch, capture_prompts, score_continuations
    from saepd.branches.writing.config import SamplingConfig
    from saepd.branches.writing.generate import generate, generate_batch, generate_branches
    from saepd.branches.writing.trace import Generated, Step
    from saepd.common.errors import InputError
    from saepd.directions.direction import Direction
    from saepd.directions.saving import load_from_disk, save_to_disk
    from saepd.evaluation.experiment import ExperimentConfig, run_experiment
    from saepd.features.config import FeatureConfig
    from saepd.features.evidence import explain
    from saepd.features.select import encode_pairs, overlap, select_features
    from saepd.feedback.reading import load_feedback, load_items, sample_feedback, stream_feedback
    from saepd.feedback.schema import Feedback, Item
    from saepd.feedback.survey import survey_feedback, survey_items
    from saepd.fit.config import DirectionConfig, FitConfig, ScaleConfig
    from saepd.fit.learn import learn_directions, read_learned
    from saepd.fit.recipe import fit_directions
    from saepd.merge.config import MergeConfig
    from saepd.merge.disagreement import branch_disagreement
    from saepd.merge.operators import merge_branches
    from saepd.models.load import load_model
    from saepd.models.wording import ReadoutConfig
    from saepd.readout.options import read_options
    from saepd.saes.load import load_sae
    from saepd.sweeps.results.frame import read_sweep
    from saepd.uncertainty.answers import fit_reading
    from saepd.uncertainty.assessment import Assessment, assess
    from saepd.uncertainty.config import AssessmentConfig
    from saepd.uncertainty.triage import Triaged, triage_items

_HOME = {
    "Assessment": "uncertainty.assessment",
    "AssessmentConfig": "uncertainty.config",
    "Direction": "directions.direction",
    "DirectionConfig": "fit.config",
    "ExperimentConfig": "evaluation.experiment",
    "FeatureConfig": "features.config",
    "Feedback": "feedback.schema",
    "FitConfig": "fit.config",
    "Generated": "branches.writing.trace",
    "InputError": "common.errors",
    "Item": "feedback.schema",
    "MergeConfig": "merge.config",
    "ReadoutConfig": "models.wording",
    "SamplingConfig": "branches.writing.config",
    "ScaleConfig": "fit.config",
    "Step": "branches.writing.trace",
    "Triaged": "uncertainty.triage",
    "assess": "uncertainty.assessment",
    "branch": "branches.run",
    "branch_disagreement": "merge.disagreement",
    "capture_prompts": "branches.run",
    "encode_pairs": "features.select",
    "explain": "features.evidence",
    "fit_directions": "fit.recipe",
    "fit_reading": "uncertainty.answers",
    "generate": "branches.writing.generate",
    "generate_batch": "branches.writing.generate",
    "generate_branches": "branches.writing.generate",
    "learn_directions": "fit.learn",
    "load_feedback": "feedback.reading",
    "load_from_disk": "directions.saving",
    "load_items": "feedback.reading",
    "load_model": "models.load",
    "load_sae": "saes.load",
    "merge_branches": "merge.operators",
    "overlap": "features.select",
    "read_learned": "fit.learn",
    "read_options": "readout.options",
    "read_sweep": "sweeps.results.frame",
    "run_experiment": "evaluation.experiment",
    "sample_feedback": "feedback.reading",
    "save_to_disk": "directions.saving",
    "score_continuations": "branches.run",
    "select_features": "features.select",
    "stream_feedback": "feedback.reading",
    "survey_feedback": "feedback.survey",
    "survey_items": "feedback.survey",
    "triage_items": "uncertainty.triage",
}

__all__ = [
    "Assessment",
    "AssessmentConfig",
    "Direction",
    "DirectionConfig",
    "ExperimentConfig",
    "FeatureConfig",
    "Feedback",
    "FitConfig",
    "Generated",
    "InputError",
    "Item",
    "MergeConfig",
    "ReadoutConfig",
    "SamplingConfig",
    "ScaleConfig",
    "Step",
    "Triaged",
    "assess",
    "branch",
    "branch_disagreement",
    "capture_prompts",
    "encode_pairs",
    "explain",
    "fit_directions",
    "fit_reading",
    "generate",
    "generate_batch",
    "generate_branches",
    "learn_directions",
    "load_feedback",
    "load_from_disk",
    "load_items",
    "load_model",
    "load_sae",
    "merge_branches",
    "overlap",
    "read_learned",
    "read_options",
    "read_sweep",
    "run_experiment",
    "sample_feedback",
    "save_to_disk",
    "score_continuations",
    "select_features",
    "stream_feedback",
    "survey_feedback",
    "survey_items",
    "triage_items",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'saepd' has no attribute {name!r}")
    value = getattr(import_module(f"saepd.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
