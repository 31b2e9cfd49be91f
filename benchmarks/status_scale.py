"""What `nnclr-study status` takes of a large run folder: seconds, and the most memory.

Run with: python benchmarks/status_scale.py

Run folders of finished trials are made up, 5 epochs each. `cpu` is the seconds of the command's
own process, imports included; `seconds` is by the clock, and longer where other work shares the
machine. The target at 10,000 trials is 3 s.

Last result (AMD EPYC, 2 cores of a virtual machine on which other work ran beside, Python 3.11.7,
2026-11-24; best of 3):
 trials  seconds      cpu   memory
    100    0.54s    0.17s    37 MB
  1,000    0.78s    0.27s    47 MB
 10,000    1.79s    1.28s   155 MB
"""

import argparse
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

from common import machine

from nnclr_study.study.plan import plan_trials
from nnclr_study.study.rows import EpochRow, Session, TrialRow
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study

EPOCHS, SEEDS = 5, 10
STUDY = f"""
[study]
name = "scale"
seeds = {list(range(SEEDS))}
[trial]
dataset = "digits"
epochs = {EPOCHS}
batch_size = 32
labelled_batch_size = 8
[grid]
queue_size = """


def make(path: Path, count: int) -> None:
    """Write a run folder of so many finished trials."""
    study = parse_study(f"{STUDY}{list(range(100, 100 + count // SEEDS))}", "scale.toml")
    folder = RunFolder.create(path).keep(study)
    now = datetime.now(UTC)
    call = {"started_at": now, "command": "", "versions": {}, "commit": None, "machine": "made up"}
    call |= {"cpus": 2, "gpus": 0, "nodes": 1, "runner": "in-process", "workers": 1}
    folder.append_session(Session(**call, gpus_per_trial=0, max_concurrent=2))  # type: ignore[arg-type]
    numbers = ("c_loss", "c_acc", "r_acc", "p_loss", "p_acc", "val_p_loss", "val_p_acc")
    scores = dict.fromkeys((*numbers, "val_probe_top1", "train_seconds", "seconds"), 0.123456789)
    # Line by line as `append_epoch` writes them, but not each of them awaited on the disk.
    with (path / "epochs.jsonl").open("w") as epochs, (path / "trials.jsonl").open("w") as ended:
        for trial in plan_trials(study):
            for epoch in range(1, EPOCHS + 1):
                row = EpochRow(epoch=epoch, **scores)
                line = row.model_dump_json()
                epochs.write(f'{{"trial_id": "{trial.id}", {line[1:]}\n')
            last = TrialRow(
                trial_id=trial.id,
                status="finished",
                seed=trial.config.seed,
                config=trial.config.model_dump(),
                epochs=EPOCHS,
                val_probe_top1=0.5,
                test_probe_top1=0.5,
                seconds=0.5,
                session=0,
                ended_at=now,
            )
            ended.write(f"{last.model_dump_json()}\n")


CHILD = """
import resource, sys
from nnclr_study.cli import main
assert main(["status", sys.argv[1]]) == 0
used = resource.getrusage(resource.RUSAGE_SELF)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(used.ru_utime + used.ru_stime, int(peak.split()[1]) / 1024, file=sys.stderr)
"""


def measure(path: Path) -> tuple[float, float, float]:
    """Return the seconds of `status` by the clock and of its process, and its MB at most."""
    started = perf_counter()
    words = [sys.executable, "-c", CHILD, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    cpu, memory = map(float, done.stderr.split())
    return perf_counter() - started, cpu, memory


def main() -> None:
    """Measure run folders of several sizes, the best of three each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1_000, 10_000])
    args = parser.parse_args()
    print(machine())
    print(" trials  seconds      cpu   memory")
    for count in args.trials:
        with tempfile.TemporaryDirectory() as home:
            make(Path(home) / "scale", count)
            times = [measure(Path(home) / "scale") for _ in range(3)]
        seconds, cpu, memory = (min(column) for column in zip(*times, strict=True))
        print(f"{count:7,}  {seconds:6.2f}s  {cpu:6.2f}s  {memory:4.0f} MB")


if __name__ == "__main__":
    main()
