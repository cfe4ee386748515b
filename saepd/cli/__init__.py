"""The ``saepd`` command. All that it prints is printed in this package."""

from __future__ import annotations

import errno
import os
import sys

from saepd.common.errors import InputError
from saepd.common.messages import nearest, shortened

COMMANDS = {
    "demo": "fit on real survey answers, steer, merge, compare with what people said",
    "fit": "turn feedback into one steering direction per perspective",
    "features": "show which SAE features encode each perspective's feedback",
    "index": "read texts once, so that latents can be looked up by word, text or example",
    "label": "ask a language model what latents are about, and score what it says",
    "explore": "write one HTML file to look at all latents and the feedback that they encode",
    "search": "look latents up by words, by texts in which they fire, or by their id",
    "answer": "answer one question as every perspective, and merged",
    "generate": "write text from the merged perspectives",
    "steer": "steer with latents or a vector chosen by hand, base and steered text side by side",
    "evaluate": "compare methods and nulls on a published task, or on your own data",
    "triage": "rank items by need of a person, say why, and take the answers back as feedback",
    "sweep": "run every point of a sweep file; what is finished or shared is not run again",
    "sweep show": "best points of a sweep, which parameters mattered, gain against side effect",
    "sweep point": "run one point of a sweep, as W&B's agents do",
    "export": "write directions in another tool's format, and say what it cannot hold",
    "import": "read another tool's vectors into a folder of directions",
    "lm-eval": "run tasks of the lm-evaluation-harness on base, perspectives and merge together",
    "ui": "steer perspectives and see them side by side, on a page of this machine alone",
    "report": "tell what a fit, an evaluation, a sweep or a triage left, as one web page",
    "train-sae": "train sparse autoencoders for a model on your text",
    "completion": "print a script that completes commands and options in your shell",
    "doctor": "say what is installed and cached, and whether model and SAE fit",
}

# What a disk says to a program that is not at fault.
_NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)

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
    """Run one command; returns the exit code.

    0: done; 2: bad input; 130: interrupted; 141: who reads the output has gone.
    """
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
        advice = nearest(name, COMMANDS, len(COMMANDS))
        print(f"saepd: unknown command {shortened(name)}: {advice}", file=sys.stderr)
        return 2
    try:
        _run(name, rest)
        # What is left in the buffer may find its reader gone, too.
        sys.stdout.flush()
    except InputError as error:
        print(f"saepd {name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"saepd {name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Who reads, such as head, has enough. Python would complain once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise
        where = "" if error.filename is None else f" ({error.filename})"
        advice = "make room, or name a place that can be written to"
        print(f"saepd {name}: {error.strerror}{where}: {advice}", file=sys.stderr)
        return 2
    return 0


def _run(name: str, arguments: list[str]) -> None:
    from saepd.cli.command import load_command
    from saepd.cli.options import quiet_libraries
    from saepd.cli.parsing import parse

    command = load_command(name)
    options = parse(command, arguments)
    if options is None:
        return
    quiet_libraries()
    command.run(options)
