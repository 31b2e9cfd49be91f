"""The command line as a user meets it: what it prints, and with which exit code it ends."""

import json
import re
import runpy
import warnings
from pathlib import Path

import pytest

import nnclr_study
from nnclr_study.cli import main
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import load_study, parse_study
from nnclr_study.sweep import engine
from tests.report.helpers import make_search, run_of
from tests.report.studies import columns
from tests.study.test_run_folder import ended, epoch

ROOT = Path(__file__).parent.parent
COMMANDS = [
    *("plan", "run", "status", "report", "watch", "restore", "confirm", "trial", "data"),
    *("evaluate", "export", "doctor", "schema", "example"),
]
QUICKSTART = ROOT / "search_spaces" / "quickstart.toml"


TINY = """
[study]
name = "one"
seeds = [1]
[trial]
dataset = "digits"
epochs = 2
steps_per_epoch = 1
batch_size = 8
labelled_batch_size = 4
width = 4
queue_size = 12
"""


@pytest.fixture
def run_folder(tmp_path):
    """A run folder of the quickstart: one trial finished, one failed, one begun."""
    study = load_study(QUICKSTART)
    folder = RunFolder.create(tmp_path / "runs" / "quickstart").keep(study)
    done, failed, begun, *_ = plan_trials(study)
    for trial in (done, failed, begun):
        folder.append_epoch(trial.id, epoch(1))
    folder.append_trial(ended(done))
    failure = {"error": "MemoryError: [red]12 GiB[/red] :x:", "val_probe_top1": None}
    folder.append_trial(ended(failed, "failed").model_copy(update=failure))
    return folder


def test_python_dash_m_runs_the_command_line(capsys, monkeypatch):
    for argv, code in ((["--version"], 0), (["status", "/nowhere"], 2)):
        monkeypatch.setattr("sys.argv", ["nnclr_study", *argv])
        with pytest.raises(SystemExit) as end:
            runpy.run_module("nnclr_study", run_name="__main__")
        assert end.value.code == code
    assert capsys.readouterr().out == f"nnclr-study {nnclr_study.__version__}\n"


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in COMMANDS:
        assert f" {command} " in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command, capsys):
    assert main([command, "--help"]) == 0
    assert f"Example: nnclr-study {command} " in capsys.readouterr().out


def test_plan_prints_every_trial(capsys):
    assert main(["plan", str(QUICKSTART)]) == 0
    shown = capsys.readouterr().out
    for trial in plan_trials(load_study(QUICKSTART)):
        assert trial.id in shown
    assert "12 trials: 4 conditions x 3 seeds" in shown


def test_plan_cuts_no_id(capsys):
    long = SPACES / "cifar10_search_confirm.toml"
    assert main(["plan", str(long)]) == 0
    shown = capsys.readouterr().out
    for trial in plan_trials(load_study(long)):
        assert f"  {trial.id}  " in shown


