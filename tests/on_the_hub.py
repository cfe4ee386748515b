"""What a user of hub ids does, in a process of its own: which hub there is, is read at import.

    python on_the_hub.py < steps.json > results.json

A step is ``[name, function, arguments]``; its result says how long it took, what it gave or which
`InputError` it raised.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    import huggingface_hub  # noqa: F401 - its import is no part of what is timed
    import torch
    import transformer_lens.model_bridge  # noqa: F401
    from sae_lens.loading import pretrained_saes_directory

    import saepd

    pretrained_saes_directory.get_pretrained_saes_directory()

    def model(name, **settings):
        loaded = saepd.load_model(name, device="cpu", **settings)
        tokens = torch.arange(5).unsqueeze(0)
        return float(loaded.original_model(tokens).logits.std()), loaded

    def sae(release, sae_id, model_name=None):
        loaded = None if model_name is None else model(model_name)[1]
        found = saepd.load_sae(release, sae_id, model=loaded, any_model=True)
        return [found.cfg.architecture(), found.cfg.metadata.hook_name, found.cfg.d_sae]

    def steering(address, model_name):
        found = saepd.load_from_disk(address, model(model_name)[1])
        lineage = saepd.read_lineage(address)
        return [list(lineage.perspectives), float(found[0].constant.norm())]

    do = {
        "model": lambda *a, **k: model(*a, **k)[0],
        "sae": sae,
        "steering": steering,
    }
    done = {}
    for name, function, arguments, settings in json.load(sys.stdin):
        start = time.perf_counter()
        try:
            result = {"gave": do[function](*arguments, **settings)}
        except saepd.InputError as error:
            result = {"refused": str(error)}
        done[name] = {**result, "seconds": time.perf_counter() - start}
        print(name, file=sys.stderr, flush=True)
    print(json.dumps(done))
