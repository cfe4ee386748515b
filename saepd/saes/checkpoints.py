"""Interrupted and finished trainings on disk: what is complete, and whose it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from saepd.common.files import write_json

if TYPE_CHECKING:
    from sae_lens import TopKTrainingSAE
    from sae_lens.training.sae_trainer import SAETrainer

_NEWEST = "newest.json"


def keep_only(checkpoint: Path | None, details: dict[str, Any]) -> None:
    """Record a checkpoint, now complete, as the newest, and delete the others."""
    if checkpoint is None:
        return
    write_json(checkpoint.parent / _NEWEST, {"name": checkpoint.name, "details": details})
    for other in checkpoint.parent.iterdir():
        if other.is_dir() and other != checkpoint:
            shutil.rmtree(other)


def resume(trainer: SAETrainer[Any, Any], details: dict[str, Any]) -> None:
    """Continue from the newest complete checkpoint, if it belongs to this very training."""
    checkpoints = Path(str(trainer.cfg.checkpoint_path))
    try:
        newest = json.loads((checkpoints / _NEWEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    if newest["details"] != details:
        return
    trainer.sae.load_weights_from_checkpoint(checkpoints / newest["name"])
    # The optimiser's state is in SAELens' own format, a torch file. SAELens reads it with torch's
    # default, weights_only=True, which runs no code from the file.
    trainer.load_trainer_state(checkpoints / newest["name"])
    # A checkpoint is saved before the trainer counts its step.
    trainer.n_training_steps = trainer.n_training_samples // trainer.cfg.train_batch_size_samples
    trainer.checkpoint_thresholds = [
        t for t in trainer.checkpoint_thresholds if t >= trainer.n_training_samples
    ]


def save(sae: TopKTrainingSAE, folder: Path) -> None:
    """Write an inference SAE in float16; the folder appears complete or not at all."""
    work = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    sae.to(device="cpu", dtype=torch.float16).save_inference_model(work)
    shutil.rmtree(folder, ignore_errors=True)
    work.replace(folder)


def is_finished(folder: Path, details: dict[str, Any]) -> bool:
    """Whether the folder holds the SAE that this very training gives."""
    try:
        config = json.loads((folder / "cfg.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    return config["metadata"].get("saepd_training") == details
