"""What is known of one latent: its label, how it fires, where, and beside which others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from saepd.common.frames import as_frame
from saepd.common.html import Html, card, note, strip, table
from saepd.features.index.labels import WHERE, Term

if TYPE_CHECKING:
    import pandas as pd


class Context(NamedTuple):
    """A piece of a text in which a latent fires.

    Attributes:
        kind: Why it is shown: ``top``, the share of the latent's firings that are weaker (90% to
            10%), or ``weakest``.
        tokens: The tokens' own text, blanks included.
        activations: Activation of the latent at each token, in SAE activation units.
        peak: Index of the token that the context was chosen for.
    """

    kind: str
    tokens: list[str]
    activations: list[float]
    peak: int

    @property
    def text(self) -> str:
        """The tokens, put together."""
        return "".join(self.tokens)

    @property
    def activation(self) -> float:
        """Activation at the peak."""
        return self.activations[self.peak]

    def strip(self, most: float) -> Html:
        """The tokens, shaded by their activations.

        Args:
            most: The activation that is shaded most.
        """
        pieces = list(zip(self.tokens, self.activations, strict=True))
        return strip(pieces, most=most, what="activation")


class Neighbour(NamedTuple):
    """Another latent, and how near it is."""

    latent: int
    score: float


class GivenLabel(NamedTuple):
    """What somebody else says that a latent is about.

    Attributes:
        text: What it is about, in their words.
        source: Who says so, such as ``Neuronpedia gemma-2-2b/20-gemmascope-res-16k, gpt-4o-mini``.
    """

    text: str
    source: str


class LatentPage(NamedTuple):
    """All that an index knows of one latent.

    Attributes:
        latent: Id of the latent.
        terms: The label: words that its contexts share against the rest, heaviest first.
        label_auroc: How well the label tells, in passages held out, where the latent fires at its
            median strength or more from where it is silent; None where there are too few.
        n_firings: Tokens at which it fires.
        density: Share of the tokens that count at which it fires.
        quantiles: Share of the firings -> the activation below which they are.
        histogram: Firings in equally wide bins from zero to the largest activation.
        places: Tokens before it in its passage, from so many on -> share of the tokens there at
            which it fires.
        contexts: The strongest, one next to each decile of its activations, and the weakest.
        together: Latents that fire at the same tokens, with the correlation of firing.
        alike: Latents that write alike, with the cosine of the decoder rows.
        raises: Tokens whose logits it raises most (logit lens).
        lowers: Tokens whose logits it lowers most.
        given: What others say that it is about; none where no file of labels was given.
    """

    latent: int
    terms: list[Term]
    label_auroc: float | None
    n_firings: int
    density: float
    quantiles: dict[float, float]
    histogram: list[int]
    places: dict[int, float]
    contexts: list[Context]
    together: list[Neighbour]
    alike: list[Neighbour]
    raises: list[str]
    lowers: list[str]
    given: tuple[GivenLabel, ...] = ()

    @property
    def label(self) -> str:
        """The terms in one line; "never fires" or "no words" where there are none."""
        return whole_label(self.terms, self.n_firings)

    def to_dict(self) -> dict[str, Any]:
        """The page as JSON values."""
        lists = {
            name: [one._asdict() for one in getattr(self, name)]
            for name in ("terms", "contexts", "together", "alike", "given")
        }
        return {"label": self.label, **self._asdict(), **lists}

    def frame(self) -> pd.DataFrame:
        """One row for each context, as a pandas frame.

        Raises:
            InputError: pandas is missing.
        """
        return as_frame(
            [
                {
                    "kind": context.kind,
                    "activation": context.activation,
                    "token": context.tokens[context.peak],
                    "text": context.text,
                }
                for context in self.contexts
            ]
        )

    def __repr__(self) -> str:
        return f"LatentPage({self.latent}: {self.label!r}, fires at {self.density:.3%} of tokens)"

    def _repr_html_(self) -> str:
        most = self.quantiles[max(self.quantiles)]
        held = "not known" if self.label_auroc is None else f"{self.label_auroc:.2f}"
        shown = [[c.kind, c.activation, c.strip(most)] for c in self.contexts]
        near = [("fires together with", self.together), ("writes like", self.alike)]
        said = [("raises", self.raises), ("lowers", self.lowers)]
        return card(
            f"latent {self.latent}: {self.label}",
            *(note(f"{label.source} says: {label.text}") for label in self.given),
            note(
                f"fires at {self.n_firings} tokens ({self.density:.2%}); the label tells held-out "
                f"places where it fires with an AUROC of {held}"
            ),
            table(["kind", "activation", "context"], shown, digits=2),
            *(
                note(f"{what} {', '.join(f'{n.latent} ({n.score:.2f})' for n in neighbours)}")
                for what, neighbours in near
                if neighbours
            ),
            *(note(f"{what} {' '.join(map(repr, tokens))}") for what, tokens in said if tokens),
        )


def given_line(labels: Sequence[GivenLabel]) -> str:
    """Labels that others gave in one line, each with who says so."""
    return "; ".join(f"{label.text} ({label.source})" for label in labels)


def whole_label(terms: Sequence[Term], n_firings: int) -> str:
    """Terms in one line, or why there are none."""
    return label_line(terms) or ("no words" if n_firings else "never fires")


def label_line(terms: Sequence[Term]) -> str:
    """Terms in one line: those it fires at, then those it fires after, then those near it."""
    said = []
    for where in WHERE:
        words = ", ".join(term.word for term in terms if term.where == where)
        if words:
            said.append(words if where == "at" else f"{where} {words}")
    return "; ".join(said)
