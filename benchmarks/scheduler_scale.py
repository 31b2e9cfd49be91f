"""What the engine itself can bear: trials that do nothing, on 64 GPUs that are only declared.

Run with: python benchmarks/scheduler_scale.py

The study's own suggestions, recorder and Optuna mirror run as they do for `nnclr-study run`; a
trial reports its epochs and ends. `recorder` is the time in which rows are written, the mirror
and TensorBoard are told, and the next trial is chosen.

`--alone` tells the same rows to the same recorder without a cluster.

Last results, 2026-11-25: AMD EPYC with AVX-512 (2 cores of a virtual machine), Ray 2.60, Python
3.11.7. The 64 processes share two cores, on which starting them takes about a minute, however many
trials follow: from 250 to 1,000 trials it is 0.14 s a trial.

     trials   seconds   trials/s   recorder   a trial   driver memory
        250     77.2s        3.2      15.1s   60.4 ms        996 MB
        500     97.1s        5.2      16.4s   32.9 ms       1011 MB
      1,000    182.7s        5.5      41.9s   41.9 ms       1044 MB

`--alone`, where nothing else runs, it is linear in trials:

        250      1.4s   a trial     5.5 ms
      1,000      5.9s   a trial     5.9 ms
      2,000     11.9s   a trial     5.9 ms
"""

import argparse
import io
import json
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import ray
from common import machine
from ray import tune
from rich.console import Console

from nnclr_study.study.plan import plan_trials
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study
from nnclr_study.sweep import engine
from nnclr_study.sweep.mirror import Mirror
from nnclr_study.sweep.recorder import Recorder
from nnclr_study.sweep.resources import Demand, place
from nnclr_study.sweep.suggestions import Suggestions
from nnclr_study.sweep.terminal import Progress

GPUS = 64
EPOCHS = 3
STUDY = """
[study]
name = "scale"
seeds = {seeds}
[trial]
dataset = "digits"
epochs = {epochs}
"""
PAIR = """
[grid]
queue_size = [0, 1_000]
"""


def nothing(params: dict[str, Any]) -> None:
    """Report the epochs of a trial that trains nothing."""
    for told in reports(params["config"]):
        tune.report(told)


def reports(config: str) -> Iterator[dict[str, Any]]:
    """Yield what a trial says of each epoch."""
    numbers = ("c_loss", "c_acc", "r_acc", "p_loss", "p_acc", "val_p_loss", "val_p_acc")
    for epoch in range(1, EPOCHS + 1):
        row = dict.fromkeys(numbers, 0.5) | {"epoch": epoch, "val_probe_top1": 0.5}
        row |= {"test_probe_top1": 0.5, "train_seconds": 0.0, "seconds": 0.0}
        yield {"row": json.dumps(row), "ran": config}


class Clock:
    """Adds up the time in some methods of an object."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, thing: object, *names: str) -> None:
        """Time these methods from now on."""
        for name in names:
            setattr(thing, name, self._timed(getattr(thing, name)))

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds += perf_counter() - started

        return timed


def alone(count: int) -> float:
    """Return the seconds that the recorder takes for so many trials, without a cluster."""
    study = parse_study(
        STUDY.format(seeds=list(range(count // 2)), epochs=EPOCHS) + PAIR, "x.toml"
    )
    trials = plan_trials(study)
    with tempfile.TemporaryDirectory() as path:
        folder = RunFolder.create(Path(path) / "scale").keep(study)
        session = engine._session(study, place(Demand("in-process"), [node()]), [node()])
        folder.append_session(session)
        progress = Progress(Console(file=io.StringIO()), study, folder, trials)
        recorder = Recorder(study, folder, [], session, Mirror(study, folder), progress)
        started = perf_counter()
        for trial in trials:
            heard = SimpleNamespace(config={"trial_id": trial.id})
            recorder.begin(trial)
            recorder.budget_reached()
            recorder.on_trial_start(trial=heard)
            for told in reports(trial.config.model_dump_json()):
                recorder.on_trial_result(trial=heard, result=told)
            recorder.on_trial_complete(trial=heard)
        return perf_counter() - started


def measure(count: int) -> tuple[float, float]:
    """Return the seconds of a study of so many trials, and those in the recorder."""
    study = parse_study(STUDY.format(seeds=list(range(count)), epochs=EPOCHS), "scale.toml")
    trials = plan_trials(study)
    with tempfile.TemporaryDirectory() as path:
        folder = RunFolder.create(Path(path) / "scale").keep(study)
        placement = place(Demand("in-process", gpus_per_trial=1), [node()])
        session = engine._session(study, placement, [node()])
        folder.append_session(session)
        progress = Progress(Console(file=io.StringIO()), study, folder, trials)
        recorder = Recorder(study, folder, [], session, Mirror(study, folder), progress)
        clock = Clock()
        clock.around(recorder, "begin", "stops", "budget_reached", "on_trial_result")
        clock.around(recorder, "on_trial_complete")
        suggestions = Suggestions(iter(trials), recorder, lambda: placement.max_concurrent)
        trainable = tune.with_resources(nothing, {"cpu": 1.0, "gpu": 1.0})
        started = perf_counter()
        engine.tuner(trainable, suggestions, recorder, "scale", f"{path}/ray", reuse=True).fit()
        seconds = perf_counter() - started
        assert {row.status for row in folder.trials().values()} == {"finished"}
        assert len(folder.trials()) == count
        return seconds, clock.seconds


def node() -> dict[str, float]:
    """Return what the emulated machine has."""
    return {"CPU": float(GPUS), "GPU": float(GPUS)}


def main() -> None:
    """Run studies of several sizes on one cluster and print how they grow."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[250, 500, 1_000])
    parser.add_argument("--alone", action="store_true", help="the recorder without a cluster")
    args = parser.parse_args()
    if args.alone:
        for count in args.trials:
            seconds = alone(count)
            print(f"{count:7,}  {seconds:7.1f}s   a trial   {1000 * seconds / count:5.1f} ms")
        return
    gpus = {"num_cpus": GPUS, "num_gpus": GPUS}
    ray.init("local", **gpus, log_to_driver=False, include_dashboard=False)
    print(f"{machine()}, Ray {ray.__version__}")
    measure(GPUS)  # its processes start
    print(" trials   seconds   trials/s   recorder   a trial   driver memory")
    for count in args.trials:
        seconds, recorder = measure(count)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{count:7,}  {seconds:7.1f}s   {count / seconds:8.1f}   {recorder:7.1f}s"
            f"  {1000 * recorder / count:5.1f} ms   {peak:8.0f} MB"
        )


if __name__ == "__main__":
    main()
