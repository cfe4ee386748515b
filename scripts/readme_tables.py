"""Copy measured tables from artifacts/results/ into README.md and docs/, or check that they agree.

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


def with_tables(page: str) -> str:
    """A page with every table replaced by what its file holds."""
    return _TABLE.sub(lambda m: m[1] + (ROOT / m[2]).read_text() + m[3], page)


def main() -> int:
    """Write the pages, or with --check say which are out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if stale")
    arguments = parser.parse_args()
    stale = False
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        old = path.read_text()
        new = with_tables(old)
        if arguments.check and old != new:
            stale = True
            print(f"{path.name} is stale: run python scripts/readme_tables.py", file=sys.stderr)
        elif old != new:
            path.write_text(new)
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
