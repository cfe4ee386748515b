"""Sparse feedback in, plural answers out: steer a language model towards several perspectives.

The names below are loaded when first used, so that ``import saepd`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saepd.answers import fit_reading
    from saepd.assessment import Assessment, AssessmentConfig, assess
    from saepd.branches import branch, capture_prompts, score_continuations
    from saepd.directions import Direction
    from saepd.errors import InputError
    from saepd.evidence import explain
    from saepd.experiment import ExperimentConfig, run_experiment
    from saepd.features import FeatureConfig, encode_pairs, overlap, select_features
    from saepd.feedback import load_feedback, load_items, sample_feedback, stream_feedback
    from saepd.fit import DirectionConfig, FitConfig, fit_directions
    from saepd.fitted_scales import ScaleConfig
    from saepd.generation import generate, generate_batch, generate_branches
    from saepd.learned import learn_directions, read_learned
    from saepd.merge import MergeConfig, merge_branches
    from saepd.models import load_model
    from saepd.prompts import ReadoutConfig
    from saepd.readout import read_options
    from saepd.saes import load_sae
    from saepd.sampling import SamplingConfig
    from saepd.schema import Feedback, Item
    from saepd.steering import load_from_disk, save_to_disk
    from saepd.survey import survey_feedback, survey_items
    from saepd.sweeps.frame import read_sweep
    from saepd.trace import Generated, Step
    from saepd.triage import Triaged, triage_items
    from saepd.uncertainty import branch_disagreement

_HOME = {
    "Assessment": "assessment",
    "AssessmentConfig": "assessment",
    "Direction": "directions",
    "DirectionConfig": "fit",
    "ExperimentConfig": "experiment",
    "FeatureConfig": "features",
    "Feedback": "schema",
    "FitConfig": "fit",
    "Generated": "trace",
    "InputError": "errors",
    "Item": "schema",
    "MergeConfig": "merge",
    "ReadoutConfig": "prompts",
    "SamplingConfig": "sampling",
    "ScaleConfig": "fitted_scales",
    "Step": "trace",
    "Triaged": "triage",
    "assess": "assessment",
    "branch": "branches",
    "branch_disagreement": "uncertainty",
    "capture_prompts": "branches",
    "encode_pairs": "features",
    "explain": "evidence",
    "fit_directions": "fit",
    "fit_reading": "answers",
    "generate": "generation",
    "generate_batch": "generation",
    "generate_branches": "generation",
    "learn_directions": "learned",
    "load_feedback": "feedback",
    "load_from_disk": "steering",
    "load_items": "feedback",
    "load_model": "models",
    "load_sae": "saes",
    "merge_branches": "merge",
    "overlap": "features",
    "read_learned": "learned",
    "read_options": "readout",
    "read_sweep": "sweeps.frame",
    "run_experiment": "experiment",
    "sample_feedback": "feedback",
    "save_to_disk": "steering",
    "score_continuations": "branches",
    "select_features": "features",
    "stream_feedback": "feedback",
    "survey_feedback": "survey",
    "survey_items": "survey",
    "triage_items": "triage",
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
