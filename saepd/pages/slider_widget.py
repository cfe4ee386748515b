"""The widget of the sliders: the live page's own session, with its state in traits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from saepd.common.errors import InputError
from saepd.common.frames import as_frame
from saepd.directions.direction import Direction
from saepd.feedback.schema import Item
from saepd.pages.live.request import read_strengths
from saepd.pages.live.session import LiveSession

if TYPE_CHECKING:
    import pandas as pd
    from transformer_lens.model_bridge import TransformerBridge


class SliderWidget(anywidget.AnyWidget):
    """Sliders and bars. What is moved is computed by the live page's session.

    Attributes:
        strengths: Perspective -> factor of its direction's own coefficient.
        operator: Which merge.
        alpha: Strength of the merge.
        bars: What `LiveSession.options` answers: shares of the options in every branch and in the
            merge, and the disagreement in nats.
        said: What of the settings cannot be, in one sentence; the bars are then the last ones that
            could. Empty where all is well.
        fixed: Question, options, names, merges to choose from, and people's own shares.
    """

    # Text and no path: a path would be watched for changes.
    _esm = Path(__file__).with_name("sliders.js").read_text(encoding="utf-8")
    _css = Path(__file__).with_name("sliders.css").read_text(encoding="utf-8")

    strengths = traitlets.Dict().tag(sync=True)
    operator = traitlets.Unicode("pluralistic").tag(sync=True)
    alpha = traitlets.Float(1.0).tag(sync=True)
    bars = traitlets.Dict().tag(sync=True)
    said = traitlets.Unicode().tag(sync=True)
    fixed = traitlets.Dict().tag(sync=True)

    def __init__(
        self, model: TransformerBridge, directions: Sequence[Direction], item: Item
    ) -> None:
        self._session = LiveSession(model, directions, [item])
        self._item = item
        state = self._session.state()
        names = self._session.names
        super().__init__(
            strengths=dict.fromkeys(names, 1.0),
            fixed={
                "prompt": item.prompt,
                "options": list(item.options),
                "names": names,
                "operators": state["operators"],
                "people": state["items"][0]["people"],
            },
        )
        self._compute()
        self.observe(lambda _: self._compute(), names=["strengths", "operator", "alpha"])

    @property
    def directions(self) -> list[Direction]:
        """The directions at the strengths that the sliders show.

        Raises:
            InputError: strengths that cannot be.
        """
        strengths = read_strengths({"strengths": self.strengths}, self._session.names)
        return [s * d for s, d in zip(strengths, self._session.directions, strict=True)]

    def frame(self) -> pd.DataFrame:
        """The bars: one row for each branch and option, as a pandas frame.

        Raises:
            InputError: pandas is missing.
        """
        branches = {**self.bars["branches"], "merged": self.bars["merged"]}
        return as_frame(
            [
                {"branch": name, "option": option, "probability": share}
                for name, shares in branches.items()
                for option, share in zip(self.bars["options"], shares, strict=True)
            ]
        )

    def __repr__(self) -> str:
        strengths = ", ".join(f"{name} {value}" for name, value in self.strengths.items())
        return f"SliderWidget({strengths}; {self.operator} at {self.alpha:g})"

    def _compute(self) -> None:
        asked: dict[str, Any] = {
            "prompt": self._item.prompt,
            "options": list(self._item.options),
            "strengths": dict(self.strengths),
            "operator": self.operator,
            "alpha": self.alpha,
        }
        try:
            self.bars = self._session.options(asked)
        except InputError as error:
            self.said = str(error)
        else:
            self.said = ""
