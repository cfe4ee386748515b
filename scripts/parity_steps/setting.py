"""What all runtimes are compared on: model, prompts, directions, and saepd's own numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import saepd
from saepd.directions.direction import Direction
from saepd.interchange.exporting import Written, export_directions
from saepd.interchange.from_directions import by_perspective
from saepd.models.prompts import item_prompt
from saepd.models.tokens import continuation_ids, prompt_ids

# Nats on neutral text.
KL_BUDGET = 1.0


@dataclass
class Setting:
    """What is compared, and where its files are.

    Attributes:
        model: The language model as saepd runs it.
        checkpoint: Its folder in the layout of transformers.
        directions: What is exported: all write at every token; those of one perspective together.
        prompts: Survey questions as saepd asks them.
        rows: Their token ids.
        options: Of each prompt, the first tokens of two of its options.
        log_probs: Of the next token of each prompt: of the base, then of each perspective.
        folder: Where exported files go.
    """

    model: Any
    checkpoint: Path
    directions: list[Direction]
    prompts: list[str]
    rows: list[list[int]]
    options: list[tuple[int, int]]
    log_probs: torch.Tensor
    folder: Path

    def export(self, to: str) -> list[Written]:
        """The directions in a format, which can say all of them."""
        return export_directions(self.model, self.directions, to, self.folder / to)

    def hf_model(self) -> Any:
        """The model in transformers, with no hooks of saepd's."""
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(self.checkpoint, dtype=torch.float32).eval()

    def furthest(self, log_probs: list[list[torch.Tensor]]) -> float:
        """Largest difference from saepd's log-probs of all tokens, in nats.

        Args:
            log_probs: Of each perspective, of each prompt.
        """
        stacked = torch.stack([torch.stack(rows) for rows in log_probs], dim=1)
        return float((stacked - self.log_probs[:, 1:]).abs().max())


def make_setting(
    model: Any,
    fitted: list[Direction],
    lower_site: str,
    checkpoint: Path,
    folder: Path,
) -> Setting:
    """Directions of perspectives, and beside them a random pair of vectors at two sites.

    Args:
        model: The language model.
        fitted: Directions that write at every token.
        lower_site: A site below theirs.
        checkpoint: The model's folder.
        folder: Where files go.
    """
    generator = torch.Generator().manual_seed(0)
    pair = []
    for site in (lower_site, fitted[0].hook_name):
        v = torch.randn(int(model.cfg.d_model), generator=generator)
        pair.append(Direction("two sites", site, saepd.AddVector(v / v.norm()), "every"))
    directions = [*fitted, *saepd.fit_kl_budget(model, pair, KL_BUDGET)]
    chat = saepd.ReadoutConfig(style="chat")
    items = [(item, saepd.ReadoutConfig()) for item in saepd.survey_items()]
    # 25 questions, and five of them once more in the chat template.
    items += [(item, chat) for item, _ in items[:5]]
    prompts = [item_prompt(model, i.prompt, i.options, config) for i, config in items]
    options = []
    for (item, _), prompt in zip(items, prompts, strict=True):
        firsts = [continuation_ids(model.tokenizer, prompt, text)[0] for text in item.options]
        one, other = list(dict.fromkeys(firsts))[:2]
        options.append((one, other))
    branches = list(by_perspective(directions).values())
    log_probs = torch.cat([saepd.branch(model, [prompt], branches) for prompt in prompts])
    return Setting(
        model,
        checkpoint,
        directions,
        prompts,
        [prompt_ids(model.tokenizer, prompt) for prompt in prompts],
        options,
        log_probs,
        folder,
    )
