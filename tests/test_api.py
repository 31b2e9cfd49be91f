"""The Python API: what the commands do, by calls."""

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from plotly import graph_objects as go

import nnclr_study
from nnclr_study import api
from nnclr_study.errors import RunFolderError, StudyFileError, UsageError
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.trainer import checkpoint
from nnclr_study.trainer.data import load_dataset
from nnclr_study.trainer.evaluate import encode
from nnclr_study.trainer.learner import Learner
from nnclr_study.trainer.loop import train
from nnclr_study.trainer.world import World
from tests.report.helpers import make_run, make_search, study_text

ROOT = Path(__file__).parent.parent
QUICKSTART = ROOT / "search_spaces" / "quickstart.toml"
SEARCH = ROOT / "search_spaces" / "four_way.toml"
TOP1 = {0: 0.80, 500: 0.90, 1_000: 0.85}
TINY = """
[study]
name = "tiny"
seeds = [1]
[trial]
dataset = "digits"
epochs = 1
steps_per_epoch = 1
batch_size = 8
labelled_batch_size = 4
width = 4
queue_size = 12
"""


@pytest.fixture
def made(tmp_path):
    """A run of three conditions and three seeds, one of whose trials failed."""

    def outcome(trial):
        size, seed = trial.config.queue_size, trial.config.seed
        return "out of memory" if (size, seed) == (1_000, 3) else TOP1[size] + 0.001 * seed

    make_run(tmp_path / "made", study_text("queue_size = [0, 500, 1_000]"), outcome)
    return nnclr_study.open_run(tmp_path / "made")


