"""The run folder: what was written is read, whatever killed the writer."""

import fcntl
import json
import multiprocessing
from datetime import UTC, datetime
from threading import Timer

import pytest

from nnclr_study.errors import RunFolderError, RunFolderWarning
from nnclr_study.study import lines
from nnclr_study.study.plan import plan_trials, suggested_trial
from nnclr_study.study.rows import EpochRow, EvaluationRow, Session, Suggestion, TrialRow
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study
from tests.study.test_search import SEARCH
from tests.study.test_spec import GOOD


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "runs" / "good").keep(parse_study(GOOD, "good.toml"))


def epoch(number, top1=0.5):
    return EpochRow(
        epoch=number,
        **dict.fromkeys(("c_loss", "c_acc", "r_acc", "p_loss", "p_acc"), 0.25),
        **dict.fromkeys(("val_p_loss", "val_p_acc"), 0.25),
        val_probe_top1=top1,
        train_seconds=1.0,
        seconds=1.5,
    )


def ended(trial, status="finished"):
    return TrialRow(
        trial_id=trial.id,
        status=status,
        seed=trial.config.seed,
        config=trial.config.model_dump(),
        epochs=1,
        val_probe_top1=0.5,
        test_probe_top1=0.5,
        seconds=1.5,
        session=0,
        ended_at=datetime.now(UTC),
    )


def session(gpus_per_trial=0.0):
    return Session(
        started_at=datetime.now(UTC),
        command="nnclr-study run x.toml",
        versions={},
        commit=None,
        machine="here",
        cpus=2,
        gpus=0,
        nodes=1,
        runner="in-process",
        workers=1,
        gpus_per_trial=gpus_per_trial,
        max_concurrent=2,
    )


def test_rows_come_back_as_they_went_in(folder):
    trial, other = plan_trials(folder.study())[:2]
    folder.append_epoch(trial.id, epoch(1))
    folder.append_epoch(other.id, epoch(1, 0.75))
    folder.append_epoch(trial.id, epoch(2))
    folder.append_trial(ended(trial))
    read = RunFolder.open(folder.path)
    assert read.epochs() == {trial.id: [epoch(1), epoch(2)], other.id: [epoch(1, 0.75)]}
    assert list(read.trials()) == [trial.id]
    assert read.study().text == GOOD


def test_the_last_row_of_a_trial_counts(folder):
    trial = plan_trials(folder.study())[0]
    folder.append_trial(ended(trial, "failed"))
    folder.append_trial(ended(trial))
    assert folder.trials()[trial.id].status == "finished"


def test_a_torn_line_is_no_row_and_is_cut_off_by_the_next_writer(folder):
    folder.append_epoch("a", epoch(1))
    path = folder.path / "epochs.jsonl"
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole + whole[:cut])
        assert folder.epochs() == {"a": [epoch(1)]}
        folder.append_epoch("a", epoch(2))
        assert folder.epochs() == {"a": [epoch(1), epoch(2)]}
    path.write_bytes(whole[:-5])
    folder.append_epoch("b", epoch(1))
    assert folder.epochs() == {"b": [epoch(1)]}


@pytest.mark.parametrize("line", [b"rubbish\n", b"[1]\n", b'{"trial_id": "a", "epoch": 1}\n'])
def test_a_line_that_is_no_row_is_named_with_its_place_and_set_aside(folder, line):
    folder.append_epoch("a", epoch(1))
    with (folder.path / "epochs.jsonl").open("ab") as file:
        file.write(line)
    folder.append_epoch("a", epoch(2))
    with pytest.warns(RunFolderWarning, match=r"epochs\.jsonl, line 2, is no row"):
        assert folder.epochs() == {"a": [epoch(1), epoch(2)]}
    with pytest.warns(RunFolderWarning, match=r"epochs\.jsonl, line 2, is no row"):
        assert folder.epoch_seconds() == {"a": {1: 1.5, 2: 1.5}}


def test_what_is_no_run_folder_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match=r"no study\.toml"):
        RunFolder.open(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="--storage"):
        RunFolder.create(tmp_path / "file" / "run").keep(parse_study(GOOD, "good.toml"))


def test_a_lock_that_cannot_be_had_is_named(folder):
    (folder.path / "lock").mkdir()
    with pytest.raises(RunFolderError, match="--storage"), folder.lock():
        pass


def hold(folder, held, release):
    with folder.lock():
        held.set()
        release.wait(20)


def test_a_second_run_is_refused_and_told_by_whom(folder):
    assert not folder.is_running()
    spawn = multiprocessing.get_context("spawn")
    held, release = spawn.Event(), spawn.Event()
    other = spawn.Process(target=hold, args=(folder, held, release))
    other.start()
    try:
        assert held.wait(20)
        assert folder.is_running()
        with pytest.raises(RunFolderError, match=f"process {other.pid} on "), folder.lock():
            pass
    finally:
        other.kill()  # as a crash would: the lock goes with its process
        other.join()
    assert not folder.is_running()
    with folder.lock():
        assert folder.is_running()
    assert not folder.is_running()


