"""`optuna.journal`, which mirrors rows: deleted or damaged at any time, it is made again."""

from pathlib import Path
from threading import Thread

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from nnclr_study.errors import RunFolderError, RunFolderWarning
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study
from nnclr_study.sweep.mirror import Mirror
from nnclr_study.sweep.suggestions import searched
from tests.study.test_run_folder import ended, epoch
from tests.study.test_search import SEARCH
from tests.study.test_spec import GOOD


def opened(path, text=GOOD):
    study = parse_study(text, "x.toml")
    return study, RunFolder.create(path / study.name).keep(study)


def shown(folder):
    """Return what optuna-dashboard would show of a run folder."""
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder.optuna)))
    (study,) = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=study, storage=storage).get_trials()
    return [(t.user_attrs["trial_id"], t.state, t.values, t.intermediate_values) for t in trials]


def delete(path):
    path.unlink()


def empty(path):
    path.write_text("")


def cut(path):
    path.write_bytes(path.read_bytes()[:-10])


def behead(path):
    path.write_bytes(path.read_bytes().partition(b"\n")[2])


def garble(path):
    path.write_bytes(b"\xff\x00rubbish\n" * 10_000)


def replace_by_another(path):
    other = Path(f"{path}.other")
    Mirror(parse_study(GOOD.replace('"good"', '"other"'), "x"), RunFolder(other))
    path.write_bytes((other / "optuna.journal").read_bytes() * 100)


DAMAGES = [delete, empty, cut, behead, garble, replace_by_another]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("moment", ["begin", "epoch", "end"])
def test_a_journal_damaged_in_mid_run_is_whole_after_the_next_log(tmp_path, damage, moment):
    study, folder = opened(tmp_path)
    first, second = plan_trials(study)[:2]
    (folder.path / "optuna.journal.other").mkdir()
    mirror = Mirror(study, folder)
    mirror.begin(first)
    for when, work in {
        "begin": lambda: mirror.begin(second),
        "epoch": lambda: mirror.epoch(first.id, epoch(1)),
        "end": lambda: mirror.end(ended(first), epoch(1)),
    }.items():
        if when == moment:
            damage(folder.optuna)
        work()
    assert shown(folder) == [
        (first.id, TrialState.COMPLETE, [0.5], {1: 0.5}),
        (second.id, TrialState.RUNNING, None, {}),
    ]


def test_a_lock_that_somebody_deletes_is_no_error(tmp_path, monkeypatch):
    study, folder = opened(tmp_path)
    mirror = Mirror(study, folder)
    monkeypatch.setattr("os.fsync", lambda _: Path(f"{folder.optuna}.lock").unlink())
    mirror.begin(plan_trials(study)[0])
    assert len(shown(folder)) == 1


def test_a_search_goes_on_without_its_journal(tmp_path):
    study, folder = opened(tmp_path, SEARCH)
    mirror = Mirror(study, folder)
    trials = searched(study, folder, mirror, [])
    for _ in range(3):
        trial = next(trials)
        folder.optuna.unlink()
        mirror.epoch(trial.id, epoch(1))
        folder.optuna.unlink()
        mirror.end(ended(trial), epoch(1))
    assert len(shown(folder)) == 3
    assert len({trial_id for trial_id, *_ in shown(folder)}) == 3


def test_another_program_s_logs_stay(tmp_path):
    study, folder = opened(tmp_path)
    mirror = Mirror(study, folder)
    other = optuna.storages.JournalStorage(JournalFileBackend(str(folder.optuna)))
    other.set_study_user_attr(0, "note", "of the dashboard")
    mirror.begin(plan_trials(study)[0])
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder.optuna)))
    assert storage.get_study_user_attrs(0) == {"note": "of the dashboard"}
    assert len(shown(folder)) == 1


def test_logs_that_another_program_adds_are_taken_in_before_ours(tmp_path):
    study, folder = opened(tmp_path, SEARCH)
    mirror = Mirror(study, folder)
    trials = searched(study, folder, mirror, [])
    next(trials)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder.optuna)))
    other = optuna.load_study(study_name=study.name, storage=storage)
    other.enqueue_trial({"queue_size": 77})
    assert len(mirror.study.get_trials()) == 2
    other.add_trial(optuna.create_trial(value=0.5))
    asked = mirror.study.ask()
    mirror.study.tell(asked, 0.75)
    assert asked.number == 1, "the trial that was enqueued"
    mirror.study.add_trial(optuna.create_trial(value=0.25))
    values = [trial.value for trial in other.get_trials()]
    assert values == [None, 0.75, 0.5, 0.25]
    assert [trial.value for trial in mirror.study.get_trials()] == values


