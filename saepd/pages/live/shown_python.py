"""The Python that does what the live page shows."""

from __future__ import annotations

from collections.abc import Sequence

from saepd.pages.live.request import LiveRequest


def shown_python(request: LiveRequest, names: Sequence[str], folder: str, model: str | None) -> str:
    """A script that loads the directions, and reads and writes what the page does.

    Args:
        request: What the page asks for.
        names: Perspectives of the directions, in the order of the strengths.
        folder: Where the directions were loaded from.
        model: What the model was loaded by; None for the packaged one.
    """
    strengths = dict(zip(names, request.strengths, strict=True))
    source = "" if model is None else repr(model)
    lines = [
        "import saepd",
        "",
        f"model = saepd.load_model({source})",
        f"directions = saepd.load_from_disk({folder!r}, model)",
        f"strengths = {strengths!r}",
        "directions = [strengths[d.perspective] * d for d in directions]",
        f"merge = saepd.MergeConfig({request.merge.operator!r}, alpha={request.merge.alpha!r})",
    ]
    if request.options:
        lines += [
            f"item = saepd.Item(id='q', prompt={request.prompt!r}, options={request.options!r})",
            "[scores] = saepd.read_options(model, item, directions)",
            "print(saepd.merge_branches(scores.log_probs(), merge).exp())",
        ]
    sampling, prompt = request.sampling, repr(request.prompt)
    if request.style == "chat":
        lines += ["from saepd.models.chat import chat", f"prompt = chat(model.tokenizer, {prompt})"]
        prompt = "prompt"
    lines += [
        f"sampling = saepd.SamplingConfig(max_new_tokens={sampling.max_new_tokens}, "
        f"temperature={sampling.temperature!r}, seed={sampling.seed})",
        f"for piece in saepd.generate(model, {prompt}, directions, merge, sampling):",
        '    print(piece, end="", flush=True)',
    ]
    return "\n".join(lines) + "\n"
