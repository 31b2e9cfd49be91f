"""Two runs on one folder of an object store: one goes on, the other is told, no row is lost."""

import json
import os
import tempfile
import time
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnclr_study.cli import main
from nnclr_study.errors import ClusterError, RunFolderError
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study
from nnclr_study.sweep import engine
from nnclr_study.sweep import lease as module
from nnclr_study.sweep.lease import EXPIRY_SECONDS, Lease
from nnclr_study.sweep.store import Store
from tests.study.test_run_folder import ended, epoch
from tests.study.test_spec import GOOD


@pytest.fixture
def there(tmp_path):
    return tmp_path / "there"


@pytest.fixture
def machine(tmp_path, there):
    """Return a function that makes the lease of a run on a machine of its own."""
    made = []

    def make(name):
        folder = RunFolder.create(tmp_path / name / "good").keep(parse_study(GOOD, "good.toml"))
        made.append(Lease(Store(f"file://{there}", "good"), folder.path))
        return made[-1]

    yield make
    for lease in made:
        lease.release()


def leases(there):
    return sorted((there / "good" / "leases").iterdir())


def let_pass(there, seconds):
    """Make every lease in the store older."""
    for path in leases(there):
        then = path.stat().st_mtime - seconds
        os.utime(path, (then, then))


def kill(lease):
    """End a run as SIGKILL does: its lease is neither renewed nor removed."""
    lease._over.set()
    lease._thread.join()


def test_a_second_run_is_refused_while_the_first_is_alive(machine, monkeypatch):
    first, second = machine("a"), machine("b")
    first.take()
    monkeypatch.setattr(module, "sleep", lambda _: first._renew())
    said = rf"there/good is in use by `run`, process {os.getpid()} on .*; wait for it to end"
    with pytest.raises(RunFolderError, match=said) as caught:
        second.take()
    assert caught.value.exit_code == 2
    assert not second.is_held
    first.push()
    first.release()
    second.take()
    second.push()


def test_a_lease_is_renewed_while_its_run_works(machine, there, monkeypatch):
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.01)
    machine("a").take()
    let_pass(there, 30)
    before = time.time() - 15
    until = time.monotonic() + 10
    while leases(there)[0].stat().st_mtime < before:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_the_lease_of_a_killed_run_expires(machine, there, monkeypatch):
    first, second = machine("a"), machine("b")
    first.take()
    kill(first)
    waited, said = [], []

    def sleep(seconds):
        waited.append(seconds)
        path = there / "good" / "leases" / first._name
        then = path.stat().st_mtime - seconds
        os.utime(path, (then, then))

    monkeypatch.setattr(module, "sleep", sleep)
    second.take(said.append)
    assert sum(waited) == pytest.approx(EXPIRY_SECONDS, abs=5)
    assert len(said) == 1
    assert said[0].startswith("waiting for up to 60 s: file:")
    assert [path.name for path in leases(there)] == [second._name]


@pytest.mark.parametrize("name", ["0", "g"], ids=["first by name", "last by name"])
def test_the_lease_of_a_run_that_was_killed_as_it_waited_expires(
    machine, there, monkeypatch, name
):
    waiting, second = machine("a"), machine("b")
    waiting._name = name
    waiting._written(held=False)
    said = []
    monkeypatch.setattr(module, "sleep", lambda _: let_pass(there, 20))
    second.take(said.append)
    assert len(said) == 1
    assert said[0].startswith("waiting for up to 60 s: file:")
    assert [path.name for path in leases(there)] == [second._name]


def test_a_run_gives_way_to_one_that_waits_before_it(machine, monkeypatch):
    waiting, second = machine("a"), machine("b")
    waiting._name = "0"
    waiting._written(held=False)
    monkeypatch.setattr(module, "sleep", lambda _: waiting._written(held=False))
    with pytest.raises(RunFolderError, match="is in use by"):
        second.take()


def test_a_run_that_follows_in_the_same_working_copy_does_not_wait(machine, monkeypatch):
    first, again = machine("a"), machine("a")
    first.take()
    kill(first)
    monkeypatch.setattr(module, "sleep", None)
    again.take()


