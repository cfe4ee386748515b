import json
from pathlib import Path

import pytest

from saepd.common.errors import InputError
from saepd.sweeps.point.question import draw_of, task_of
from saepd.sweeps.results.frame import read_sweep
from saepd.sweeps.run import run_sweep
from saepd.sweeps.space.parameters import point_config


@pytest.fixture
def own(files, tmp_path):
    """Questions and people's answers to them, as files of any name; south has answered twice."""
    rows = [json.loads(line) for line in Path(files["data"]).read_text().splitlines()]
    items, feedback = tmp_path / "questions.jsonl", tmp_path / "answers.csv"
    items.write_text("\n".join(map(json.dumps, rows)))
    lines = ["id,perspective,item,prompt,options,answer"]
    for i, row in enumerate(rows):
        options = "|".join(row["options"])
        answer = row["options"][i % len(row["options"])]
        lines.append(f"a{i},{row['perspective']},{row['id']},{row['prompt']},{options},{answer}")
    feedback.write_text("\n".join(lines))
    rest = {k: v for k, v in files.items() if k != "data"}
    return rest | {"items": str(items), "feedback": str(feedback), "feedback_kind": "answer"}


def test_ones_own_questions_and_answers_are_swept(own, sweep_of, tmp_path):
    config = point_config(own)
    task, draw = task_of(config.task), draw_of(config.task, config.draw)
    written = {row.id: row.answer for row in task.feedback}
    assert len(written) == 32
    # What is drawn are the answers of the file, not answers made up from the distributions.
    assert all(written[row.id] == row.answer for row in draw.feedback)
    swept = sweep_of(**{"data": None, **{k: own[k] for k in ("items", "feedback")}}, k=[2, 4])
    done = run_sweep(swept, tmp_path / "out")
    assert (done.n_points, done.n_failed) == (2, 0)
    assert read_sweep(tmp_path / "out").gain.notna().all()


def test_answers_that_are_corrected_make_another_point(own, tmp_path):
    from saepd.sweeps.point.identity import point_key

    config = point_config(own)
    before, drawn = point_key(config), draw_of(config.task, config.draw).feedback
    file = Path(own["feedback"])
    header, *lines = file.read_text().splitlines()
    turned = [line.rsplit(",", 1)[0] + "," + line.split(",")[4].split("|")[-1] for line in lines]
    file.write_text("\n".join([header, *turned]))
    assert point_key(config) != before
    after = draw_of(config.task, config.draw).feedback
    assert [row.answer for row in after] != [row.answer for row in drawn]
    assert {row.answer for row in after} <= {"No", "Same"}


def test_a_missing_file_is_named(own):
    with pytest.raises(InputError, match=r"nowhere\.jsonl"):
        task_of(point_config(own | {"items": "nowhere.jsonl"}).task)