def test_an_evaluate_is_no_run(folder):
    with folder.lock("evaluate"):
        assert not folder.is_running()
        with pytest.raises(RunFolderError, match="in use by `evaluate`, process"), folder.lock():
            pass
    with folder.lock():
        assert folder.is_running()


def test_evaluations_come_back_by_trial_protocol_and_epoch(folder):
    trial = plan_trials(folder.study())[0]
    rows = [
        EvaluationRow(
            trial_id=trial.id,
            protocol=protocol,
            epoch=epoch,
            labels=10,
            val_top1=0.5,
            test_top1=0.25,
            chosen={"step": 100, "learning_rate": 1e-3},
            seconds=1.0,
            device="cpu",
            ended_at=datetime.now(UTC),
        )
        for protocol, epoch in (("knn", 1), ("knn", 2), ("finetune-1", 2))
    ]
    assert folder.evaluations() == {}
    for row in rows:
        folder.append_evaluation(row)
    assert list(folder.evaluations().values()) == rows
    assert folder.evaluations()[trial.id, "knn", 2] == rows[1]


def test_a_finished_study_takes_more_seeds_and_conditions(folder):
    folder.append_trial(ended(plan_trials(folder.study())[0]))
    more = GOOD.replace("[1, 2]", "[2, 1, 3]").replace("[0, 40, 100]", "[0, 200]")
    more = more.replace("seeds", 'question = "More?"\nbaseline = { queue_size = 200 }\nseeds', 1)
    more = more.replace("temperature = [0.1, 1]", "temperature = [0.1]")
    assert folder.keep(parse_study(more, "good.toml")).study().text == more


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("batch_size = 32\n", "batch_size = 24\n", "batch_size was 32, and is now 24"),
        ('dataset = "digits"', 'dataset = "digits"\nwidth = 16', "width was left out, and is now"),
        ("temperature = [0.1, 1]", "", "it varied queue_size, temperature, and now queue_size"),
    ],
)
def test_a_finished_study_refuses_what_would_make_its_rows_incomparable(
    folder, before, after, says
):
    changed = parse_study(GOOD.replace(before, after, 1), "good.toml")
    trial = plan_trials(folder.study())[0]
    folder.append_trial(ended(trial))
    with pytest.raises(RunFolderError, match=says):
        folder.keep(changed)
    assert folder.study().text == GOOD


def test_a_finished_study_s_own_file_may_not_be_edited_into_another(folder):
    folder.append_trial(ended(plan_trials(folder.study())[0]))
    edited = GOOD.replace("batch_size = 32\n", "batch_size = 24\n", 1)
    folder.study_file.write_text(edited)
    with pytest.raises(RunFolderError, match="batch_size was 32, and is now 24"):
        folder.keep(parse_study(edited, folder.study_file))
    more = GOOD.replace("[1, 2]", "[2, 3]").replace("[0, 40, 100]", "[0, 200]")
    folder.study_file.write_text(more)
    assert folder.keep(parse_study(more, folder.study_file)).study().seeds == [2, 3]


def test_a_study_in_which_nothing_finished_may_change_altogether(folder):
    folder.append_trial(ended(plan_trials(folder.study())[0], "failed"))
    changed = GOOD.replace("batch_size = 32", "batch_size = 24", 1)
    assert folder.keep(parse_study(changed, "good.toml")).study().text == changed


def test_a_search_that_has_begun_is_not_changed_into_another(tmp_path):
    study = parse_study(SEARCH, "hunt.toml")
    folder = RunFolder.create(tmp_path / "hunt").keep(study)
    shorter = parse_study(SEARCH.replace("epochs = 18", "epochs = 9"), "hunt.toml")
    folder.keep(shorter).keep(study)
    trial = suggested_trial(study, 0, {"queue_size": 100, "optimizer": "adam"})
    folder.append_suggestion(Suggestion(trial_id=trial.id, number=0, params=trial.condition))
    with pytest.raises(RunFolderError, match=r"holds 1 begun trial.*epochs was 18, and is now 9"):
        folder.keep(shorter)
    for before, after, says in (
        ("seeds = [7]", "seeds = [8]", "its seed was 7, and is now 8"),
        (
            "[search]\n",
            "[search]\nmax_memory_gb = 2.0\n",
            "max_memory_gb was left out, and is now 2",
        ),
    ):
        changed = parse_study(SEARCH.replace(before, after, 1), "hunt.toml")
        with pytest.raises(RunFolderError, match=says):
            folder.keep(changed)


