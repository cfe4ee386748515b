"""The texts that may follow a prompt, laid out so that texts which begin alike share their columns.

Options often begin with the same words, and in a few-shot prompt the options of one question all
follow that question. Such texts form a tree of tokens. In the order of the tree everything that
continues a token stands right behind it, so that one number a column says who may see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TextTree:
    """Columns behind one prompt.

    Attributes:
        tokens: The token of each column. The last token of a text is only read, never fed, so it
            is there only if another text goes on from it.
        until: The first column behind each that does not continue it.
        reads: Where each token of each text is read: 0 is the prompt's last column, i+1 the
            column i of the tree.
    """

    tokens: list[int]
    until: list[int]
    reads: list[list[int]]


def text_tree(texts: Sequence[list[int]]) -> TextTree:
    """Lay out the token ids of texts; none of them may be empty."""
    tokens: list[int] = []
    until: list[int] = []
    reads: list[list[int]] = [[] for _ in texts]
    path: list[int] = []
    # In this order texts that begin alike stand together.
    for index in sorted(range(len(texts)), key=lambda i: texts[i][:-1]):
        fed = texts[index][:-1]
        shared = 0
        while shared < min(len(path), len(fed)) and tokens[path[shared]] == fed[shared]:
            shared += 1
        for column in path[shared:]:
            until[column] = len(tokens)
        del path[shared:]
        for token in fed[shared:]:
            path.append(len(tokens))
            tokens.append(token)
            until.append(0)
        reads[index] = [0, *(column + 1 for column in path)]
    for column in path:
        until[column] = len(tokens)
    return TextTree(tokens, until, reads)
