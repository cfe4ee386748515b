"""Sweeps over layers, dictionaries, k, coefficients, merges and feedback, that cost what is new.

    sweep file ──► points ──► units that share stages ──► a backend's workers ──► store ──► table

A sweep is a file in W&B's format (`sweep_file`, `space`); its parameters are the fields of the
configuration dataclasses (`parameters`). A point goes through `stages`, each computed once and kept
by content (`stage_cache`), then `measure`, which costs no forward. `run` drives; `store` keeps what
is finished.
"""
