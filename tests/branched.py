"""What branches are run on, and when two ways of running them give the same."""

PROMPTS = (
    "Is it so? Say:: yes",
    "a::b",
    "A rather longer question, for the sake of what is shared before the mark::so",
    "Well::",
    "The second of two prompts that differ in what follows the mark:: and more",
)
OPTIONS = [["yes", "no"], ["b", "c d", "very much so"], ["x"], ["one two", "one three"], ["a", "b"]]


def close(left, right):
    """Fail unless two tensors of one shape are the same within 1e-4."""
    assert left.shape == right.shape
    difference = (left - right).abs().max()
    assert difference < 1e-4, f"differs by {difference}"
