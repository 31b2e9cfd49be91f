"""The share of an epoch that a step waits for its images: mapped files, and streamed.

Run with: python benchmarks/input_wait.py

Synthetic images, prepared as any data set is; the default batch of 525. Cold: the system is told
to forget the files before the epoch.

Last result, 2026-11-24: AMD EPYC with AVX-512 (2 cores of a virtual machine, 1 thread), torch
2.14.1, Python 3.11.7; steps in bf16. "Cold" asks the system to forget, which it may decline.

     32 px  mapped    warm  waited   14.2 ms of  11.12 s: 0.13%
     32 px  mapped    cold  waited   10.0 ms of  10.69 s: 0.09%
     32 px  streamed  warm  waited   90.3 ms of  11.30 s: 0.80%
     32 px  streamed  cold  waited   26.0 ms of  10.95 s: 0.24%
     96 px  mapped    warm  waited   54.7 ms of  92.50 s: 0.06%
     96 px  mapped    cold  waited   47.3 ms of  90.36 s: 0.05%
     96 px  streamed  warm  waited  299.5 ms of  95.56 s: 0.31%
     96 px  streamed  cold  waited   62.1 ms of  91.42 s: 0.07%
"""

import argparse
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

from common import machine

from nnclr_study.study.config import TrialConfig
from nnclr_study.trainer import loop
from nnclr_study.trainer.data import load_dataset
from nnclr_study.trainer.prepared import prepare
from nnclr_study.trainer.world import World

waited = 0.0


def timed(*args: object) -> Iterator[object]:
    """Do what the feed does, and note how long each step waited for it."""
    global waited
    steps = feed(*args)  # type: ignore[arg-type]
    try:
        while True:
            started = perf_counter()
            try:
                images = next(steps)
            except StopIteration:
                return
            finally:
                waited += perf_counter() - started
            yield images
    finally:
        steps.close()


feed = loop.feed


def forget(folder: Path) -> None:
    """Have the system drop what it holds of the files in a folder."""
    for path in folder.glob("*.npy"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    """Train an epoch in each way and print the share of it that was waiting."""
    global waited
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20, help="of an epoch")
    parser.add_argument("--precision", default="bf16", help="as in a study file")
    args = parser.parse_args()
    loop.feed = timed  # type: ignore[assignment]
    device = World.alone().device
    with tempfile.TemporaryDirectory() as folder:
        for side in (32, 96):
            config = TrialConfig(
                dataset="synthetic",
                image_size=side,
                epochs=1,
                steps_per_epoch=args.steps,
                precision=args.precision,
            )
            found = prepare("synthetic", side, Path(folder))
            data = load_dataset(config, Path(folder))
            for streamed in (False, True):
                for cold in (False, True):
                    loop.must_stream = lambda *_, streamed=streamed: streamed  # type: ignore[assignment]
                    # Of no share of a GPU's memory, all images are left where they are streamed.
                    world = World(device, gpu_share=0.0 if streamed else 1.0)
                    if cold and found.path:
                        forget(found.path)
                    waited = 0.0
                    (last,) = loop.train(config, data, world)
                    row = last.rows[-1]
                    if (side, streamed, cold) == (32, False, False):
                        print(machine(device))
                    print(
                        f"{side:>3} px  {'streamed' if streamed else 'mapped':<8}  "
                        f"{'cold' if cold else 'warm'}  waited {waited * 1e3:6.1f} ms of "
                        f"{row.train_seconds:6.2f} s: {waited / row.train_seconds:.2%}"
                    )


if __name__ == "__main__":
    main()