def test_restored_evidence_is_a_run_that_goes_on(tmp_path, capsys):
    evidence = str(SPACES.parent / "reports" / "quickstart")
    assert main(["restore", evidence, "--storage", str(tmp_path)]) == 0
    shown = capsys.readouterr().out.replace("\n", "")
    assert "12 of 12 known trials have ended" in shown
    assert shown.endswith(f"quickstart/study.toml --storage {tmp_path}"), "run finds it there"
    folder = RunFolder.open(tmp_path / "quickstart")
    more = folder.study_file.read_text().replace("seeds = [1, 2, 3]", "seeds = [1, 2, 3, 4]")
    left = folder.todo(parse_study(more, "more.toml"))
    assert [trial.config.seed for trial in left] == [4] * 4
    assert main(["restore", evidence, "--storage", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_plan_says_that_two_seeds_resolve_nothing(tmp_path, capsys):
    path = tmp_path / "two.toml"
    path.write_text('[study]\nname = "two"\nseeds = [1, 2]\n[grid]\nwidth = [8, 16]\n')
    assert main(["plan", str(path)]) == 0
    assert "resolves: nothing; verdicts need 3 seeds of two conditions" in capsys.readouterr().out
    assert main(["plan", str(SPACES / "four_way.toml")]) == 0
    assert "resolves" not in capsys.readouterr().out, "a search compares nothing"


def test_plan_as_json_holds_every_config(capsys):
    assert main(["plan", str(QUICKSTART), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    trials = plan_trials(load_study(QUICKSTART))
    assert told["study"] == "quickstart"
    assert told["trials"] == [{"trial_id": t.id, "config": t.config.model_dump()} for t in trials]


SPACES = QUICKSTART.parent


def test_plan_packs_onto_the_cluster_it_is_told_of_and_forecasts_from_a_run(run_folder, capsys):
    words = ["plan", str(QUICKSTART), "--nodes", "2", "--node-cpus", "8", "--node-gpus", "2"]
    assert main([*words, "--gpus-per-trial", "0.5"]) == 0
    shown = capsys.readouterr().out
    assert "packing: 8 at a time, 2 rounds; a trial has 1 worker(s) and 0.5 GPU(s)" in shown
    assert "not known; measure some steps with --measure" in shown
    assert "resolves: differences to the baseline from 6.9 points on" in shown
    assert "if trials scatter as in reports/quickstart: seed SD 2.16 points, r = 0.09" in shown
    assert main([*words, "--like", str(run_folder.path)]) == 0
    shown = capsys.readouterr().out
    assert "GPU-hours" in shown
    assert "minutes with 4 at a time" in shown
    assert main(["plan", str(QUICKSTART), "--like", str(run_folder.path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["forecast"]
    assert told["trials"] == 12
    assert told["trial_hours"][0] > 0
    assert main(["plan", str(QUICKSTART), "--node-cpus", "8", "--gpus-per-trial", "1"]) == 3
    assert "cannot hold one trial" in capsys.readouterr().err


def test_plan_forecasts_from_published_evidence(capsys):
    evidence = SPACES.parent / "reports" / "quickstart"
    assert main(["plan", str(SPACES / "queue_size.toml"), "--like", str(evidence)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "time: " in shown
    assert "at the pace of other trials: here dataset stl10 and not digits; image_size 96" in shown
    assert "disk: not known; no checkpoint is there" in shown, "evidence holds none"
    assert f"as in {evidence}: seed SD 2.16 points".replace(" ", "") in shown.replace(" ", "")


def test_plan_is_told_of_nodes_by_their_cpus(capsys):
    assert main(["plan", str(QUICKSTART), "--node-gpus", "8"]) == 2
    assert "--node-gpus tells of a cluster: say --node-cpus as well" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["status"], ["confirm"], ["export", "-o", "x"]])
def test_what_needs_a_run_says_how_evidence_becomes_one(words, capsys):
    evidence = str(SPACES.parent / "reports" / "quickstart")
    assert main([words[0], evidence, *words[1:]]) == 2
    assert f"`nnclr-study restore {evidence}` makes one of it" in capsys.readouterr().err.replace(
        "\n", ""
    )


def test_plan_measures_the_smallest_and_the_largest_trial(tmp_path, capsys):
    path = tmp_path / "tiny.toml"
    path.write_text(
        '[study]\nname = "tiny"\nseeds = [1]\n[trial]\ndataset = "digits"\nbatch_size = 16\n'
        "labelled_batch_size = 4\nwidth = 8\n[grid]\nqueue_size = [0, 20, 5_000]\n"
    )
    assert main(["plan", str(path), "--measure", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["forecast"]
    low, high = told["disk_bytes"]
    assert high - low > 3 * 4 * 5_000 * 8
    assert 0 < told["trial_hours"][0] < told["trial_hours"][1]


def test_a_search_has_no_trial_to_look_inside_beforehand(capsys):
    assert main(["trial", str(SPACES / "four_way.toml"), "0000_abcdef"]) == 2
    assert "is a search" in capsys.readouterr().err


def test_plan_tells_a_search_by_its_space(capsys):
    assert main(["plan", str(SPACES / "four_way.toml")]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^queue_size +1,050 to 98,304 \(log\)", shown, re.M)
    assert re.search(r"^width +32 to 256 by 32", shown, re.M)
    assert "a search for val_probe_top1: sampler tpe, early stopping asha" in shown
    assert "ends after 60 trials" in shown


def test_confirm_writes_a_study_once(run_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for trial in plan_trials(run_folder.study()):
        run_folder.append_trial(ended(trial))
    assert main(["confirm", str(run_folder.path), "-k", "2", "--seeds", "4"]) == 0
    assert "12 trials: 3 conditions x 4 seeds" in capsys.readouterr().out
    study = load_study(tmp_path / "quickstart_confirm.toml")
    assert study.seeds == [4, 5, 6, 7]
    assert main(["confirm", str(run_folder.path), "-k", "2", "--seeds", "4"]) == 0
    assert main(["confirm", str(run_folder.path), "-k", "1"]) == 2
    assert "is there already" in capsys.readouterr().err
    # Another confirmation of the run is another study: they would share a run folder otherwise.
    assert main(["confirm", str(run_folder.path), "-k", "1", "-o", "only_one.toml"]) == 0
    assert load_study(tmp_path / "only_one.toml").name == "only_one"
    assert main(["confirm", str(run_folder.path), "-k", "1", "-o", "only one.toml"]) == 2
    assert "study.name = 'only one'" in capsys.readouterr().err
    assert not (tmp_path / "only one.toml").exists()


def test_confirm_says_that_the_best_may_change_yet(run_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for trial in plan_trials(run_folder.study())[3:10]:
        run_folder.append_trial(ended(trial))
    assert main(["confirm", str(run_folder.path), "-k", "1"]) == 0
    assert f"3 trials of {run_folder.path} have not ended" in capsys.readouterr().out


def test_status_says_when_the_budget_is_spent(run_folder, capsys):
    text = run_folder.study().text + "\n[budget]\ntrials = 3\n"
    run_folder.study_file.write_text(text)
    assert main(["status", str(run_folder.path)]) == 0
    assert "budget reached: 3 of 3 trials; raise [budget] trials" in capsys.readouterr().out


def test_status_counts_and_names_what_failed(run_folder, capsys):
    assert main(["status", str(run_folder.path)]) == 0
    shown = capsys.readouterr().out
    assert "quickstart: 12 trials: 1 finished, 1 failed, 1 interrupted, 9 waiting" in shown
    assert "MemoryError: [red]12 GiB[/red] :x:" in shown, "as it stands, no markup"
    with run_folder.lock():
        main(["status", str(run_folder.path)])
    assert "1 running" in capsys.readouterr().out


def test_status_as_json(run_folder, capsys):
    assert main(["status", str(run_folder.path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["counts"] == {"finished": 1, "failed": 1, "interrupted": 1, "waiting": 9}
    assert [row["status"] for row in told["trials"]][:4] == [
        "finished",
        "failed",
        "interrupted",
        "waiting",
    ]
    assert told["trials"][1]["error"].startswith("MemoryError")


def test_report_builds_where_it_is_told_to(run_folder, tmp_path, capsys):
    assert main(["report", str(run_folder.path), "-o", str(tmp_path / "page")]) == 0
    shown = capsys.readouterr().out
    assert "Interim, 1 of 12 trials finished" in shown
    assert {path.name for path in (tmp_path / "page").iterdir()} == {
        *("index.html", "trials.csv", "epochs.csv", "summary.md", "table.tex"),
        *("analysis.json", "environment.json", "study.toml"),
    }
    header = (tmp_path / "page" / "trials.csv").read_text().splitlines()[0]
    wanted = ["trial_id", "status", "seed", "queue_size", "val_probe_top1", "test_probe_top1"]
    assert header.split(",")[:7] == [*wanted, "seconds"]


def test_reports_of_runs_of_the_same_name_do_not_replace_each_other(run_folder, tmp_path):
    other = RunFolder.create(tmp_path / "b" / "quickstart").keep(load_study(QUICKSTART))
    pages = tmp_path / "pages"
    assert main(["report", str(run_folder.path), str(other.path), "-o", str(pages)]) == 0
    assert (pages / "quickstart-1" / "index.html").exists()
    assert (pages / "quickstart-2" / "index.html").exists()


def test_a_run_with_nothing_to_do_shows_the_study_file_of_today(tmp_path, capsys):
    folder = run_of(tmp_path / "made", **columns([0.85, 0.86]))
    file = tmp_path / "made.toml"
    words = ["run", str(file), "--storage", str(tmp_path)]
    file.write_text(folder.study().text)
    assert main(words) == 0
    file.write_text(folder.study().text.replace("[trial]", "margin_points = 0.25\n[trial]", 1))
    assert main(words) == 0
    analysis = json.loads((folder.report / "analysis.json").read_text())
    assert analysis["study"]["margin"] == pytest.approx(0.0025)


def test_where_no_trial_may_begin_those_that_had_begun_go_on(tmp_path, monkeypatch, capsys):
    folder = make_search(tmp_path / "hunt", [0.7 + 0.01 * n for n in range(10)] + [2, 3])
    file = tmp_path / "hunt.toml"
    file.write_text(folder.study().text)
    ran = []
    monkeypatch.setattr(engine, "run_study", lambda study, folder, todo, *_: ran.extend(todo))
    assert main(["run", str(file), "--storage", str(tmp_path)]) == 0
    assert [trial.id for trial in ran] == [trial.id for trial in folder.planned()[10:]]
    assert main(["status", str(folder.path)]) == 0
    assert "budget reached: 12 of 12 trials" in capsys.readouterr().out


def test_a_grid_whose_budget_is_spent_does_not_say_that_all_have_ended(tmp_path, capsys):
    folder = run_of(tmp_path / "made", q0=[0.8, 0.8], q500=[0.9, None])
    file = tmp_path / "made.toml"
    file.write_text(folder.study().text + "[budget]\ntrials = 3\n")
    assert main(["run", str(file), "--storage", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "budget reached: 3 of 3 trials" in shown
    assert "have ended" not in shown


def test_a_confirmation_is_not_written_over_a_folder(tmp_path, capsys):
    folder = make_search(tmp_path / "hunt", [0.7, 0.8])
    assert main(["confirm", str(folder.path), "-o", str(tmp_path)]) == 2
    assert "cannot be written: Is a directory; name a file" in capsys.readouterr().err


def test_reports_of_several_runs_stand_side_by_side(run_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = RunFolder.create(tmp_path / "runs" / "other").keep(load_study(QUICKSTART))
    runs = [str(run_folder.path), str(other.path)]
    assert main(["report", *runs, "-o", str(tmp_path / "pages")]) == 0
    for name in ("quickstart", "other"):
        assert (tmp_path / "pages" / name / "index.html").exists()
    assert main(["report", *runs]) == 0
    assert (tmp_path / "comparison" / "comparison.html").exists()
    assert (run_folder.report / "index.html").exists()
    assert (other.report / "index.html").exists()


@pytest.mark.parametrize(
    "argv, code, said",
    [
        (["plan", "nope.toml"], 2, "nope.toml has a problem"),
        (["run", "nope.toml"], 2, "cannot be read"),
        (["status", "nope"], 2, "no run folder"),
        (["report", "nope"], 2, "no run folder"),
        (["trial", str(QUICKSTART), "nope"], 2, "'nope' is no trial of this study"),
        (["run", str(QUICKSTART), "--workers", "0"], 2, "--workers"),
        (["run", str(QUICKSTART), "--runner", "dask"], 2, "--runner"),
        (["evaluate", "nope", "x"], 2, "nope is not there"),
        (["data", "cifar"], 2, 'did you mean "cifar10"?'),
        (["data", "digits", "--image-size", "3"], 2, "--image-size 3: "),
        (["data", "folder:a b", "--image-size", "32"], 2, "dataset 'folder:a b': use one of"),
        (["data", "folder:a b", "--image-size", "3"], 2, "dataset 'folder:a b': use one of"),
        (["data", "folder:nope"], 3, "no folder"),
        (["nope"], 2, "nope"),
        (["plan"], 2, "FILE"),
    ],
)
def test_what_a_user_gets_wrong_is_told_without_a_traceback(argv, code, said, capfd):
    assert main(argv) == code
    shown = capfd.readouterr()
    assert said in shown.err
    assert "Traceback" not in shown.err


def test_a_study_that_has_ended_is_not_started_again(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)  # an import of it would fail
    study = load_study(QUICKSTART)
    folder = RunFolder.create(tmp_path / "quickstart").keep(study)
    for trial in plan_trials(study):
        folder.append_trial(ended(trial))
    argv = ["run", str(QUICKSTART), "--storage", str(tmp_path)]
    assert main(argv) == 0
    first = capsys.readouterr().out
    page = folder.report / "index.html"
    page.write_text("from before the last row")  # it was killed then
    assert main(argv) == 0
    second = capsys.readouterr().out
    assert "12 of 12 trials" in page.read_text()
    for shown in (first, second):
        assert "all 12 trials have ended: 12 finished, 0 failed" in shown
        assert str(tmp_path / "quickstart" / "report" / "index.html") in shown
    assert folder.sessions() == []
    folder.append_trial(ended(plan_trials(study)[0], "failed"))
    assert main(argv) == 1
    assert "--retry-failed" in capsys.readouterr().out


def test_a_folder_in_use_is_left_alone(tmp_path, capsys):
    folder = RunFolder.create(tmp_path / "quickstart").keep(load_study(QUICKSTART))
    other = tmp_path / "other.toml"
    other.write_text(QUICKSTART.read_text().replace("seeds = [1, 2, 3]", "seeds = [4]"))
    with folder.lock():
        assert main(["run", str(other), "--storage", str(tmp_path)]) == 2
    assert "in use by `run`, process" in capsys.readouterr().err
    assert folder.study().seeds == [1, 2, 3], "the study at work is not overwritten"


def test_one_trial_runs_without_ray_and_records_nothing(tmp_path, capsys, monkeypatch):
    (tmp_path / "one.toml").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    (trial,) = plan_trials(load_study(tmp_path / "one.toml"))
    assert main(["trial", "one.toml", trial.id[:-3]]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[1]["test_probe_top1"] is not None
    assert [path.name for path in tmp_path.iterdir()] == ["one.toml"]


def test_data_prepares_and_shows_what_is_there(tmp_path, capsys):
    argv = ["data", "synthetic", "--data", str(tmp_path)]
    assert main(argv) == 0
    shown = capsys.readouterr().out
    for line in ("unlabelled   4,000  12.3", "train        1,000   3.1", "10 classes: wave 0, "):
        assert line in shown
    assert main([*argv, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sha256"][:16] in shown
    assert told["parts"]["test"]["images_of_class"] == [100] * 10
    for name in ("path", "contact_sheet"):
        assert Path(told[name]).exists()
        assert told[name] in shown
    assert main(["data", "digits", "--data", str(tmp_path)]) == 0
    assert "all    1,797" in capsys.readouterr().out


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A run folder of two trials, the first with a checkpoint after one epoch of two."""
    from nnclr_study.trainer import checkpoint, protocols
    from nnclr_study.trainer.data import load_dataset
    from nnclr_study.trainer.loop import train
    from nnclr_study.trainer.world import World

    monkeypatch.setattr(protocols, "STEPS", 2)
    file = tmp_path / "two.toml"
    file.write_text(TINY.replace("seeds = [1]", "seeds = [1, 2]"))
    folder = RunFolder.create(tmp_path / "runs" / "one").keep(load_study(file))
    first = plan_trials(folder.study())[0]
    snapshot = next(train(first.config, load_dataset(first.config, tmp_path), World()))
    checkpoint.save(snapshot, folder.checkpoint(first.id))
    return folder, first.id


def test_evaluate_scores_records_and_does_not_score_again(trained, capsys):
    folder, trial_id = trained
    argv = ["evaluate", str(folder.path), "s1", "--protocol", "supervised-10"]
    argv += ["--protocol", "finetune-10", "--protocol", "knn"]
    assert main(argv) == 0
    shown = capsys.readouterr().out
    assert f"{trial_id}, after epoch 1 of 2: it has not finished" in shown
    assert "points on test over never pretrained" in shown
    assert "scored before" not in shown
    assert len(folder.evaluations()) == 3
    assert main(argv) == 0
    assert capsys.readouterr().out.count("scored before") == 3
    assert main([*argv, "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["protocol"] for row in told] == ["supervised-10", "finetune-10", "knn"]
    assert len((folder.path / "evaluations.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    "trial, more, said",
    [
        ("s3", [], "'s3' is no trial of this study"),
        ("s", [], "'s' is the beginning of several"),
        ("s2", [], "it has not begun, or its checkpoint was left elsewhere"),
        ("s1", ["--protocol", "finetune-5"], "--protocol finetune-5: use one of linear, knn"),
    ],
)
def test_what_evaluate_cannot_do_is_told(trained, capsys, trial, more, said):
    folder, _ = trained
    assert main(["evaluate", str(folder.path), trial, *more]) == 2
    assert said in capsys.readouterr().err


def test_evaluate_leaves_a_folder_in_use_alone(trained, capsys):
    folder, _ = trained
    with folder.lock():
        assert main(["evaluate", str(folder.path), "s1", "--protocol", "knn"]) == 2
    assert "in use by `run`, process" in capsys.readouterr().err


def test_run_warns_of_knobs_without_effect_once_at_its_start(tmp_path, monkeypatch, capsys):
    path = tmp_path / "inert.toml"
    trial = '[trial]\ndataset = "digits"\nbatch_size = 32\nlabelled_batch_size = 8\n'
    study = f'[study]\nname = "inert"\nseeds = [1, 2, 3]\n{trial}'
    path.write_text(f"{study}[grid]\noptimizer_momentum = [0.9, 0.5]\n")
    monkeypatch.setattr("nnclr_study.sweep.engine.run_study", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(path)]) == 0
    said = capsys.readouterr().err
    assert said.count("warning: optimizer_momentum has no effect with optimizer = adam") == 1
    assert Path("runs/inert/report/index.html").is_file()


def test_a_warning_is_printed_once_by_each_command_that_meets_it_often(
    run_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with (run_folder.path / "trials.jsonl").open("a") as file:
        file.write("{damaged\n")
    read = RunFolder.trials

    def read_twice(*arguments):
        read(*arguments)
        with warnings.catch_warnings():  # as libraries do: Python forgets what it has shown
            warnings.simplefilter("ignore")
        return read(*arguments)

    monkeypatch.setattr(RunFolder, "trials", read_twice)
    for command in ("status", "report", "confirm"):
        main([command, str(run_folder.path)])
        assert capsys.readouterr().err.count("trials.jsonl, line 3, is no row") == 1, command
