"""Sweeps over layers, dictionaries, k, coefficients, merges and feedback, that cost what is new.

    sweep file ──► points ──► units that share stages ──► a backend's workers ──► store ──► table

A sweep is a file in W&B's format (`space.sweep_file`, `space.yaml_values`); its parameters are the
fields of the configuration dataclasses (`space.parameters`). A point goes through `point.stages`,
each computed once and kept by all that it depends on (`point.dependencies`, `point.stage_cache`),
then `point.measure`, which costs no forward. `run` drives; `results.store` keeps what is finished,
and `results.changes` tells what is no longer current.
"""
