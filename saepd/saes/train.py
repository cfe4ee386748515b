"""Train TopK dictionaries for several sites of one model, resumable at every stage.

The model runs once over the corpus and its activations go to disk; then each site is trained in
turn with SAELens' own trainer. What comes out are ordinary SAELens folders, with a card each.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from saepd.common.errors import InputError
from saepd.common.files import write_json
from saepd.models.identity import weights_fingerprint
from saepd.models.load import load_model
from saepd.models.sites import residual_sites
from saepd.models.tokens import prompt_ids
from saepd.saes.activations import ActivationCache, cache_activations
from saepd.saes.card import write_card
from saepd.saes.checkpoints import is_finished, keep_only, resume, save
from saepd.saes.config import TrainConfig
from saepd.saes.corpus import contexts, read_documents
from saepd.saes.load import load_sae
from saepd.saes.measure import measure_sae

if TYPE_CHECKING:
    from sae_lens import TopKTrainingSAE
    from sae_lens.config import SAETrainerConfig
    from transformer_lens.model_bridge import TransformerBridge

_STATISTICS_ROWS = 50_000
_FIRING_ROWS = 200_000


# What has no influence on the weights that come out.
_NOT_TRAINING = ("sites", "checkpoints", "card_contexts", "wandb", "wandb_project")


def train_saes(
    config: TrainConfig,
    model: str | Path | None,
    corpus_paths: Sequence[str | Path],
    out: str | Path,
    work: str | Path,
    *,
    eval_texts: Mapping[str, Sequence[str]] | None = None,
) -> list[Path]:
    """Cache activations, train one SAE a site, measure each, and write it with its card.

    Called again with the same arguments after an interruption, it goes on where it stopped: in
    the cache, within a site, or at the next site. A finished site is not trained again.

    Args:
        config: How to train.
        model: Which model, as for ``load_model``. It is loaded twice: at ``config.model_dtype`` to
            cache, and in float32 to measure.
        corpus_paths: ``.txt``, ``.jsonl`` or ``.jsonl.gz`` documents.
        out: Each SAE is written to the folder in here that has the site's name.
        work: For activations (``2 * d_model * tokens`` bytes a site) and checkpoints; may be
            deleted afterwards.
        eval_texts: Further texts by name, on which the card reports reconstruction as well.

    Returns:
        The folders of the SAEs, in the order of ``config.sites``.

    Raises:
        InputError: an unusable corpus or model, a site the model does not have, too few tokens
            for one batch, or a ``work`` folder that belongs to another model or corpus.
    """
    corpus_paths = [Path(path) for path in corpus_paths]
    out, work = Path(out), Path(work)
    documents = read_documents(corpus_paths)
    bridge = load_model(model, dtype=config.model_dtype)
    for site in config.sites:
        if site not in bridge.hook_dict:
            raise InputError(
                f"{bridge.cfg.model_name} has no site {site}: {residual_sites(bridge)}"
            )
    source = {
        "model_name": str(bridge.cfg.model_name),
        "model_weights": weights_fingerprint(bridge),
        "corpus_files": [path.name for path in corpus_paths],
        "corpus_sha256": hashlib.sha256("\0".join(documents).encode()).hexdigest(),
    }
    cache = _cached(config, bridge, documents, source, work / "activations")
    opens_with_bos = prompt_ids(bridge.tokenizer, "A")[0] == bridge.tokenizer.bos_token_id
    del bridge
    details = {**source, **asdict(config)}
    for name in _NOT_TRAINING:
        del details[name]
    measured_on = load_model(model)
    unseen = contexts(documents, measured_on.tokenizer, config.corpus, held_out=True)
    held_out = list(islice(unseen, config.card_contexts))
    folders = [out / site for site in config.sites]
    for site, folder in zip(config.sites, folders, strict=True):
        if not is_finished(folder, details):
            sae = _train_site(
                config, cache, site, details, work / "checkpoints" / site, opens_with_bos
            )
            save(sae, folder)
        if not (folder / "card.json").exists():
            rows = cache.sample(site, _FIRING_ROWS)
            # Without the model: a badly trained SAE must get its card, not be refused.
            trained = load_sae(folder)
            card = measure_sae(measured_on, trained, held_out, eval_texts or {}, rows=rows)
            write_card(folder, {**card, "training": details, "sinks_left_out": cache.n_sinks})
    return folders


def _cached(
    config: TrainConfig,
    model: TransformerBridge,
    documents: list[str],
    source: dict[str, Any],
    folder: Path,
) -> ActivationCache:
    """The activations of all sites, computed as far as they are missing."""
    made_from = {**source, "dtype": config.model_dtype, "config": asdict(config.corpus)}
    path = folder / "made_from.json"
    if not path.exists():
        write_json(path, made_from)
    elif json.loads(path.read_text(encoding="utf-8")) != made_from:
        raise InputError(
            f"{folder} holds activations of another model, corpus or corpus configuration: "
            "use another work folder, or delete this one"
        )
    # Sorted, so that training the sites in another order does not need another cache.
    sites = sorted(config.sites)
    cache = ActivationCache(folder) if (folder / "state.json").exists() else None
    if cache is None or cache.n_rows < config.tokens or not set(sites) <= set(cache.widths):
        with tqdm(total=config.tokens, desc="Caching activations", unit="row") as bar:
            cache = cache_activations(
                model,
                contexts(documents, model.tokenizer, config.corpus, held_out=False),
                sites,
                folder,
                max_tokens=config.tokens,
                progress=lambda rows: bar.update(rows - bar.n),
            )
    # The last context overshoots; the same rows are trained on however the cache came about.
    cache.n_rows = min(cache.n_rows, config.tokens)
    return cache


def _train_site(
    config: TrainConfig,
    cache: ActivationCache,
    site: str,
    details: dict[str, Any],
    checkpoints: Path,
    opens_with_bos: bool,
) -> TopKTrainingSAE:
    """Train one SAE, from the newest checkpoint if there is one."""
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.saes.sae import SAEMetadata
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(config.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    d_in = cache.widths[site]
    sae = TopKTrainingSAE(
        TopKTrainingSAEConfig(
            d_in=d_in,
            d_sae=d_in * config.expansion,
            k=config.k,
            device=device,
            aux_loss_coefficient=config.auxiliary_coefficient,
            metadata=SAEMetadata(
                model_name=details["model_name"],
                hook_name=site,
                context_size=config.corpus.context_size,
                prepend_bos=opens_with_bos,
                saepd_training=details,
            ),
        )
    )
    sample = cache.sample(site, _STATISTICS_ROWS)
    scale = d_in**0.5 / sample.norm(dim=-1).mean().item()
    sae.b_dec.data = (sample.mean(0) * scale).to(device)
    trainer = SAETrainer(
        _trainer_config(config, device, checkpoints),
        sae,
        iter(()),
        save_checkpoint_fn=lambda checkpoint_path: keep_only(checkpoint_path, details),
    )
    trainer.activation_scaler.scaling_factor = scale
    resume(trainer, details)
    trainer.data_provider = cache.batches(
        site, config.batch_size, seed=config.seed, start=trainer.n_training_samples
    )
    if config.wandb != "off":
        import wandb

        os.environ["WANDB_MODE"] = config.wandb
        with wandb.init(project=config.wandb_project, name=site, config=details):
            trainer.fit()
    else:
        trainer.fit()
    # With unit decoder rows a latent's activation is the length of what it adds to the residual.
    sae.fold_W_dec_norm()
    sae.cfg.rescale_acts_by_decoder_norm = False
    return sae


def _trainer_config(config: TrainConfig, device: str, checkpoints: Path) -> SAETrainerConfig:
    from sae_lens.config import LoggingConfig, SAETrainerConfig

    steps = config.training_tokens // config.batch_size
    return SAETrainerConfig(
        total_training_samples=steps * config.batch_size,
        train_batch_size_samples=config.batch_size,
        lr=config.lr,
        lr_end=config.lr,
        lr_warm_up_steps=int(steps * config.warm_up_share),
        lr_decay_steps=int(steps * config.decay_share),
        device=device,
        autocast=config.autocast,
        dead_feature_window=config.dead_window,
        n_checkpoints=config.checkpoints,
        checkpoint_path=str(checkpoints),
        logger=LoggingConfig(log_to_wandb=config.wandb != "off", log_weights_to_wandb=False),
    )
