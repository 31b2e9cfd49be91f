"""Run folders, evidence and exports from somebody else: nothing outside of them is touched."""

import os
import shutil
from pathlib import Path

import pytest

from nnclr_study.cli import main
from nnclr_study.errors import RunFolderError
from nnclr_study.report.page import build_report
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.rows import EvaluationRow
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.sweep.mirror import Mirror
from nnclr_study.sweep.trackers import TensorBoard
from nnclr_study.trainer import checkpoint, exports
from tests.report.helpers import make_run, study_text
from tests.report.studies import PNG
from tests.study.test_run_folder import epoch
from tests.trainer.test_checkpoint import config, snapshot

CONTENT = "line 1 of a file outside\nno end"
READ = {
    "study.toml": ["status", "report", "watch", "confirm", "export"],
    "sessions.jsonl": ["status", "report", "export"],
    "epochs.jsonl": ["status", "report", "export", "plan"],
    "trials.jsonl": ["status", "report", "watch", "confirm", "export", "plan"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(
        tmp_path_factory.mktemp("made"), study_text("queue_size = [0, 500]", (1, 2)), lambda _: 0.8
    )
    build_report(folder.path)
    return folder.path


@pytest.fixture
def run(made: Path, tmp_path: Path) -> RunFolder:
    path = tmp_path / "runs" / RunFolder(made).study().name
    return RunFolder(Path(shutil.copytree(made, path)))


@pytest.fixture
def home(tmp_path: Path):
    """A folder outside that holds a file; both must be the same in the end."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("file", "index.html"):
        (home / name).write_text(CONTENT)
    yield home
    assert {path.name: path.read_text() for path in home.iterdir()} == {
        "file": CONTENT,
        "index.html": CONTENT,
    }


def words(command: str, run: RunFolder, tmp_path: Path) -> list[str]:
    return {
        "status": ["status", str(run.path)],
        "report": ["report", str(run.path)],
        "watch": ["watch", str(run.path), "--port", "0"],
        "confirm": ["confirm", str(run.path), "-o", str(tmp_path / "c.toml")],
        "export": ["export", str(run.path), "-o", str(tmp_path / "out")],
        "plan": ["plan", "search_spaces/quickstart.toml", "--like", str(run.path)],
    }[command]


@pytest.mark.parametrize("name, command", [(n, c) for n, many in READ.items() for c in many])
@pytest.mark.parametrize("plant", ["link", "pipe"])
def test_no_command_reads_through_it(run, home, tmp_path, capsys, plant, name, command):
    asked = words(command, run, tmp_path)
    (run.path / name).unlink()
    if plant == "link":
        (run.path / name).symlink_to(home / "file")
    else:
        os.mkfifo(run.path / name)
    if plant == "pipe" and name == "study.toml":
        wanted = "no run folder"
    else:
        wanted = f"{name} is a {'symbolic link' if plant == 'link' else 'named pipe'}"
    assert main(asked) == 2
    said = capsys.readouterr().err
    assert wanted in said
    assert CONTENT[:10] not in said


@pytest.mark.parametrize("name", ["lock", "trials.jsonl", "sessions.jsonl", "evaluations.jsonl"])
@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
@pytest.mark.filterwarnings("ignore::nnclr_study.errors.RunFolderWarning")
def test_nothing_is_appended_to_a_file_that_lies_elsewhere(run, home, name, link):
    row, call = next(iter(run.trials().values())), run.sessions()[0]
    (run.path / name).unlink(missing_ok=True)
    link(run.path / name, home / "file")
    told = {"trial_id": "x", "protocol": "knn", "epoch": 1, "labels": 1, "val_top1": 0.5}
    told |= {"test_top1": 0.5, "chosen": {}, "seconds": 1, "device": "cpu"}
    wanted = f"{name} (is a symbolic link|has 2 hard links)"
    with pytest.raises(RunFolderError, match=wanted), run.lock():
        run.append_trial(row)
        run.append_session(call)
        run.append_evaluation(EvaluationRow(**told, ended_at=row.ended_at))


def test_a_report_elsewhere_is_refused_unless_it_is_named(run, home, tmp_path, capsys):
    shutil.rmtree(run.report)
    run.report.symlink_to(home)
    assert main(["report", str(run.path)]) == 2
    assert "report is a symbolic link, not a folder" in capsys.readouterr().err
    (tmp_path / "real").mkdir()
    (tmp_path / "named").symlink_to(tmp_path / "real")
    assert main(["report", str(run.path), "-o", str(tmp_path / "named")]) == 0
    assert (tmp_path / "real" / "index.html").is_file()


def test_links_at_the_names_of_the_page_are_replaced(run, home):
    for name in ("index.html", "analysis.json"):
        (run.report / name).unlink()
        (run.report / name).symlink_to(home / "file")
    assert not build_report(run.path).page.is_symlink()


@pytest.mark.parametrize("kind", ["png", "json"])
def test_pictures_elsewhere_are_not_read(run, home, capsys, kind):
    run.gallery.mkdir(exist_ok=True)
    for trial in plan_trials(run.study()):
        (run.gallery / f"{trial.id}.png").write_bytes(PNG)
        (run.gallery / f"{trial.id}.json").write_text('{"rows": []}')
        (run.gallery / f"{trial.id}.{kind}").unlink()
        (run.gallery / f"{trial.id}.{kind}").symlink_to(home / "file")
    assert main(["report", str(run.path)]) == 2
    assert f".{kind} is a symbolic link" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["checkpoints", "gallery", "tensorboard", "ray", "wandb"])
def test_subfolders_elsewhere_are_refused_before_anything_is_written(run, home, name):
    shutil.rmtree(run.path / name, ignore_errors=True)
    (run.path / name).symlink_to(home)
    with pytest.raises(RunFolderError, match=f"{name} is a symbolic link, not a folder"):
        run.check_subfolders()
    trial = plan_trials(run.study())[0]
    writes = {
        "tensorboard": [lambda: TensorBoard(run.tensorboard).epoch(trial, epoch(1))],
        "checkpoints": [
            lambda: checkpoint.save(snapshot(1), run.checkpoint(trial.id)),
            lambda: checkpoint.resume(run.checkpoint(trial.id), config()),
        ],
    }
    for write in writes.get(name, []):
        with pytest.raises(RunFolderError, match=f"{name} is a symbolic link"):
            write()


def test_a_file_in_the_place_of_a_subfolder_is_named(run):
    shutil.rmtree(run.path / "ray", ignore_errors=True)
    (run.path / "ray").touch()
    with pytest.raises(RunFolderError, match="ray cannot be used as a folder: Not a directory"):
        run.check_subfolders()


def test_an_optuna_journal_elsewhere_is_not_written(run, home):
    run.optuna.unlink(missing_ok=True)
    run.optuna.symlink_to(home / "file")
    with pytest.raises(RunFolderError, match=r"optuna\.journal is a symbolic link"):
        Mirror(run.study(), run)
    run.optuna.unlink()
    run.optuna.hardlink_to(home / "file")
    Mirror(run.study(), run)  # replaces it


def test_a_checkpoint_elsewhere_is_not_set_aside_but_named(run, home):
    path = run.checkpoint("t")
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(home / "file")
    for use in (lambda: checkpoint.resume(path, config()), lambda: checkpoint.load(path)):
        with pytest.raises(RunFolderError, match="is a symbolic link"):
            use()
    path.with_name(f"{path.name}.part").symlink_to(home / "file")
    path.unlink()
    checkpoint.save(snapshot(1), path)
    assert checkpoint.resume(path, config()).rows == [epoch(1)]


@pytest.mark.parametrize("name", exports.FILES)
def test_an_export_writes_and_reads_no_links(home, tmp_path, monkeypatch, name):
    monkeypatch.setattr(exports, "find_spec", lambda _: None)  # there is no encoder to translate
    out = tmp_path / "out"
    exports.claim(out)
    exports.write(snapshot(1), {"trial_id": "x"}, out)
    exports.write_text("card", out / exports.CARD)
    (out / name).unlink(missing_ok=True)
    (out / name).symlink_to(home / "file")
    if name in (exports.WEIGHTS, exports.CONFIG):
        with pytest.raises(RunFolderError, match="is a symbolic link"):
            exports.read(out)
    exports.write(snapshot(1), {"trial_id": "x"}, out)
    exports.write_text("card", out / exports.CARD)
    assert exports.read(out).trial_id == "x"


@pytest.mark.parametrize("name", ["trials.csv", "epochs.csv", "environment.json", "study.toml"])
def test_evidence_elsewhere_is_not_read(run, home, tmp_path, capsys, name):
    evidence = tmp_path / "evidence"
    build_report(run.path, evidence)
    (evidence / name).unlink()
    (evidence / name).symlink_to(home / "file")
    for asked in (["report"], ["restore", "--storage", str(tmp_path / "restored")]):
        assert main([asked[0], str(evidence), *asked[1:]]) == 2
        assert f"{name} is a symbolic link" in capsys.readouterr().err
