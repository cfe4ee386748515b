"""Copy measured tables from artifacts/results/ into README.md, or check that they are the same.

A table stands between ``<!-- table: FILE -->`` and ``<!-- end table -->``, where FILE is a
Markdown file that a command wrote.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
_TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end table -->)", re.DOTALL)


def with_tables(readme: str) -> str:
    """The README with every table replaced by what its file holds."""
    return _TABLE.sub(lambda m: m[1] + (ROOT / m[2]).read_text() + m[3], readme)


def main() -> int:
    """Write the README, or with --check say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if stale")
    arguments = parser.parse_args()
    path = ROOT / "README.md"
    old = path.read_text()
    new = with_tables(old)
    if arguments.check:
        if old != new:
            print("README.md is stale: run python scripts/readme_tables.py", file=sys.stderr)
        return int(old != new)
    path.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
