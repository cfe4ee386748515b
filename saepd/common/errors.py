"""The one exception that means "the input is wrong", as opposed to "saepd is wrong"."""


class InputError(ValueError):
    """Bad input, told in one sentence: what is wrong, where, and what would be right.

    The command line prints the sentence and exits with code 2; anything else that is raised is a
    defect and keeps its traceback.
    """


def first_line(error: BaseException) -> str:
    """What an error says in one line: the first of its message, or its class where it has none."""
    lines = str(error).strip().splitlines()
    if isinstance(error, KeyError):
        # All that it says is the key.
        return f"{type(error).__name__}: {' '.join(lines)}"
    return lines[0].rstrip() if lines else type(error).__name__
