"""The ``saepd`` command. Only this package prints."""

from __future__ import annotations

import re
import sys
from importlib import import_module

from saepd.common.errors import InputError

COMMANDS = {
    "demo": "fit on real survey answers, steer, merge, compare with what people said",
    "fit": "turn feedback into one steering direction per perspective",
    "features": "show which SAE features encode each perspective's feedback",
    "answer": "answer one question as every perspective, and merged",
    "generate": "write text from the merged perspectives",
    "evaluate": "compare methods and nulls on a published task, or on your own data",
    "triage": "rank items by need of a person, say why, and take the answers back as feedback",
    "sweep": "run every point of a sweep file; what is finished or shared is not run again",
    "sweep show": "best points of a sweep, which parameters mattered, gain against side effect",
    "sweep point": "run one point of a sweep, as W&B's agents do",
    "train-sae": "train sparse autoencoders for a model on your text",
    "doctor": "say what is installed and cached, and whether model and SAE fit",
}

_HELP = """\
usage: saepd COMMAND [options]

Answer as different people would: sparse feedback in, plural answers out.

{commands}

examples:
  saepd demo --out out/demo
  saepd fit --feedback mine.jsonl --out steering
  saepd answer "Should buses be free?" --options Yes No Unsure --steering steering
  saepd COMMAND --help
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 2 bad input, 130 interrupted."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        listed = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items())
        print(_HELP.format(commands=listed))
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(version("saepd"))
        return 0
    words = 2 if " ".join(arguments[:2]) in COMMANDS else 1
    name, rest = " ".join(arguments[:words]), arguments[words:]
    if name not in COMMANDS:
        from difflib import get_close_matches

        close = get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"use one of {', '.join(COMMANDS)}"
        print(f"saepd: unknown command {name!r}: {hint}", file=sys.stderr)
        return 2
    command = import_module(f"saepd.cli.{re.sub('[- ]', '_', name)}")
    try:
        from saepd.cli.options import parse, quiet_libraries

        options = parse(name, COMMANDS[name], command.Options, command.EXAMPLES, rest)
        quiet_libraries()
        command.run(options)
    except InputError as error:
        print(f"saepd {name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"saepd {name}: interrupted", file=sys.stderr)
        return 130
    return 0