def test_a_study_that_is_deleted_in_mid_run_is_made_again(tmp_path):
    study, folder = opened(tmp_path)
    first, second = plan_trials(study)[:2]
    mirror = Mirror(study, folder)
    mirror.begin(first)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder.optuna)))
    optuna.delete_study(study_name=study.name, storage=storage)
    mirror.begin(second)
    assert [trial_id for trial_id, *_ in shown(folder)] == [first.id, second.id]


@pytest.mark.parametrize("tail", [b'{"op_code": 2, "wor', b"rubbish\n", b"[]\n"])
def test_what_follows_our_logs_and_is_not_one_is_dropped_by_the_next_one(tmp_path, tail):
    study, folder = opened(tmp_path)
    mirror = Mirror(study, folder)
    with folder.optuna.open("ab") as file:
        file.write(tail)
    assert mirror.study.get_trials() == []
    mirror.begin(plan_trials(study)[0])
    assert len(shown(folder)) == 1
    assert tail not in folder.optuna.read_bytes()


def test_a_lock_that_leads_nowhere_is_not_waited_for_in_mid_run(tmp_path):
    study, folder = opened(tmp_path)
    mirror = Mirror(study, folder)
    Path(f"{folder.optuna}.lock").symlink_to("runs/good/optuna.journal")
    thread = Thread(target=mirror.begin, args=(plan_trials(study)[0],), daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert len(shown(folder)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "{}\n",
        '{"op_code": 99}\n',
        '{"op_code": 0, "worker_id": "w", "study_name": "good", "directions": [9]}\n',
        '{"op_code": 0, "worker_id": "w", "study_name": "good", "directions": "maximize"}\n',
        '{"op_code": [], "worker_id": {}}\n',
    ],
)
def test_a_journal_that_optuna_cannot_replay_is_set_aside_and_made_again(tmp_path, text):
    study, folder = opened(tmp_path)
    trial = plan_trials(study)[0]
    folder.append_epoch(trial.id, epoch(1))
    folder.append_trial(ended(trial))
    folder.optuna.write_text(text)
    with pytest.warns(RunFolderWarning, match=r"optuna\.journal is not a journal that Optuna"):
        Mirror(study, folder)
    assert shown(folder) == [(trial.id, TrialState.COMPLETE, [0.5], {1: 0.5})]
    assert (folder.path / "optuna.journal.bad").read_text() == text


def test_an_earlier_journal_that_was_set_aside_is_kept(tmp_path):
    study, folder = opened(tmp_path)
    for text in ("{}\n", '{"op_code": 99}\n'):
        folder.optuna.write_text(text)
        with pytest.warns(RunFolderWarning, match=r"kept as optuna\.journal\.bad"):
            Mirror(study, folder)
    assert (folder.path / "optuna.journal.bad").read_text() == "{}\n"
    assert (folder.path / "optuna.journal.bad1").read_text() == '{"op_code": 99}\n'


def test_an_error_without_a_journal_is_not_blamed_on_it(tmp_path, monkeypatch):
    study, folder = opened(tmp_path)

    def fail(*_):
        raise ValueError("of another kind")

    monkeypatch.setattr(Mirror, "_open", fail)
    with pytest.raises(ValueError, match="of another kind"):
        Mirror(study, folder)


def test_a_journal_without_its_beginning_is_made_again_at_the_next_start(tmp_path):
    study, folder = opened(tmp_path)
    trial = plan_trials(study)[0]
    mirror = Mirror(study, folder)
    mirror.begin(trial)
    folder.append_epoch(trial.id, epoch(1))
    folder.append_trial(ended(trial))
    behead(folder.optuna)
    Mirror(study, folder)
    assert shown(folder) == [(trial.id, TrialState.COMPLETE, [0.5], {1: 0.5})]


def test_a_journal_that_cannot_be_written_is_reported_in_a_line(tmp_path):
    study, folder = opened(tmp_path)
    mirror = Mirror(study, folder)
    folder.optuna.unlink()
    folder.optuna.mkdir()
    with pytest.raises(RunFolderError, match=r"optuna\.journal cannot be written: Is a directory"):
        mirror.begin(plan_trials(study)[0])
