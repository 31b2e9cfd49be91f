"""`run` killed by SIGKILL at random moments, and called again until its study is done.

Run with: python -m tests.faults.kill_run

A call is killed up to a second after up to twelve new epochs, by chance, or before its first. The
next one follows at once, whatever the killed one left. When a study is done, its rows must be
those of the undisturbed study to the bit, each written once, and no row may ever have vanished; a
study in a new folder is next.

Last result, 2026-11-25: AMD EPYC (2 cores of a virtual machine, others at work on it), Ray 2.60,
torch 2.14.1, Python 3.11.7:

    25 kills, 4 studies: rows as undisturbed, and there once
    trials outlived a kill by at most 1.7 s, anything by at most 63.1 s

Those 63 seconds are of two agents of Ray (each about 100 MB, no CPU) that look for the cluster
that is gone; they hinder nobody.
"""

import argparse
import csv
import random
import subprocess
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import ray

from nnclr_study.study.rows import TrialRow
from nnclr_study.study.run_folder import RunFolder
from tests.processes import working_in
from tests.sweep.test_engine import command, rows

STUDY = """
[study]
name = "killed"
seeds = [1, 2]
[trial]
dataset = "digits"
epochs = 12
steps_per_epoch = 20
batch_size = 64
labelled_batch_size = 8
width = 16
[grid]
queue_size = [0, 100]
"""
PATIENCE_SECONDS = 180.0
"""For what a killed call started."""


def main() -> None:
    """Kill, check, and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    print(f"Ray {ray.__version__}, {datetime.now(UTC):%Y-%m-%d}, seed {asked.seed}", flush=True)
    outlived: list[Future[tuple[float, float]]] = []
    studies = 0
    with tempfile.TemporaryDirectory() as path, ThreadPoolExecutor() as watchers:
        here = Path(path).resolve()
        (here / "killed.toml").write_text(STUDY)
        undisturbed = RunFolder(here / "undisturbed" / "killed")
        process, began = start(undisturbed, here), time.monotonic()
        while process.poll() is None and not count(undisturbed):
            time.sleep(0.02)
        startup = time.monotonic() - began
        assert process.wait() == 0, "`run` failed"
        print(f"undisturbed: first epoch after {startup:.1f} s", flush=True)
        while len(outlived) < asked.kills:
            folder = RunFolder(here / f"study{studies}" / "killed")
            ended: dict[str, TrialRow] = {}
            while killed_in := killed(folder, *moment(chance, startup)):
                outlived.append(watchers.submit(watch, killed_in))
                assert ended.items() <= folder.trials().items(), "a row is lost"
                ended = folder.trials()
                told = f"{count(folder)} epochs, {len(ended)} trials"
                print(f"kill {len(outlived)}: {told}", flush=True)
            assert ended.items() <= folder.trials().items(), "a row is lost"
            check(folder, undisturbed)
            studies += 1
        times = [future.result() for future in outlived]
    print(f"{len(outlived)} kills, {studies} studies: rows as undisturbed, and there once")
    print(f"trials outlived a kill by at most {max(t for t, _ in times):.1f} s, ", end="")
    print(f"anything by at most {max(t for _, t in times):.1f} s")


def moment(chance: random.Random, startup: float) -> tuple[int, float]:
    """Return how many new epochs to wait for before a kill, and how long from then on.

    By epochs, as a call would otherwise often be killed before its trials have begun.
    """
    epochs = chance.randrange(13)
    return epochs, chance.uniform(0, 1 if epochs else startup)


def start(folder: RunFolder, cwd: Path) -> "subprocess.Popen[bytes]":
    """Begin a `run` of the study."""
    storage = folder.path.parent
    words = ["run", storage.parent / "killed.toml", "--storage", storage, "--runner", "in-process"]
    return subprocess.Popen(command(*words), cwd=cwd, stdout=subprocess.DEVNULL)


def killed(folder: RunFolder, epochs: int, seconds: float) -> Path | None:
    """Kill a `run` at a moment; return where it worked, or None: it was done by then."""
    cwd = Path(tempfile.mkdtemp(dir=folder.path.parents[1]))
    wanted = count(folder) + epochs
    process = start(folder, cwd)
    while process.poll() is None and count(folder) < wanted:
        time.sleep(0.02)
    try:
        assert process.wait(seconds) == 0, "`run` failed"
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return cwd
    return None


def count(folder: RunFolder) -> int:
    """Return how many epochs are recorded."""
    return sum(map(len, folder.epochs().values()))


def watch(cwd: Path) -> tuple[float, float]:
    """Return how long the trials of a killed call outlived it, and how long anything did."""
    began, trials = time.monotonic(), 0.0
    while alive := working_in(cwd):
        outlived = time.monotonic() - began
        assert outlived < PATIENCE_SECONDS, f"still there: {alive}"
        if any("ImplicitFunc" in line for line in alive):
            trials = outlived
        time.sleep(0.2)
    return trials, time.monotonic() - began


def check(folder: RunFolder, undisturbed: RunFolder) -> None:
    """Make sure that a study's rows are there once, and are those of the undisturbed one."""
    assert table(folder) == table(undisturbed)
    assert rows(folder.path) == rows(undisturbed.path)
    for name in ("trials.jsonl", "epochs.jsonl"):
        count, wanted = (
            len((f.path / name).read_text().splitlines()) for f in (folder, undisturbed)
        )
        assert count == wanted, f"{name} has {count} lines instead of {wanted}"


def table(folder: RunFolder) -> list[list[str]]:
    """Return what trials.csv says became of every trial."""
    said = ("trial_id", "status", "epochs_done", "val_probe_top1", "test_probe_top1")
    with (folder.report / "trials.csv").open(newline="") as file:
        return [[row[name] for name in said] for row in csv.DictReader(file)]


if __name__ == "__main__":
    main()
