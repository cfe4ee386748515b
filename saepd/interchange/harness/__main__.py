"""The harness's command line, with saepd's model among its own."""

import sys

from saepd.common.errors import InputError

try:
    from lm_eval.__main__ import cli_evaluate  # pyright: ignore[reportMissingImports]

    import saepd.interchange.harness.model  # noqa: F401 - puts the model among the others
except ImportError:
    sys.exit("saepd: the lm-evaluation-harness is not installed: pip install 'saepd[lm-eval]'")

try:
    cli_evaluate()
except InputError as error:
    print(f"saepd: {error}", file=sys.stderr)
    sys.exit(2)
