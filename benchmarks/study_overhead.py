"""What a study costs beside its training steps: 12 trials of about a minute, two at a time.

Run with: python benchmarks/study_overhead.py

A study of the embedded digits is run by `nnclr-study run`. Slot time is the two slots' from the
command's start to its end; what is not in training steps is broken down by what the rows say.
`start` is from the command to the session (imports, Ray, images), `evaluation` the probe and the
other scores of each epoch, `gaps` what a slot spends around its trials' epochs (its process and
imports, loading images, checkpoints, rows), `tail` one slot's wait for the other's last trial,
`end` the report and the farewell.

Last result, 2026-11-24: AMD EPYC with AVX-512 (2 cores of a virtual machine), torch 2.14.1, Ray
2.60, Python 3.11.7, `--steps 400`. A process serves trial after trial, each in one thread, and the
page is built at most every 30 s:

    12 trials, 73 s of steps each, 2 slots
    slot time 950 s, of it steps 876 s
    overhead 7.8%:
        start        15.8 s    1.7%
        evaluation    9.8 s    1.0%
        tail         25.4 s    2.7%
        end           7.8 s    0.8%
        gaps         14.8 s    1.6%
"""

import argparse
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from common import machine

from nnclr_study.study.run_folder import RunFolder

STUDY = """
[study]
name = "overhead"
seeds = [1, 2, 3]

[trial]
dataset = "digits"
val_fraction = 0.5
epochs = 10
steps_per_epoch = {steps}
batch_size = 80
labelled_batch_size = 16
width = 32

[grid]
queue_size = [0, 100, 800, 3_200]
"""


def main() -> None:
    """Run the study and print where its time went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=330, help="in each of 10 epochs")
    parser.add_argument("--runner", default="auto", help="as `nnclr-study run` takes it")
    args = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "overhead.toml"
        file.write_text(STUDY.format(steps=args.steps))
        words = ["run", str(file), "--storage", folder, "--runner", args.runner]
        begun = datetime.now(UTC)
        subprocess.run([sys.executable, "-m", "nnclr_study.cli", *words, "--max-concurrent", "2"])
        over = datetime.now(UTC)
        run = RunFolder.open(Path(folder) / "overhead")
        (session,), trials, epochs = run.sessions(), list(run.trials().values()), run.epochs()

    slots = session.max_concurrent
    rows = [row for trial in epochs.values() for row in trial]
    steps = sum(row.train_seconds for row in rows)
    whole = slots * (over - begun).total_seconds()
    ends = sorted(row.ended_at for row in trials)
    tail = sum((ends[-1] - end).total_seconds() for end in ends[-slots:])
    parts = {
        "start": slots * (session.started_at - begun).total_seconds(),
        "evaluation": sum(row.seconds - row.train_seconds for row in rows),
        "tail": tail,
        "end": slots * (over - ends[-1]).total_seconds(),
    }
    parts["gaps"] = whole - steps - sum(parts.values())
    print(f"{len(trials)} trials, {steps / len(trials):.0f} s of steps each, {slots} slots")
    print(f"slot time {whole:.0f} s, of it steps {steps:.0f} s")
    print(f"overhead {1 - steps / whole:.1%}:")
    for name, seconds in parts.items():
        print(f"    {name:<10} {seconds:6.1f} s  {seconds / whole:6.1%}")


if __name__ == "__main__":
    main()
