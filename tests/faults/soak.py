"""200 short trials in one `run`, whose trial processes are killed now and then.

Run with: python -m tests.faults.soak

After every ten trials the driver is measured, and the process of a trial, chosen at random among
those that were not hit before, gets a SIGKILL. All trials must finish; what the driver holds must
not grow with them.

Last result, 2026-11-25: AMD EPYC (2 cores of a virtual machine, others at work on it), Ray 2.60,
torch 2.14.1, Python 3.11.7:

      trials  kills    memory  threads  files  actors  groups
          10      1   1022 MB       32     35       1       2
          50      5   1030 MB       32     35       1       2
         100     10   1036 MB       32     35       1       2
         140     14   1045 MB       34     40       2       2
         190     19   1048 MB       32     35       1       2
    200 trials finished in 344 s, 19 of them after a kill, and nothing is left;
    driver memory from trial 50 on: +14.9 MB in 100 trials

It was some 35 MB in 100 trials while Tune kept statistics of every number of every row.
"""

import argparse
import os
import random
import signal
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import ray
from ray.util.state import list_actors, list_placement_groups
from ray.util.state.common import ActorState, PlacementGroupState

from nnclr_study.study.plan import plan_trials
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import load_study
from tests.processes import descendants, line_of
from tests.sweep.test_cluster import cluster, joined
from tests.sweep.test_engine import command

STUDY = """
[study]
name = "soak"
seeds = {seeds}
[trial]
dataset = "digits"
epochs = 2
steps_per_epoch = 2
batch_size = 32
labelled_batch_size = 8
width = 16
[grid]
queue_size = [0, 100]
"""
EVERY = 10
"""Trials from one sample to the next."""
WARM = 50
"""Trials after which memory should stay as it is."""


def main() -> None:
    """Run, kill, measure, and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    print(f"Ray {ray.__version__}, {datetime.now(UTC):%Y-%m-%d}, seed {asked.seed}")
    print(
        f"{'trials':>8}{'kills':>7}{'memory':>10}{'threads':>9}{'files':>7}{'actors':>8}{'groups':>8}"
    )
    with (
        tempfile.TemporaryDirectory() as path,
        cluster({"num_cpus": 2}) as made,
        joined(made),
    ):
        home = Path(path).resolve()
        (home / "soak.toml").write_text(STUDY.format(seeds=list(range(asked.trials // 2))))
        words = ("run", "soak.toml", "--address", made.address)
        began = time.monotonic()
        driver = subprocess.Popen(command(*words), cwd=home, stdout=subprocess.DEVNULL)
        ended = home / "runs" / "soak" / "trials.jsonl"
        samples: list[tuple[int, float]] = []
        known = {trial.id for trial in plan_trials(load_study(home / "soak.toml"))}
        hit: set[str] = set()
        for wanted in range(EVERY, asked.trials, EVERY):
            while lines(ended) < wanted:
                assert driver.poll() is None, f"`run` ended with {driver.returncode}"
                if len(hit) < wanted // EVERY:
                    kill_one(chance, known, hit)
                time.sleep(0.1)
            samples.append((lines(ended), tell(driver.pid, lines(ended), len(hit))))
        code = driver.wait()
        seconds = time.monotonic() - began
        rows = RunFolder.open(home / "runs" / "soak").trials().values()
        failed = {row.trial_id: row.error for row in rows if row.status != "finished"}
        assert (code, len(rows), failed) == (0, asked.trials, {}), (
            f"`run` ended with {code}: {failed}"
        )
        left = [actor.class_name for actor in alive_actors()]
        assert not left and not groups(), f"left behind: {left}, {groups()}"
    trials, megabytes = zip(*(s for s in samples if s[0] > WARM), strict=True)
    slope = np.polyfit(trials, megabytes, 1)[0] * 100
    print(
        f"{asked.trials} trials finished in {seconds:.0f} s, {len(hit)} of them after a kill, "
        "and nothing is left;"
    )
    print(f"driver memory from trial {WARM} on: {slope:+.1f} MB in 100 trials")


def lines(path: Path) -> int:
    """Return how many rows a file has."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def tell(driver: int, trials: int, kills: int) -> float:
    """Print what the driver and its cluster hold; return the driver's memory in MB."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{driver}/status").read_text().splitlines()
    )
    memory = int(status["VmRSS"].split()[0]) / 1024
    files = len(list(Path(f"/proc/{driver}/fd").iterdir()))
    print(
        f"{trials:8}{kills:7}{memory:7.0f} MB{int(status['Threads']):9}{files:7}"
        f"{len(alive_actors()):8}{len(groups()):8}",
        flush=True,
    )
    return memory


def here() -> str:
    """Return the address of the cluster that was joined: a machine may have others."""
    return str(ray.get_runtime_context().gcs_address)


def alive_actors() -> list[ActorState]:
    """Return the actors that run."""
    return list(list_actors(here(), filters=[("state", "=", "ALIVE")]))


def groups() -> list[PlacementGroupState]:
    """Return the placement groups that hold resources."""
    return list(list_placement_groups(here(), filters=[("state", "=", "CREATED")]))


def kill_one(chance: random.Random, known: set[str], hit: set[str]) -> None:
    """Kill the process of a trial that was not hit before: none may be given up."""
    there = {
        Path(f"/proc/{pid}/cwd").readlink().name: pid
        for pid in descendants(os.getpid())
        if "ray::ImplicitFunc" in line_of(pid)
    }
    if fresh := sorted(there.keys() & known - hit):
        trial = chance.choice(fresh)
        os.kill(there[trial], signal.SIGKILL)
        hit.add(trial)


if __name__ == "__main__":
    main()
