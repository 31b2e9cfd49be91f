"""A search of an earlier version trained a config more than once: it counts once everywhere."""

import csv
import json

import pytest

from nnclr_study.errors import RunFolderWarning
from nnclr_study.report.analyse import analyse
from nnclr_study.report.evidence import load_any, restore
from nnclr_study.report.page import build_report
from nnclr_study.report.proxies import proxies
from nnclr_study.study.budget import spent_by
from nnclr_study.study.confirm import confirmation
from nnclr_study.study.plan import suggested_trial
from nnclr_study.study.rows import Suggestion
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study
from tests.report.helpers import SEARCH, made_session, write_trial

FILES = ("study.toml", "trials.csv", "epochs.csv", "environment.json")
TOPS = {50: 0.53, 80: 0.58, 110: 0.55, 140: 0.56, 170: 0.51}
ORDER = (50, 80, 110, 80, 80, 140, 80, 170, 50)
"""The queue sizes as they were suggested: 80 was trained four times, and 50 twice."""


def written(path, order):
    """Write the run folder of a search that trained queue sizes in this order."""
    study = parse_study(SEARCH, "hunt.toml")
    folder = RunFolder.create(path).keep(study)
    folder.append_session(made_session())
    for number, size in enumerate(order):
        params = {"queue_size": size, "optimizer": "adam"}
        trial = suggested_trial(study, number, params)
        folder.append_suggestion(Suggestion(trial_id=trial.id, number=number, params=params))
        write_trial(folder, trial, TOPS[size])
    return folder


def test_copies_count_once_in_all_numbers_of_the_report(tmp_path):
    folder, plain = written(tmp_path / "copies", ORDER), written(tmp_path / "plain", TOPS)
    with pytest.warns(RunFolderWarning, match="has 4 that repeat the configuration of another"):
        tables = load_any(folder.path)
    assert len(tables.trials) == len(tables.arms) == 5
    found, once = analyse(tables), analyse(load_any(plain.path))
    assert len(found["arms"]) == found["status"]["planned"] == 5
    assert found["best"] == once["best"]
    labels = [found["arms"][found["best"][key]]["label"] for key in ("arm", "runner_up")]
    assert labels == ["queue_size 80, optimizer adam", "queue_size 140, optimizer adam"]
    assert found["proxies"] == once["proxies"]
    assert proxies(tables)["trials"] == 5
    for key in ("begun", "finished", "good", "good_values", "edf", "luck", "importance"):
        assert found["search"][key] == once["search"][key], key
    assert len(found["search"]["history"]) == 5
    assert spent_by(folder, folder.study()).trials == 5


def test_confirm_counts_a_copied_trial_as_one(tmp_path):
    text = confirmation(written(tmp_path / "hunt", ORDER), best=3, seeds=2).text
    assert "# 58.0% (n = 1) queue_size 80" in text
    assert "n = 4" not in text
    assert text.count("queue_size = 80") == 1


def test_published_copies_count_once_too_and_are_restored_so(tmp_path):
    folder = written(tmp_path / "hunt", TOPS)
    built = build_report(folder.path).page.parent
    evidence = tmp_path / "evidence"
    evidence.mkdir()
    for name in FILES:
        (evidence / name).write_bytes((built / name).read_bytes())
    with (evidence / "trials.csv").open(newline="") as file:
        _, *rows = csv.reader(file)
    copy = [cell.replace("0001_", "0005_") for cell in rows[1]]
    with (evidence / "trials.csv").open("a", newline="") as file:
        csv.writer(file).writerow(copy)
    assert len(load_any(evidence).trials) == 5
    restored = restore(evidence, tmp_path / "runs")
    assert len(restored.suggestions()) == 5


def test_the_page_of_copies_is_built(tmp_path):
    built = build_report(written(tmp_path / "hunt", ORDER).path)
    assert "of the 5 trials that were trained to the end" in built.answer
    told = json.loads((built.page.parent / "analysis.json").read_text())
    assert len(told["arms"]) == 5
