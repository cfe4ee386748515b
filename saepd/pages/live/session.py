"""What the live page shows: every answer as JSON values, with prefixes that are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saepd.branches.captured import CapturedPrompts, capture_prompts
from saepd.branches.writing.streaming import stream_all
from saepd.branches.writing.strip import token_strip
from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import EditLatents
from saepd.directions.saving import save_to_disk
from saepd.feedback.schema import Item
from saepd.merge.config import OPERATOR_NAMES
from saepd.merge.disagreement import branch_disagreement
from saepd.merge.operators import merge_branches
from saepd.models.chat import chat
from saepd.models.prompts import item_prompt
from saepd.models.wording import ReadoutConfig
from saepd.pages.live.latents import N_LATENTS, known_latent, latents_that_speak
from saepd.pages.live.request import LiveRequest, read_request, read_strengths
from saepd.pages.live.shown_python import shown_python
from saepd.readout.option_scores import OptionScores
from saepd.readout.options import read_options, read_scored

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# Prefixes and scores that are kept, the latest ones.
_KEPT = 8
# These need weights, or are only there for reproduction.
_NO_CHOICE = ("weighted", "saepd-released")


class LiveSession:
    """A model, its directions, and questions whose answers by people are known.

    Args:
        model: The language model.
        directions: One for each perspective; their coefficients are strength 1.
        items: Questions to choose from.
        folder: Where the directions were loaded from, for the Python that is shown.
    """

    def __init__(
        self,
        model: TransformerBridge,
        directions: Sequence[Direction],
        items: Sequence[Item] = (),
        folder: str = "steering",
    ) -> None:
        self.folder = folder
        self.model, self.directions, self.items = model, list(directions), list(items)
        self.names = [direction.perspective for direction in directions]
        readouts = [d.readout for d in directions if d.readout is not None]
        self._config = readouts[0].config if readouts else ReadoutConfig()
        self._captured: OrderedDict[Any, CapturedPrompts] = OrderedDict()
        self._scores: OrderedDict[Any, OptionScores] = OrderedDict()
        self._lock = threading.Lock()
        self.n_captured = 0

    def state(self) -> dict[str, Any]:
        """What the page is built of."""
        return {
            "model": str(self.model.cfg.model_name),
            "names": self.names,
            "operators": [name for name in OPERATOR_NAMES if name not in _NO_CHOICE],
            "chat": bool(getattr(self.model.tokenizer, "chat_template", None)),
            "directions": [
                {
                    "name": d.perspective,
                    "site": ", ".join(part.hook_name for part in d.parts),
                    "coefficient": d.coefficient,
                }
                for d in self.directions
            ],
            "items": [
                {
                    "prompt": item.prompt,
                    "options": list(item.options),
                    "people": {
                        name: list(shares)
                        for name, shares in item.distributions.items()
                        if name in self.names
                    },
                }
                for item in self.items
            ],
        }

    def options(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Every branch's shares of the options, and the merge of them.

        The prompt runs once, whatever strengths and merges follow.

        Raises:
            InputError: what cannot be read.
        """
        request = read_request(asked, self.names)
        if not request.options:
            raise InputError("there are no options to read: write two or more, one a line")
        with self._lock:
            scores = self._option_scores(request)
        log_probs = scores.log_probs()
        return {
            "options": list(request.options),
            "branches": dict(zip(("base", *self.names), log_probs.exp().tolist(), strict=True)),
            "merged": merge_branches(log_probs, request.merge).exp().tolist(),
            "disagreement": float(branch_disagreement(log_probs)),
            "warning": scores.warning,
        }

    def write(self, asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Everybody's text as it grows; of the merge also how each token came about.

        Raises:
            InputError: before anything is written, what cannot be.
        """
        request = read_request(asked, self.names)
        prompt = request.prompt
        if request.style == "chat":
            prompt = chat(self.model.tokenizer, prompt)
        stream = stream_all(
            self.model, prompt, self._scaled(request.strengths), request.merge, request.sampling
        )
        return self._grown(stream)

    def moved(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Which latents of a direction speak for one token rather than another.

        Raises:
            InputError: a branch or tokens that there are not.
        """
        name, token, other = (asked.get(key) for key in ("branch", "token", "base_token"))
        size = int(self.model.W_U.shape[1])
        if name not in self.names or not all(
            isinstance(t, int) and not isinstance(t, bool) and 0 <= t < size for t in (token, other)
        ):
            raise InputError("ask for a perspective and two tokens of the model")
        parts = self.directions[self.names.index(name)].parts
        tokens = int(token or 0), int(other or 0)
        latents = [one for part in parts for one in latents_that_speak(self.model, part, *tokens)]
        latents.sort(key=lambda one: -one["effect"])
        return {"latents": latents[:N_LATENTS]}

    def latent(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What is known of one latent of a direction: its page in the SAE's own index, if any.

        Raises:
            InputError: a perspective without latents, or a latent that its SAE does not have.
        """
        name, site, latent = asked.get("branch"), asked.get("site"), asked.get("latent")
        parts = self.directions[self.names.index(name)].parts if name in self.names else ()
        edit = next((part.edit for part in parts if part.hook_name == site), None)
        if not isinstance(edit, EditLatents):
            raise InputError("ask for a perspective and a site of it that is made of latents")
        if not isinstance(latent, int) or not 0 <= latent < edit.sae.cfg.d_sae:
            raise InputError(
                f"its SAE has latents 0..{edit.sae.cfg.d_sae - 1}: ask for one of them"
            )
        return known_latent(self.model, edit.sae, latent)

    def save(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Keep the directions at these strengths in a folder of their own.

        Raises:
            InputError: no folder, one that is a file, or one that holds directions already.
        """
        strengths = read_strengths(asked, self.names)
        folder = asked.get("folder")
        if not isinstance(folder, str) or not folder.strip():
            raise InputError("no folder to save in: write its name")
        path = Path(folder.strip()).expanduser()
        if path.exists():
            raise InputError(f"{path} is there already: name a new folder")
        save_to_disk(self._scaled(strengths), path, self.model)
        return {"saved": str(path)}

    def code(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The Python that does what the page shows.

        Raises:
            InputError: what the page could not show.
        """
        request = read_request(asked, self.names)
        source = getattr(self.model.cfg, "loaded_from", {}).get("model")
        return {"python": shown_python(request, self.names, self.folder, source)}

    def _scaled(self, strengths: Sequence[float]) -> list[Direction]:
        return [s * d for s, d in zip(strengths, self.directions, strict=True)]

    def _option_scores(self, request: LiveRequest) -> OptionScores:
        key = (request.prompt, request.options, request.strengths)
        if key not in self._scores:
            self._scores[key] = self._scored(request)
            _forget(self._scores)
        return self._scores[key]

    def _scored(self, request: LiveRequest) -> OptionScores:
        item = Item(id="asked", prompt=request.prompt, options=request.options)
        directions = self._scaled(request.strengths)
        if self._config.readout != "text" or not directions:
            return read_options(self.model, item, directions, self._config)[0]
        key = (request.prompt, request.options)
        if key not in self._captured:
            parts = [part for direction in directions for part in direction.parts]
            specs = {part.positions for part in parts}
            self._captured[key] = capture_prompts(
                self.model,
                [item_prompt(self.model, item.prompt, item.options, self._config)],
                min(parts, key=lambda part: part.block).hook_name,
                positions=specs.pop() if len(specs) == 1 else "every",
                continuations=[item.options],
                gates=[d.gate for d in directions if d.gate is not None],
            )
            self.n_captured += 1
            _forget(self._captured)
        scored = self._captured[key].score_continuations(directions)
        return read_scored([item], scored, directions, self._config)[0]

    def _grown(self, stream: Iterator[Any]) -> Iterator[dict[str, Any]]:
        names = ["base", *self.names, "merged"]
        steps: list[dict[str, Any]] = []
        for written in stream:
            name = names[written.writer]
            line: dict[str, Any] = {
                "writer": name,
                "text": written.text,
                "ended_by": written.ended_by,
            }
            if name == "merged":
                if written.step is not None:
                    step = asdict(written.step)
                    step["moved_by"] = names[step["moved_by"]] if step["moved_by"] else None
                    steps.append(step)
                    line["step"] = step
                tokens = [(step["text"], float(i)) for i, step in enumerate(steps)]
                # Each piece names the last of the steps that wrote it.
                line["pieces"] = [[p.text, int(p.value)] for p in token_strip(written.text, tokens)]
            yield line


def _forget(kept: OrderedDict[Any, Any]) -> None:
    while len(kept) > _KEPT:
        kept.popitem(last=False)
