"""The harness's command line, with saepd's model among its own."""

import sys

from lm_eval.__main__ import cli_evaluate  # pyright: ignore[reportMissingImports]

import saepd.interchange.harness.model  # noqa: F401 - puts the model among the others
from saepd.common.errors import InputError

try:
    cli_evaluate()
except InputError as error:
    sys.exit(f"saepd: {error}")
