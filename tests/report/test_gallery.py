import json

import pytest

from nnclr_study.report import gallery
from nnclr_study.report.analyse import analyse
from nnclr_study.report.gallery import MAX_BYTES, galleries, gallery_said
from nnclr_study.report.load import load
from nnclr_study.study.plan import plan_trials
from tests.report.helpers import run_of
from tests.report.studies import PNG

ROW = {"label": 3, "neighbours": [3, 4, None], "similarities": [0.91, 0.8, 0.7]}


def with_pictures(path, **values):
    folder = run_of(path, **values)
    folder.gallery.mkdir()
    for trial in plan_trials(folder.study()):
        (folder.gallery / f"{trial.id}.png").write_bytes(PNG)
        (folder.gallery / f"{trial.id}.json").write_text(json.dumps({"rows": [ROW, ROW]}))
    return folder


def shown(folder):
    tables = load(folder)
    return galleries(tables, analyse(tables))


def test_the_smallest_queue_and_the_best_arm_are_shown(tmp_path):
    folder = with_pictures(
        tmp_path, q0=[0.95] * 2, q100=["lost", 0.7], q500=[0.8, 0.8], q900=[0.9] * 2
    )
    assert [(each["label"], each["seed"]) for each in shown(folder)] == [("queue_size 100", 2)]
    folder = with_pictures(tmp_path / "b", q0=[0.5], q100=[0.7], q500=[0.8], q900=[0.75])
    assert [each["label"] for each in shown(folder)] == ["queue_size 100", "queue_size 500"]
    folder = with_pictures(tmp_path / "c", q0=[0.5], q500=[0.8])
    assert [each["label"] for each in shown(folder)] == ["queue_size 500"], "once"


def test_signs_tell_the_same_class_another_and_an_unknown_one(tmp_path):
    (found,) = shown(with_pictures(tmp_path, q0=[0.5], q500=[0.8]))
    assert found["columns"] == 3
    assert found["image"].startswith("data:image/png;base64,iVBORw0KGgo")
    assert [cell["said"] for cell in found["rows"][0]] == ["class 3", "✓ 0.91", "✕ 0.80", "? 0.70"]
    assert [cell["kind"] for cell in found["rows"][0]] == ["query", "same", "other", "unknown"]


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("png", b"<svg onload=alert(1)>"),
        ("png", PNG + b"x" * MAX_BYTES),
        ("png", None),
        ("json", b"{"),
        ("json", b"[]"),
        ("json", b'{"rows": []}'),
        ("json", b'{"rows": [{"label": "x", "neighbours": [], "similarities": []}]}'),
        ("json", b'{"rows": [{"label": 1, "neighbours": [1, 2], "similarities": [0.5]}]}'),
        ("json", b'{"rows": [{"label": 1, "neighbours": [1], "similarities": ["<b>"]}]}'),
        ("json", None),
    ],
)
def test_what_is_no_picture_of_ours_is_left_out(tmp_path, kind, content):
    folder = with_pictures(tmp_path, q0=[0.5], q500=[0.8])
    assert len(shown(folder)) == 1
    file = folder.gallery / f"{plan_trials(folder.study())[1].id}.{kind}"
    file.unlink() if content is None else file.write_bytes(content)
    assert shown(folder) == []


def test_without_a_queue_or_a_finished_trial_there_is_none(tmp_path):
    assert shown(with_pictures(tmp_path / "a", q0=[0.5])) == []
    assert shown(with_pictures(tmp_path / "b", q500=["lost", 2])) == []


def test_a_finished_trial_of_somebody_else_that_has_no_accuracy_is_not_shown(tmp_path):
    folder = with_pictures(tmp_path, q500=[0.5])
    text = (tmp_path / "trials.jsonl").read_text()
    (tmp_path / "trials.jsonl").write_text(
        text.replace('"val_probe_top1": 0.5', '"val_probe_top1": null')
    )
    assert shown(folder) == []


def test_the_sentence_says_that_eight_are_an_illustration(tmp_path):
    said = gallery_said(analyse(load(run_of(tmp_path, q0=[0.5], q500=[0.8]))))
    assert said.endswith("the share over all of them is under Queue.")
    assert "Eight" not in gallery_said(analyse(load(run_of(tmp_path / "b", q0=[0.5]))))
    assert gallery.SHOWN <= 64
