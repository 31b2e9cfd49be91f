"""What bf16 does to val_probe_top1: the same trials in float32 and in bf16, seed by seed.

Run with: python benchmarks/bf16_accuracy.py --data DIR

A study of two conditions and five seeds on CIFAR-10 (`--dataset folder:NAME` for an image
folder), run by `nnclr-study run`; a second call goes on where the first was. The difference is
judged against the margin of half a point within which two conditions count as equal.

Last result, 2026-11-26: Intel Xeon with AVX-512 bf16 and without AMX (2 cores of a virtual
machine, a trial on each, other work beside it), torch 2.14.1, CIFAR-10 as JPEG files
(`--dataset folder:cifar10`); crops and blur in bf16 as well:

    val_probe_top1     float32 42.72 %, bf16 42.43 %
    val_probe_top1     bf16 - float32: -0.30 points (95 % CI -0.92 to +0.32; 5 paired seeds)
    test_probe_top1    float32 42.50 %, bf16 42.18 %
    test_probe_top1    bf16 - float32: -0.32 points (95 % CI -1.07 to +0.43; 5 paired seeds)
    seconds a trial: float32 556, bf16 625

Before crops took bf16, on an Intel Xeon with AMX (335 and 258 seconds a trial): -0.13 points of
val (-1.11 to +0.84).

No difference is seen, and equality within the margin is not shown: the interval is wider than it.
So float32 is the default, and a study asks for bf16 (`precision = "bf16"`).
"""

import argparse
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev

import torch
from scipy import stats

from nnclr_study.cli import main as nnclr_study
from nnclr_study.study.rows import TrialRow
from nnclr_study.study.run_folder import RunFolder

STUDY = """
[study]
name = "bf16_accuracy"
question = "What does bf16 do to the accuracy of the probe?"
seeds = [1, 2, 3, 4, 5]

[trial]
dataset = "{dataset}"
image_size = 32
epochs = 4
steps_per_epoch = 250
width = 64
probe_learning_rate = 0.01

[grid]
precision = ["float32", "bf16"]
"""
MARGIN = 0.5
"""Of two conditions that count as equal, in points."""


def show(name: str, differences: list[float]) -> None:
    """Print a mean of paired differences with its 95 % interval (Student's t)."""
    centre, count = mean(differences), len(differences)
    half = stats.t.ppf(0.975, count - 1) * stdev(differences) / count**0.5
    print(
        f"{name:<18} bf16 - float32: {centre:+.2f} points "
        f"(95 % CI {centre - half:+.2f} to {centre + half:+.2f}; {count} paired seeds)"
    )


def main() -> None:
    """Run the study and print the differences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of data sets")
    parser.add_argument("--storage", type=Path, default=Path("runs"), help="of the run folder")
    parser.add_argument("--dataset", default="cifar10", help="as a study file names it")
    args = parser.parse_args()
    file = args.storage / "bf16_accuracy.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(STUDY.format(dataset=args.dataset))
    code = nnclr_study(
        ["run", str(file), "--storage", str(args.storage), "--data", str(args.data)]
    )
    if code:
        sys.exit(code)

    trials: dict[tuple[str, int], TrialRow] = {}
    for row in RunFolder.open(args.storage / "bf16_accuracy").trials().values():
        trials[row.config["precision"], row.seed] = row
    seeds = sorted(seed for precision, seed in trials if precision == "bf16")
    print(
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, "
        f"{datetime.now(UTC):%Y-%m-%d}; margin {MARGIN} points"
    )
    for name in ("val_probe_top1", "test_probe_top1"):
        pairs = [
            [getattr(trials[precision, seed], name) for precision in ("float32", "bf16")]
            for seed in seeds
        ]
        exact, rounded = (100 * mean(column) for column in zip(*pairs, strict=True))
        print(f"{name:<18} float32 {exact:.2f} %, bf16 {rounded:.2f} %")
        show(name, [100 * (bf16 - float32) for float32, bf16 in pairs])
    seconds = {
        precision: mean(trials[precision, seed].seconds for seed in seeds)
        for precision in ("float32", "bf16")
    }
    print(f"seconds a trial: float32 {seconds['float32']:.0f}, bf16 {seconds['bf16']:.0f}")


if __name__ == "__main__":
    main()
