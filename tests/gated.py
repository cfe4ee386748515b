"""Gates of every kind, and what each says of a prompt, computed from a plain forward by hand."""

from dataclasses import replace

import torch
from tiny import D_MODEL

from saepd.directions.gate import Gate


def gates(random_sae, hook_name="blocks.1.hook_resid_post", d_sae=24):
    """One of every kind; each lets several prompts through by different amounts."""
    generator = torch.Generator().manual_seed(3)
    axis = torch.randn(D_MODEL, generator=generator)
    spread = 0.5 + torch.rand(D_MODEL, generator=generator)
    sae = random_sae("topk", d_sae=d_sae, hook_name=hook_name)
    latents = 0.25 * torch.randn(d_sae, generator=generator)
    mean = 0.1 * torch.randn(d_sae, generator=generator)
    linear = Gate(hook_name, 0.2 * axis, 0.1 * axis, spread, bias=0.7)
    return {
        "residual": linear,
        "latents": Gate(hook_name, latents, mean, bias=-0.3, sae=sae),
        "limited": replace(linear, limits=(-0.35, 0.3)),
        "above": replace(linear, rule="above", threshold=0.17),
        "below": replace(linear, rule="below", threshold=0.17),
        "cosine": Gate(hook_name, axis, rule="above", threshold=0.02, cosine=True),
    }


def amount_by_hand(model, prompt, gate, mask_by_hand):
    """What a gate says of one unpadded prompt, which runs alone."""
    tokens = model.tokenizer(prompt).input_ids
    held = []
    point = model.hook_dict[gate.hook_name]
    handle = point.register_forward_hook(lambda _m, _a, h: held.append(h[0]))
    try:
        with torch.no_grad():
            model.original_model(input_ids=torch.tensor([tokens]), use_cache=False)
    finally:
        handle.remove()
    own = torch.tensor(mask_by_hand("prompt", tokens, len(tokens), model.tokenizer))
    h = held[0].float()
    if gate.sae is None:
        reading = h[own].mean(0)
    else:
        reading = gate.sae.encode(h)[own].mean(0).clamp(min=0).sqrt()
    x = (reading - gate.mean) / gate.scale
    score = float(x @ gate.weights)
    if gate.cosine:
        score /= float(x.norm() * gate.weights.norm())
    score += gate.bias
    if gate.rule == "linear":
        low, high = gate.limits or (score, score)
        return min(max(score, low), high)
    return float(score > gate.threshold if gate.rule == "above" else score < gate.threshold)
