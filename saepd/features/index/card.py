"""What an index is of and how well its labels hold, for people who find its folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

CARD = "README.md"


def index_card(info: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """The card of an index, in Markdown.

    Args:
        info: What the index is of.
        arrays: Its arrays.
    """
    scores = arrays["label_scores"][np.isfinite(arrays["label_scores"])]
    silent = int((arrays["n_firings"] == 0).sum())
    labelled = "No label could be scored."
    if len(scores):
        low, middle, high = np.quantile(scores, (0.1, 0.5, 0.9))
        labelled = (
            f"Labels of {len(scores)} latents were scored on passages held out. The AUROC of\n"
            "telling where a latent fires at its median strength or more from where it is silent\n"
            f"is {middle:.2f} in the middle, {low:.2f} at the lowest tenth and {high:.2f} at the\n"
            f"highest; {np.mean(scores >= 0.75):.0%} of the labels reach .75. One below .6 says\n"
            "little: look at the contexts."
        )
    return f"""# Index of {info["d_sae"]} latents at {info["hook_name"]} of {info["model_name"]}

Made by `saepd index` over {info["n_passages"]} passages of {info["n_tokens"]} tokens, of which
{info["n_counted"]} count; {silent} latents never fire in them. Read it with `saepd search`, or with
`saepd.load_index`. It holds pieces of the texts.

{labelled}

## Texts

{info["about"] or "Nobody said where the texts come from."}
"""
