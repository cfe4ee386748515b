"""Code blocks of README and docs, and a small model that has the packaged one's sites."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from safetensors.torch import save_file
from tiny import D_MODEL, save_tiny_model

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
# What a console line says behind its command where no test can run it.
NOT_RUN = "not run in the tests"
_FENCE = re.compile(
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.M | re.S
)
_COMMAND = re.compile(r"(?<!`)`(saepd [^`]+)`(?!`)|^    (saepd .+)$", re.M)


class Block(NamedTuple):
    """A fenced block of a page.

    Attributes:
        language: What stands behind the fence.
        title: Name of the file that the block shows; empty if it shows none.
        text: The lines.
        line: Number of its first line in the page.
    """

    language: str
    title: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page that name a language."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(m["language"], m["title"] or "", m["text"], text[: m.start()].count("\n") + 2)
        for m in _FENCE.finditer(text)
    ]


def console_lines(block: Block) -> list[tuple[list[str], bool]]:
    """The commands of a console block in words, and whether a test may run each."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [
        (words, NOT_RUN not in line)
        for line in lines
        if (words := shlex.split(line, comments=True))
    ]


def commands_in_text(page: Path) -> list[list[str]]:
    """Commands that a page names between backticks or indents, outside its fenced blocks."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return [shlex.split((a or b).replace("\n", " ")) for a, b in _COMMAND.findall(text)]


def save_small_default(folder: Path, blocks: tuple[int, ...]) -> tuple[Path, list[Path]]:
    """A random model that is as deep as the packaged one's SAEs need, and one for some blocks.

    Args:
        folder: Where they are written.
        blocks: Blocks that get an SAE.

    Returns:
        The model's folder, and that of each SAE.
    """
    depth = max(blocks) + 1
    model = save_tiny_model("llama", folder / "model", n_layers=depth, n_positions=2048)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model)
    with torch.inference_mode():
        states = loaded(torch.arange(3, 200)[None], output_hidden_states=True).hidden_states
    return model, [
        _save_wide_sae(
            folder / f"blocks.{block}.hook_resid_post", block, float(states[block].std())
        )
        for block in blocks
    ]


def _save_wide_sae(folder: Path, block: int, scale: float, d_sae: int = 1280) -> Path:
    """Latents that reconstruct exactly, as `save_tiny_sae`'s do, and many that fire seldom."""
    generator = torch.Generator().manual_seed(block)
    eye = torch.eye(D_MODEL)
    exact = torch.stack([eye, -eye], dim=1).reshape(2 * D_MODEL, D_MODEL)
    others = torch.randn(d_sae - 2 * D_MODEL, D_MODEL, generator=generator) / D_MODEL**0.5
    weights = {
        "W_enc": torch.cat([exact, others]).T.contiguous(),
        "W_dec": torch.cat([exact, 1e-3 * others]),
        # One and a half standard deviations below zero: about one position in fifteen fires.
        "b_enc": torch.cat([torch.zeros(2 * D_MODEL), torch.full((len(others),), -1.5 * scale)]),
        "b_dec": torch.zeros(D_MODEL),
    }
    metadata: dict[str, Any] = {
        "sae_lens_version": "6.54.0",
        "model_name": "SmolLM2-135M-Instruct-Q4_1",
        "hook_name": f"blocks.{block}.hook_resid_post",
    }
    config = {
        "architecture": "standard",
        "d_in": D_MODEL,
        "d_sae": d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "metadata": metadata,
    }
    folder.mkdir(parents=True)
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file(weights, folder / "sae_weights.safetensors")
    return folder
