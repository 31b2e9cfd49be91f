"""Published evidence says what the run said, to the bit."""

import json
import shutil
import warnings
from pathlib import Path

import pytest

from nnclr_study.errors import RunFolderError
from nnclr_study.report.evidence import load_any, restore
from nnclr_study.report.page import build_report
from nnclr_study.study.plan import plan_trials
from tests.report.helpers import make_run, make_search, study_text
from tests.report.studies import GOLDEN, STATES
from tests.report.test_page import FILES, without_stamp

PUBLISHED = ("study.toml", "trials.csv", "epochs.csv", "environment.json")
REPORTS = Path(__file__).parents[2] / "reports"


def conditional_search(path):
    """A search with a condition that came twice, and words and switches among its knobs."""
    return make_search(path, [0.7, 0.72, (3, "stopped"), "'quoted'", "=cmd()", 2, None, 0.71])


def words_and_nothing(path):
    """A grid of points: switches, a word, and a knob that only some of them set."""
    points = "".join(
        f"[[points]]\nqueue_size = 500\nhead_batch_norm = {switch}\n{more}\n"
        for switch, more in (
            ("true", ""),
            ("false", 'optimizer = "lars"'),
            ("false", "gradient_clip = 1.5"),
        )
    )
    text = study_text("").replace("[grid]", points)
    return make_run(path, text, lambda t: 0.8 + 0.01 * t.config.seed * t.config.head_batch_norm)


def awkward_floats(path):
    text = study_text("learning_rate = [0.1, 1e-5, 3, 0.30000000000000004]", seeds=[1, 4294967295])
    return make_run(
        path, text, lambda t: 1 / 3 + t.config.seed / 1e11 + t.config.learning_rate / 7
    )


MADE = (
    GOLDEN
    | STATES
    | {each.__name__: each for each in (conditional_search, words_and_nothing, awkward_floats)}
)


def published(folder, path):
    """Build a run's page, and copy what is to be published of it; return both folders."""
    built = build_report(folder.path).page.parent
    path.mkdir()
    for name in PUBLISHED:
        shutil.copy(built / name, path)
    return built, path


@pytest.mark.parametrize("name", MADE)
def test_evidence_rebuilds_what_the_run_said(tmp_path, name):
    folder = MADE[name](tmp_path / "run")
    built, evidence = published(folder, tmp_path / "evidence")
    before = {name: (evidence / name).read_bytes() for name in PUBLISHED}
    report = build_report(evidence)
    assert report.page == evidence / "index.html"
    for each in FILES - {"index.html"}:
        assert (evidence / each).read_text() == (built / each).read_text(), each
    assert {name: (evidence / name).read_bytes() for name in PUBLISHED} == before
    pages = [without_stamp(home / "index.html") for home in (evidence, built)]
    if name != "whole":  # whose pictures are not published
        assert pages[0] == pages[1]
    assert not load_any(evidence).is_run


@pytest.mark.parametrize("name", MADE)
def test_a_restored_run_says_what_the_run_said_and_has_the_same_left_to_do(tmp_path, name):
    folder = MADE[name](tmp_path / "run")
    _, evidence = published(folder, tmp_path / "evidence")
    again = restore(evidence, tmp_path / "runs")
    assert again.path == tmp_path / "runs" / folder.study().name
    assert again.study() == folder.study()
    assert again.trials() == folder.trials()
    ended = folder.trials()
    whole = {trial_id: rows for trial_id, rows in folder.epochs().items() if trial_id in ended}
    assert again.epochs() == whole
    assert again.sessions() == folder.sessions()
    assert again.todo(again.study()) == folder.todo(folder.study())
    assert [*again.path.parent.iterdir()] == [again.path], "nothing half written is left"
    with pytest.raises(RunFolderError, match="is there already"):
        restore(evidence, tmp_path / "runs")


def test_a_restored_trial_has_the_id_that_its_study_gives_it_today(tmp_path):
    _, evidence = published(STATES["running"](tmp_path / "run"), tmp_path / "evidence")
    for name in ("trials.csv", "epochs.csv"):
        path = evidence / name
        path.write_text(path.read_text().replace("_s1_", "_s1_0"))
    again = restore(evidence, tmp_path)
    planned = {trial.id for trial in plan_trials(again.study())}
    assert again.trials().keys() == again.epochs().keys() <= planned


def test_a_run_folder_is_not_restored(tmp_path):
    folder = STATES["running"](tmp_path / "run")
    with pytest.raises(RunFolderError, match="is not published evidence"):
        restore(folder.path, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("damage", [lambda _: "[]", lambda text: text.replace('": 1', '": -1')])
def test_trials_of_a_session_that_is_not_known_are_restored(tmp_path, damage):
    folder = STATES["running"](tmp_path / "run")
    _, evidence = published(folder, tmp_path / "evidence")
    environment = evidence / "environment.json"
    environment.write_text(damage(environment.read_text()))
    ended = folder.trials()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        again = restore(evidence, tmp_path / "runs")
    said = [str(each.message) for each in told if "the session of" in str(each.message)]
    assert len(said) == 1 and f"the session of {len(ended):,} trial(s)" in said[0]
    assert again.trials().keys() == ended.keys()
    assert again.todo(again.study()) == folder.todo(folder.study())
    assert {row.session for row in again.trials().values()} == {0}
    assert again.append_session(folder.sessions()[0]) == 1, "a number of its own"


def test_evidence_of_a_running_study_is_of_an_interrupted_one(tmp_path):
    folder = STATES["running"](tmp_path / "run")
    with folder.lock():
        _, evidence = published(folder, tmp_path / "evidence")
    build_report(evidence)
    status = json.loads((evidence / "analysis.json").read_text())["status"]
    assert (status["running"], status["interrupted"]) == (0, 1)
    assert 'http-equiv="refresh"' not in (evidence / "index.html").read_text()


@pytest.mark.parametrize(
    "home",
    [pytest.param(path.parent, id=path.parent.name) for path in REPORTS.rglob("epochs.csv")],
)
def test_every_published_study_rebuilds(tmp_path, home):
    for name in PUBLISHED:
        shutil.copy(home / name, tmp_path)
    build_report(tmp_path)
    for name in ("trials.csv", "epochs.csv", "environment.json", "summary.md"):
        assert (tmp_path / name).read_text() == (home / name).read_text(), name


def test_evidence_that_a_spreadsheet_and_an_editor_have_saved(tmp_path):
    home = shutil.copytree(REPORTS / "quickstart", tmp_path / "quickstart")
    before = load_any(home)
    for name in PUBLISHED:
        text = (home / name).read_text().replace("\n", "\r\n")
        (home / name).write_text(text, encoding="utf-8-sig", newline="")
    after = load_any(home)
    assert after.trials.equals(before.trials)
    assert after.epochs.equals(before.epochs)
    assert after.sessions == before.sessions
    (home / "trials.csv").write_bytes(b"trial_id\xe9")
    with pytest.raises(RunFolderError, match=r"not published evidence: .*utf-8"):
        load_any(home)
