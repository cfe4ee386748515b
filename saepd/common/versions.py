"""Which versions of what numbers depend on are installed."""

from __future__ import annotations

from importlib.metadata import version

PACKAGES = ("saepd", "torch", "transformers", "transformer-lens", "sae-lens")


def package_versions() -> dict[str, str]:
    """Package -> its installed version, for what artefacts record of how they came about."""
    return {name: version(name) for name in PACKAGES}
