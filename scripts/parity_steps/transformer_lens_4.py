"""TransformerLens 4's own bridge under its own intervention specs, in a process of its own.

    PYTHONPATH=FOLDER python transformer_lens_4.py CHECKPOINT OUT.safetensors < specs.json

FOLDER holds TransformerLens 4, which cannot be installed beside SAELens. What is read is a list of
prompts' token ids and a list of perspectives' specs; what is written is the log-probs of the next
token, [perspectives, prompts, vocabulary], in nats.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
import sys
from functools import partial
from importlib.metadata import version
from typing import Any


def main() -> int:
    """Run all prompts under the specs of each perspective."""
    import torch
    from safetensors.torch import save_file
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.model_bridge.sources.vllm.intervention_specs import validate_spec
    from transformer_lens.model_bridge.sources.vllm.plugin import _apply_op

    checkpoint, out = sys.argv[1:]
    given = json.load(sys.stdin)
    bridge: Any = TransformerBridge.boot_transformers(checkpoint, device="cpu", dtype=torch.float32)

    def edit(h: Any, hook: Any, spec: Any) -> Any:
        return _apply_op(h, validate_spec(hook.name, spec, width=h.shape[-1]))

    log_probs = []
    for specs in given["perspectives"]:
        hooks = [(name, partial(edit, spec=spec)) for name, spec in specs.items()]
        with torch.inference_mode():
            log_probs.append(
                torch.stack(
                    [
                        bridge.run_with_hooks(torch.tensor([row]), fwd_hooks=hooks)[0, -1]
                        for row in given["rows"]
                    ]
                ).log_softmax(-1)
            )
    save_file({"log_probs": torch.stack(log_probs)}, out)
    print(version("transformer-lens"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