def test_of_many_that_start_together_one_goes_on(machine, there, monkeypatch):
    monkeypatch.setattr(module, "ASK_SECONDS", 0.01)
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.02)
    for turn in range(5):
        runs, refused = [machine(f"{turn} {n}") for n in range(4)], []

        def start(run, refused=refused):
            try:
                run.take()
            except RunFolderError:
                refused.append(run)

        threads = [Thread(target=start, args=(run,)) for run in runs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        (held,) = [run for run in runs if run.is_held]
        assert len(refused) == 3
        assert [path.name for path in leases(there)] == [held._name]
        held.release()
        assert leases(there) == []


def test_a_run_that_lost_its_lease_stops_before_it_sends_and_keeps_its_rows(machine, there):
    first, second = machine("a"), machine("b")
    first.take()
    let_pass(there, EXPIRY_SECONDS + 1)  # as on a machine that was suspended
    second.take()
    folder = RunFolder(first._folder)
    folder.append_epoch("t", epoch(1))
    with pytest.raises(ClusterError, match=r"no longer holds .*every row is kept in") as caught:
        first.push()
    assert caught.value.exit_code == 3
    with pytest.raises(ClusterError):
        first.check()
    assert not first.is_held
    assert not (there / "good" / "epochs.jsonl").exists()
    assert folder.epochs() == {"t": [epoch(1)]}
    second.push()
    assert second.is_held


def test_a_run_that_wakes_as_another_takes_over_gives_way(machine, there, monkeypatch):
    first, second = machine("a"), machine("b")
    first.take()
    let_pass(there, EXPIRY_SECONDS + 1)
    second.take()
    (there / "good" / "leases" / first._name).write_text("{}")  # written as it was removed
    os.utime(there / "good" / "leases" / first._name, (1, 1))
    with pytest.raises(ClusterError):
        first.push()
    second.push()


def test_a_run_that_was_suspended_alone_goes_on(machine, there):
    lease = machine("a")
    lease.take()
    let_pass(there, 10 * EXPIRY_SECONDS)
    lease.push()
    lease.check()
    assert (there / "good" / "study.toml").read_text() == GOOD


def test_rows_are_not_recorded_once_the_lease_is_lost(machine, there):
    lease = machine("a")
    folder = RunFolder(lease._folder)
    lease.take()
    for path in leases(there):
        path.unlink()
    with pytest.raises(ClusterError):
        lease.push()
    with pytest.raises(ClusterError), folder.lock():
        folder.guards.append(lease.check)
        folder.append_epoch("t", epoch(1))
    assert folder.epochs() == {}


@pytest.mark.parametrize("text", ["", "[", "[1]", "{}", '{"by": 3}', "[" * 100_000])
def test_a_lease_that_says_nothing_counts_until_it_expires(machine, there, monkeypatch, text):
    (there / "good" / "leases").mkdir(parents=True)
    odd = there / "good" / "leases" / "0"
    odd.write_text(text)

    monkeypatch.setattr(module, "sleep", lambda _: odd.write_text(text))
    with pytest.raises(RunFolderError, match="in use by another `run`"):
        machine("a").take()
    let_pass(there, EXPIRY_SECONDS)
    machine("b").take()
    assert not odd.exists()


def test_leases_are_neither_sent_nor_brought(machine, tmp_path, there):
    lease = machine("a")
    (lease._folder / "leases").mkdir()
    (lease._folder / "leases" / "evil").touch()
    lease.take()
    lease.push()
    assert [path.name for path in leases(there)] == [lease._name]
    Store(f"file://{there}", "good").pull(tmp_path / "fresh")
    assert [path.name for path in (tmp_path / "fresh").iterdir()] == ["study.toml"]


def test_the_command_is_refused_and_later_goes_on(machine, tmp_path, there, monkeypatch, capsys):
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.02)
    monkeypatch.setattr(module, "ASK_SECONDS", 0.2)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "good.toml"
    file.write_text(GOOD)
    first = machine("a")
    first.take()
    for trial in plan_trials(parse_study(GOOD, "good.toml")):
        RunFolder(first._folder).append_trial(ended(trial))
    first.push()
    words = ["run", str(file), "--storage", f"file://{there}"]
    assert main(words) == 2
    assert "is in use by `run`, process" in capsys.readouterr().err
    assert first.is_held
    first.release()
    assert main(words) == 0
    assert "all 12 trials have ended" in capsys.readouterr().out
    assert leases(there) == []