def test_who_only_asks_whether_a_run_is_at_work_keeps_none_out(folder):
    with (folder.path / "lock").open("a+") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        Timer(0.1, asking.close).start()
        with folder.lock():
            assert folder.is_running()


def test_a_search_s_trials_are_those_it_began(tmp_path):
    study = parse_study(SEARCH, "hunt.toml")
    folder = RunFolder.create(tmp_path / "hunt").keep(study)
    assert folder.planned() == []
    params = {"queue_size": 100, "optimizer": "adam"}
    trial = suggested_trial(study, 0, params)
    folder.append_suggestion(Suggestion(trial_id=trial.id, number=0, params=params))
    assert folder.planned() == [trial]
    assert RunFolder.open(folder.path).planned(study) == [trial]


def test_an_accuracy_beyond_1_is_set_aside(folder):
    trial = plan_trials(folder.study())[0]
    row = ended(trial).model_dump(mode="json") | {"val_probe_top1": 1e160}
    (folder.path / "trials.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.warns(RunFolderWarning):
        assert folder.trials() == {}


def test_a_trial_that_ended_after_more_epochs_than_planned_is_set_aside(folder):
    planned = folder.planned()
    trial, other = planned[:2]
    folder.append_trial(ended(trial).model_copy(update={"epochs": trial.config.epochs + 1}))
    folder.append_trial(ended(other).model_copy(update={"epochs": other.config.epochs}))
    with pytest.warns(RunFolderWarning, match=r"trials\.jsonl, line 1, .* of a trial of"):
        assert folder.trials(planned).keys() == {other.id}


def test_a_key_that_is_not_ours_is_shown_cut(folder):
    row = ended(plan_trials(folder.study())[0]).model_dump(mode="json")
    (folder.path / "trials.jsonl").write_text(
        json.dumps(row | {"config": {"k" * 9_000: 1}}) + "\n"
    )
    with pytest.warns(RunFolderWarning, match=r"line 1, .*: config\.kkk") as told:
        assert folder.trials() == {}
    assert len(str(told[0].message)) < 1_000


def test_text_that_is_no_utf_8_is_kept_as_what_it_is(folder):
    trial = plan_trials(folder.study())[0]
    row = TrialRow(**ended(trial, "failed").model_dump() | {"error": "no gr\udcf6\udcdfe.png"})
    folder.append_trial(row)
    assert folder.trials()[trial.id].error == "no gr\\udcf6\\udcdfe.png"


def test_a_file_that_is_too_large_is_not_kept_in_memory(folder, monkeypatch):
    folder.append_epoch("a", epoch(1))
    path = folder.path / "epochs.jsonl"
    monkeypatch.setattr(lines, "MOST_KEPT", path.stat().st_size - 1)
    with folder.lock():
        folder.append_epoch("a", epoch(2))
        assert folder.epochs() == {"a": [epoch(1), epoch(2)]}
        path.unlink()
        folder.mend()
        assert not path.exists()
        folder.append_epoch("a", epoch(3))
    assert folder.epochs() == {"a": [epoch(3)]}


def test_a_file_that_grew_too_large_meanwhile_is_kept_no_longer(folder, monkeypatch):
    folder.append_epoch("a", epoch(1))
    path = folder.path / "epochs.jsonl"
    with folder.lock():
        monkeypatch.setattr(lines, "MOST_KEPT", path.stat().st_size)
        path.write_bytes(path.read_bytes() * 2)
        folder.append_epoch("a", epoch(2))
    assert folder.epochs() == {"a": [epoch(1), epoch(2)]}


@pytest.mark.parametrize("torn", [1, 15, 16, 17, 40])
def test_a_torn_end_of_several_blocks_is_cut_off(folder, monkeypatch, torn):
    folder.append_epoch("a", epoch(1))
    path = folder.path / "epochs.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b"x" * torn)
    with monkeypatch.context() as patch:
        patch.setattr(lines, "LONGEST", 16)
        folder.append_epoch("a", epoch(1))
    assert path.read_bytes() == whole * 2
    path.write_bytes(b"x" * torn)
    folder.append_epoch("a", epoch(1))
    assert path.read_bytes() == whole


def test_a_line_without_an_end_is_not_read_for_ever(folder):
    folder.append_epoch("a", epoch(1))
    with (folder.path / "epochs.jsonl").open("ab") as file:
        file.truncate(2**36)  # sparse: it takes no room
    with pytest.warns(RunFolderWarning, match=r"epochs\.jsonl, line 2, does not end"):
        assert folder.epochs() == {"a": [epoch(1)]}
    with (
        folder.lock(),
        pytest.raises(RunFolderError, match=r"its last 67,108,864 bytes have no line break"),
    ):
        folder.append_epoch("a", epoch(2))
