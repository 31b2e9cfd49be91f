"""What the benchmarks share: telling the machine, and timing in alternation."""

import platform
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from nnclr_study.study.config import TrialConfig
from nnclr_study.trainer import augment
from nnclr_study.trainer.learner import Learner
from nnclr_study.trainer.world import CPU, World, random_stream


def machine(device: torch.device = CPU) -> str:
    """Return processor (or card), versions and date in a line."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return (
        f"{name}, {torch.get_num_threads()} thread(s), torch {torch.__version__}, "
        f"Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}"
    )


def in_turn(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each work, all measured once a round, one after another."""
    for work in works.values():
        work()  # warm, twice: the second step is the first that finds its memory laid out
        work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            started = perf_counter()
            work()
            seconds[name].append(perf_counter() - started)
    return {name: median(times) for name, times in seconds.items()}


def train_step(config: TrialConfig, side: int, device: torch.device) -> Callable[[], None]:
    """Return one whole step of a trial, as the loop takes it, on random images."""
    learner = Learner(config, side, num_classes=10, world=World(device))
    generator = random_stream(0, "benchmark", 0, device)
    shape = config.global_batch, 3, side, side
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device, generator=generator)
    count = config.labelled_batch_size
    labels = torch.randint(0, 10, (count,), device=device, generator=generator)
    recipes = augment.Recipe.of_both_views(config)

    def step() -> None:
        views = [
            augment.apply(images, augment.draw(recipe, len(images), generator), config.precision)
            for recipe in recipes
        ]
        learner.contrastive_step(*views, labels)
        weak = augment.draw(augment.PROBE_RECIPE, count, generator)
        learner.probe_step(augment.apply(images[-count:], weak), labels)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step
