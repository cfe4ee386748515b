import nbformat
import pytest
from nbclient import NotebookClient

from saepd.common.progress import progress_bar

COUNTS = """\
import saepd
with saepd.progress_bar("<b>counting") as report:
    for i in range(500):
        report(i + 1, 500)
"""


def executed(source):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    NotebookClient(notebook, timeout=120, kernel_name="python3", allow_errors=True).execute()
    return notebook.cells[0].outputs


def test_a_notebook_shows_one_line_that_ends_where_the_work_does():
    [output] = executed(COUNTS)
    assert output.output_type == "display_data"
    assert output.data["text/plain"].startswith("<b>counting: 500 of 500, ")
    assert '<progress value="500" max="500">' in output.data["text/html"]
    assert "&lt;b&gt;counting" in output.data["text/html"]
    assert "<b>" not in output.data["text/html"]


def test_a_notebook_whose_work_fails_shows_how_far_it_came():
    line, error = executed(COUNTS + "        assert i < 6\n")
    assert line.data["text/plain"].startswith("<b>counting: 7 of 500, ")
    assert error.output_type == "error"


def test_a_terminal_is_told_on_standard_error(capfd):
    with progress_bar("starting") as report:
        report(1, 4)
        report("counting", 4, 4)
    out, err = capfd.readouterr()
    assert out == ""
    assert "counting" in err
    assert "4/4" in err


def test_what_fails_in_a_terminal_is_raised():
    with pytest.raises(ZeroDivisionError), progress_bar() as report:
        report(1, 1 // 0)
