"""Compare methods on a task: draws of feedback, methods, bootstrap, and files that can be resumed.

task -> draws (fold) -> methods (nulls, few_shot, probes, ...) -> parts -> summary -> table
"""

from __future__ import annotations

from saepd.evaluation.fold import DrawConfig, Fold, Predictions
from saepd.evaluation.item_cache import ItemCache
from saepd.evaluation.methods import METHODS, Method
from saepd.evaluation.run import EvaluationConfig, evaluate

__all__ = [
    "METHODS",
    "DrawConfig",
    "EvaluationConfig",
    "Fold",
    "ItemCache",
    "Method",
    "Predictions",
    "evaluate",
]