def test_the_import_is_light_and_has_the_whole_api():
    code = """
import sys
import nnclr_study
assert not {"torch", "ray", "pandas", "plotly", "pydantic", "typer"} & sys.modules.keys()
nnclr_study.load_study, nnclr_study.plan, nnclr_study.Run
assert not {"torch", "ray", "pandas", "plotly", "typer"} & sys.modules.keys()
assert "pydantic" in sys.modules, "the test would pass if nothing could load it"
assert set(nnclr_study.__all__) <= set(dir(nnclr_study))
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    for name in nnclr_study.__all__:
        assert getattr(nnclr_study, name) is getattr(api, name)
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        getattr(nnclr_study, "trian")  # noqa: B009


def test_a_study_is_loaded_and_planned():
    study = nnclr_study.load_study(str(QUICKSTART))
    assert study.name == "quickstart"
    assert nnclr_study.plan(study) == nnclr_study.plan(QUICKSTART) == plan_trials(study)


def test_what_cannot_be_loaded_or_planned_is_told(tmp_path):
    with pytest.raises(StudyFileError, match="cannot be read"):
        nnclr_study.load_study(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="names its trials as it goes"):
        nnclr_study.plan(SEARCH)
    with pytest.raises(RunFolderError, match="no run folder"):
        nnclr_study.open_run(tmp_path)


def test_a_run_s_trials_and_epochs_are_tables(made):
    trials, epochs = made.trials(), made.epochs()
    assert isinstance(trials, pd.DataFrame)
    assert isinstance(epochs, pd.DataFrame)
    assert len(trials) == 9
    assert trials["status"].value_counts().to_dict() == {"finished": 8, "failed": 1}
    best = trials[(trials["queue_size"] == 500) & (trials["seed"] == 2)]
    assert best["val_probe_top1"].tolist() == [pytest.approx(0.902)]
    assert set(epochs["trial_id"]) == set(trials["trial_id"])
    assert made.study.seeds == [1, 2, 3]


def test_its_analysis_is_the_report_s(made, tmp_path):
    built = nnclr_study.build_report(made, tmp_path / "page")
    assert built.page == tmp_path / "page" / "index.html"
    told = json.loads((tmp_path / "page" / "analysis.json").read_text())
    assert json.loads(json.dumps(made.analysis())) == told
    assert nnclr_study.build_report(str(made.path)).page == made.path / "report" / "index.html"


def test_its_best_is_the_highest_mean_with_its_finished_trials(made):
    best = made.best()
    assert best["condition"] == {"queue_size": 500}
    assert best["val_probe_top1"]["mean"] == pytest.approx(0.902)
    of_best = [t.id for t in nnclr_study.plan(made.study) if t.config.queue_size == 500]
    assert best["trial_ids"] == of_best
    assert made.analysis()["arms"][1]["label"] == best["label"]


def test_the_best_of_a_condition_names_no_failed_trial(tmp_path):
    def outcome(trial):
        return "broken" if trial.config.seed == 2 else 0.9

    run = nnclr_study.Run(make_run(tmp_path / "x", study_text("width = [8]"), outcome).path)
    assert len(run.best()["trial_ids"]) == 2


def test_nothing_is_best_before_a_trial_has_finished(tmp_path):
    folder = make_run(tmp_path / "x", study_text("width = [8, 16]"), lambda trial: None)
    assert nnclr_study.Run(folder.path).best() is None


def test_the_best_of_a_search_is_one_trial(tmp_path):
    make_search(tmp_path / "hunt", [0.5, 0.9, 0.7])
    best = nnclr_study.Run(tmp_path / "hunt").best()
    assert best["condition"]["queue_size"] == 80
    assert len(best["trial_ids"]) == 1


def test_its_figures_come_one_by_one(made):
    figures = made.figures()
    assert {"dose_response", "forest", "learning"} <= set(figures)
    assert all(isinstance(figure, go.Figure) for figure in figures.values())
    # Dark ink on no ground cannot be read in a dark notebook.
    assert {figure.layout.paper_bgcolor for figure in figures.values()} == {"white"}


@pytest.fixture
def trained(tmp_path):
    """A run folder with the checkpoint of one trained trial, and what it was trained on."""
    (tmp_path / "tiny.toml").write_text(TINY)
    study = nnclr_study.load_study(tmp_path / "tiny.toml")
    (trial,) = nnclr_study.plan(study)
    folder = RunFolder.create(tmp_path / "runs" / "tiny").keep(study)
    data = load_dataset(trial.config, tmp_path)
    (snapshot,) = train(trial.config, data, World.alone())
    checkpoint.save(snapshot, folder.checkpoint(trial.id))
    return folder, trial, data


def test_a_loaded_encoder_gives_the_features_that_were_scored(trained):
    folder, trial, data = trained
    learner = Learner(trial.config, data.side, data.num_classes, World.alone())
    learner.load_state_dict(checkpoint.load(folder.checkpoint(trial.id)).tensors)
    expected = encode(learner.encoder, data.val.images, World.alone())
    run = nnclr_study.open_run(folder.path)
    of_run = nnclr_study.load_encoder(run, trial.id)
    of_file = nnclr_study.load_encoder(folder.checkpoint(trial.id))
    pixels = data.val.images[:].float() / 255
    for encoder in (of_run, of_file, pickle.loads(pickle.dumps(of_file))):
        assert not encoder.training
        assert encoder.image_size == 32
        with torch.no_grad():
            features = encoder(pixels)
        torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-6)
    fresh = Learner(trial.config, data.side, data.num_classes, World.alone())
    assert not torch.allclose(encode(fresh.encoder, data.val.images, World.alone()), expected)


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
        torch.zeros(2, 3, 31, 32),
        torch.zeros(2, 1, 32, 32),
        torch.zeros(3, 32, 32),
    ],
    ids=["uint8", "size", "grey", "one"],
)
def test_images_that_it_was_not_trained_on_are_refused(trained, images):
    folder, trial, _ = trained
    with pytest.raises(ValueError, match=r"use float RGB from 0 to 1, \(B, 3, 32, 32\)"):
        nnclr_study.load_encoder(folder.path, trial.id)(images)


def test_an_encoder_that_is_not_there_is_told(trained, tmp_path):
    folder, trial, _ = trained
    for source, trial_id, error, said in (
        (folder.path, "nobody", UsageError, "has no trial 'nobody'"),
        (folder.path, "../../etc/passwd", UsageError, "has no trial"),
        (folder.path, None, UsageError, "say which trial_id"),
        (tmp_path / "no.safetensors", None, RunFolderError, "is not there"),
        (tmp_path / "tiny.toml", None, RunFolderError, "is no checkpoint"),
    ):
        with pytest.raises(error, match=said):
            nnclr_study.load_encoder(source, trial_id)
    folder.checkpoint(trial.id).unlink()
    with pytest.raises(RunFolderError, match="has not begun"):
        nnclr_study.load_encoder(folder.path, trial.id)


@pytest.fixture
def engine(monkeypatch):
    """Stands in for Ray: every trial finishes at once; holds how it was asked."""
    from nnclr_study.sweep import engine
    from tests.report.helpers import made_session, write_trial

    asked = {}

    def run_study(study, folder, todo, how, console, page):
        asked.update(todo=len(todo), how=how, argv=list(sys.argv), study=study)
        session = folder.append_session(made_session())
        for trial in todo:
            write_trial(folder, trial, asked.get("outcome", 0.8), session)

    monkeypatch.setattr(engine, "run_study", run_study)
    return asked


def test_run_runs_what_has_not_ended_and_returns_the_run(engine, tmp_path):
    argv, on_term = list(sys.argv), signal.getsignal(signal.SIGTERM)
    study = nnclr_study.load_study(QUICKSTART)
    run = nnclr_study.run(QUICKSTART, tmp_path, workers=2, max_concurrent=1)
    assert run.path == tmp_path / "quickstart"
    assert (run.trials()["status"] == "finished").sum() == engine["todo"] == 12
    assert (run.path / "report" / "index.html").exists()
    assert engine["how"].demand.workers == 2
    assert engine["argv"][:3] == ["nnclr-study", "run", str(QUICKSTART)]
    assert {f"--storage={tmp_path}", "--workers=2", "--max-concurrent=1"} <= set(engine["argv"])
    assert sys.argv == argv
    assert signal.getsignal(signal.SIGTERM) is on_term
    engine.clear()
    assert nnclr_study.run(study, tmp_path).path == run.path
    assert engine == {}, "all trials had ended"


def test_run_takes_a_study_and_records_where_its_file_is(engine, tmp_path):
    study = nnclr_study.load_study(QUICKSTART)
    run = nnclr_study.run(study, tmp_path, retry_failed=True)
    assert engine["study"] == study
    assert engine["argv"][2] == str(run.path / "study.toml")
    assert engine["argv"][-1] == "--retry-failed"
    assert (run.path / "study.toml").read_text() == study.text


def test_failed_trials_are_rows_and_no_error(engine, tmp_path):
    engine["outcome"] = "out of memory"
    run = nnclr_study.run(QUICKSTART, tmp_path)
    assert set(run.trials()["status"]) == {"failed"}


def test_run_takes_every_flag_of_the_command():
    import inspect

    from nnclr_study import cli

    ours = [name for name in inspect.signature(api.run).parameters if name != "study"]
    assert ours == [name for name in inspect.signature(cli.run).parameters if name != "file"]


def test_what_runs_elsewhere_is_refused(tmp_path):
    with pytest.raises(UsageError, match="use the command"):
        nnclr_study.run(QUICKSTART, tmp_path, address="ray://head:10001")


@pytest.mark.ray
def test_run_on_ray(tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    run = nnclr_study.run(tmp_path / "tiny.toml", tmp_path / "runs", tracker=[f"mlflow:{uri}"])
    assert run.trials()["status"].tolist() == ["finished"]
    (trial_id,) = run.best()["trial_ids"]
    (tracked,) = MlflowClient(tracking_uri=uri).search_runs(["1"])
    assert (tracked.info.run_name, tracked.info.status) == (trial_id, "FINISHED")
    assert nnclr_study.load_encoder(run, trial_id)(torch.rand(2, 3, 32, 32)).shape == (2, 4)
    command = RunFolder.open(run.path).sessions()[0].command
    assert command.startswith(f"nnclr-study run {tmp_path / 'tiny.toml'} --storage=")