@pytest.fixture
def command(tmp_path, there, monkeypatch):
    """Return a function that calls `run` with the object store and `work` in place of Ray's."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "good.toml"
    file.write_text(GOOD)

    def call(work):
        def run_study(study, folder, todo, *_):
            work(folder)
            for trial in todo:
                folder.append_trial(ended(trial))

        monkeypatch.setattr(engine, "run_study", run_study)
        return main(["run", str(file), "--storage", f"file://{there}"])

    return call


def test_an_older_and_longer_file_of_the_store_is_not_brought_after_a_run(
    command, machine, tmp_path, there
):
    first = machine("a")
    longer = GOOD + "# more\n"
    (first._folder / "study.toml").write_text(longer)
    (first._folder / "optuna.journal").write_text("{}\n" * 9)
    first.take()
    first.push()
    first.release()
    assert command(lambda folder: folder.optuna.write_text("{}\n")) == 0
    for folder in (tmp_path / "runs" / "good", there / "good"):
        assert (folder / "study.toml").read_text() == GOOD
        assert (folder / "optuna.journal").read_text() == "{}\n"


def test_a_run_folder_is_sent_while_it_is_locked(command, there, tmp_path, monkeypatch):
    push, locked = Lease.push, []

    def noted(lease):
        locked.append(RunFolder(lease._folder).is_running())
        push(lease)

    monkeypatch.setattr(Lease, "push", noted)
    assert command(lambda _: None) == 0
    assert locked == [True, True]
    here = tmp_path / "runs" / "good" / "report" / "index.html"
    assert (there / "good" / "report" / "index.html").read_bytes() == here.read_bytes()


@pytest.mark.parametrize("error, code", [(ClusterError("gone"), 3), (ValueError("a bug"), 70)])
def test_rows_are_sent_where_an_error_ends_a_run(command, there, capsys, error, code):
    def work(folder):
        folder.append_epoch("t", epoch(1))
        raise error

    assert command(work) == code
    assert str(error) in capsys.readouterr().err
    assert RunFolder(there / "good").epochs() == {"t": [epoch(1)]}
    assert leases(there) == []


def test_the_error_of_a_run_is_told_where_its_rows_cannot_be_sent(command, there, capsys):
    def work(folder):
        for path in leases(there):
            path.unlink()
        raise ClusterError("gone")

    assert command(work) == 3
    assert capsys.readouterr().err.splitlines()[-1] == "error: gone"


def machines(root):
    """Return two run folders and their stores, of which the second is another process's."""
    there = f"file://{root}/there"
    return [(RunFolder.create(root / name / "x"), Store(there, "x")) for name in "ab"]


STEPS = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from(["append", "end", "pull", "push"])), max_size=24
)


@given(steps=STEPS)
@settings(max_examples=60, deadline=None)
def test_no_order_of_pulls_and_pushes_loses_a_row(steps):
    trials = plan_trials(parse_study(GOOD, "good.toml"))
    with tempfile.TemporaryDirectory() as root:
        both = machines(Path(root))
        written = {"epochs.jsonl": set(), "trials.jsonl": set()}
        for number, (which, step) in enumerate(steps):
            folder, store = both[which]
            if step == "append":
                folder.append_epoch(f"t{which}", epoch(number + 1))
            elif step == "end":
                folder.append_trial(ended(trials[number % len(trials)]))
            else:
                getattr(store, step)(folder.path)
            for name, rows in written.items():
                if (folder.path / name).exists():
                    rows |= set((folder.path / name).read_text().splitlines())
        for folder, store in both:
            store.push(folder.path)
        for name, rows in written.items():
            there = Path(root) / "there" / "x" / name
            found = there.read_text().splitlines() if there.exists() else []
            assert set(found) == rows
            assert len(found) == len(rows), "none is there twice"
            for line in found:
                json.loads(line)


def test_a_short_file_never_replaces_the_rows_of_the_store(tmp_path):
    (first, store), (second, other) = machines(tmp_path)
    for number in (1, 2, 3):
        first.append_epoch("t", epoch(number))
    store.push(first.path)
    second.append_epoch("u", epoch(1))
    other.push(second.path)
    (first.path / "epochs.jsonl").write_text('{"torn')
    store.push(first.path)
    fresh = RunFolder.create(tmp_path / "fresh")
    store.pull(fresh.path)
    assert {t: len(rows) for t, rows in fresh.epochs().items()} == {"t": 3, "u": 1}
