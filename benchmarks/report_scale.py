"""What a large study's report takes: to build, to carry, and to open in a browser.

Run with: python benchmarks/report_scale.py

Run folders are made up, of 100 epochs a trial: 30 trials, and 1,000 of a grid (200 conditions of
5 seeds) and of a search. `build` is the whole of `nnclr-study report` in a process of its own.
The page is opened in Chromium as a file; seconds are from the start of the navigation until a
frame shows the answer, the trial table can be filtered, the first figure stands, and the last.

Last result, 2026-11-24: AMD EPYC with AVX-512 (2 cores of a virtual machine), plotly 7.1, pandas
3.1, Python 3.11.7; `--rounds 2`, the least of them. CPU is the build's processor seconds.

    study            build     CPU  index.html  answer  filter  first figure  last figure
    30 trials         1.9s    2.1s     2.32 MB   0.09s   0.11s         1.01s        1.36s
    1,000, grid       6.3s    6.6s     4.63 MB   0.09s   0.26s         1.19s        1.53s
    1,000, search     8.8s    9.0s     7.19 MB   0.09s   0.28s         1.18s        2.69s

The targets are 20 s, 8 MB (4 MB for 30 trials), and 3 s until the page can be used.
"""

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

from common import machine
from playwright.sync_api import Browser, sync_playwright

from nnclr_study.study.plan import Trial, plan_trials, suggested_trial
from nnclr_study.study.rows import EpochRow, Session, Suggestion, TrialRow
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study

EPOCHS = 100
STARTED = datetime(2026, 11, 24, tzinfo=UTC)
HEAD = """
[study]
name = "{name}"
question = "How long does a large report take?"
seeds = {seeds}

[trial]
dataset = "digits"
epochs = {epochs}
batch_size = 64
labelled_batch_size = 8
"""
GRID = """
[grid]
queue_size = {sizes}
temperature = {temperatures}
"""
SEARCH = """
[budget]
trials = 1_000
[search]
early_stopping = "none"

[search.space]
queue_size = { low = 100, high = 1_000, log = true }
temperature = { low = 0.03, high = 0.5, log = true }
aug_strength = { low = 0.25, high = 1.2 }
width = { choices = [32, 64, 128] }
"""
MARKS = """
const shown = {};
const looks = {
  answer: () => document.getElementById("answer")?.getBoundingClientRect().height,
  filter: () => document.querySelector("p.filter:not([hidden])"),
  first: () => document.querySelector(".plot .main-svg"),
  last: () => document.readyState === "complete" && document.querySelector(".plot .main-svg")
    && [...document.querySelectorAll(".plot")].every((plot) => plot.querySelector(".main-svg")),
};
function look() {
  for (const [name, sees] of Object.entries(looks))
    if (!(name in shown) && sees()) shown[name] = performance.now() / 1000;
  if (Object.keys(shown).length < Object.keys(looks).length) requestAnimationFrame(look);
  else document.documentElement.dataset.shown = JSON.stringify(shown);
}
look();
"""
"""A frame's callback comes before it is painted: a mark is late by at most one frame."""


def grid(name: str, conditions: tuple[int, int], seeds: int) -> str:
    """Return the study file of a grid of two crossed knobs."""
    head = HEAD.format(name=name, seeds=list(range(1, seeds + 1)), epochs=EPOCHS)
    sizes = [100 * place for place in range(1, conditions[0] + 1)]
    temperatures = [round(0.05 * place, 2) for place in range(1, conditions[1] + 1)]
    return head + GRID.format(sizes=sizes, temperatures=temperatures)


def made(path: Path, text: str, count: int) -> Path:
    """Write a run folder whose trials all finished; in one go, as no `run` would."""
    study = parse_study(text, f"{path.name}.toml")
    folder = RunFolder.create(path).keep(study)
    folder.append_session(session())
    chance = random.Random(0)
    trials = plan_trials(study)
    if study.search:
        chosen = [suggestion(chance) for _ in range(count)]
        trials = [suggested_trial(study, number, each) for number, each in enumerate(chosen)]
        rows = [
            Suggestion(trial_id=trial.id, number=number, params=each)
            for number, (trial, each) in enumerate(zip(trials, chosen, strict=True))
        ]
        write(path / "suggestions.jsonl", (row.model_dump() for row in rows))
    assert len(trials) == count
    tops = {trial.id: 0.8 + 0.02 * chance.gauss(0, 1) for trial in trials}
    write(path / "epochs.jsonl", epochs(trials, tops, chance))
    ended = (ended_row(place, trial, tops[trial.id]) for place, trial in enumerate(trials))
    write(path / "trials.jsonl", ended)
    return path


def suggestion(chance: random.Random) -> dict[str, Any]:
    """Return what a random sampler might try."""
    return {
        "queue_size": round(100 * 10 ** chance.random()),
        "temperature": 0.03 * (0.5 / 0.03) ** chance.random(),
        "aug_strength": chance.uniform(0.25, 1.2),
        "width": chance.choice([32, 64, 128]),
    }


def epochs(
    trials: list[Trial], tops: dict[str, float], chance: random.Random
) -> Iterator[dict[str, Any]]:
    """Yield the rows of all epochs, with all of an epoch's scores."""
    fields = [name for name in EpochRow.model_fields if name not in ("epoch", "test_probe_top1")]
    for trial in trials:
        top = tops[trial.id]
        for epoch in range(1, EPOCHS + 1):
            row = {name: chance.random() for name in fields} | {"epoch": epoch}
            row["val_probe_top1"] = top - 0.5 * 0.95**epoch + 0.005 * chance.random()
            if epoch == EPOCHS:
                row |= {"val_probe_top1": top, "test_probe_top1": top - 0.01}
            row |= {"train_seconds": 2.0 + 0.1 * chance.random(), "seconds": 2.5}
            yield {"trial_id": trial.id} | EpochRow(**row).model_dump()


def ended_row(place: int, trial: Trial, top: float) -> dict[str, Any]:
    """Return the row of a finished trial; eight run at a time, on four hosts."""
    start = STARTED + timedelta(seconds=260 * (place // 8))
    row = TrialRow(
        trial_id=trial.id,
        status="finished",
        seed=trial.config.seed,
        config=trial.config.model_dump(),
        epochs=EPOCHS,
        val_probe_top1=top,
        test_probe_top1=top - 0.01,
        seconds=2.5 * EPOCHS,
        peak_memory_bytes=10**9,
        host=f"node-{place % 4}",
        device="cpu",
        session=0,
        started_at=start,
        ended_at=start + timedelta(seconds=250),
    )
    return row.model_dump(mode="json")


def session() -> Session:
    """Return a call of `run`."""
    return Session(
        started_at=STARTED,
        command="nnclr-study run scale.toml",
        versions={"nnclr-study": "0.1.0"},
        commit="0" * 40,
        machine="Linux",
        cpus=8,
        gpus=0,
        nodes=4,
        runner="in-process",
        workers=1,
        gpus_per_trial=0,
        max_concurrent=8,
    )


def write(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """Write rows, a line each."""
    with path.open("w") as file:
        file.writelines(f"{json.dumps(row)}\n" for row in rows)


def build(run: Path) -> tuple[float, float]:
    """Return the seconds of `nnclr-study report`, start of the process included: wall and CPU."""
    command = [sys.executable, "-m", "nnclr_study.cli", "report", str(run)]
    before, started = children(), perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return perf_counter() - started, children() - before


def children() -> float:
    """Return the CPU seconds of all processes started here that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def opened(browser: Browser, page_file: Path) -> dict[str, float]:
    """Return when each mark was first seen, in seconds of a fresh page."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.add_init_script(MARKS)
    page.goto(page_file.as_uri(), wait_until="commit")
    page.wait_for_selector("html[data-shown]", state="attached", timeout=120_000)
    shown: dict[str, float] = json.loads(page.locator("html").get_attribute("data-shown") or "")
    page.close()
    return shown


def main() -> None:
    """Make, build and open each study and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each; the least")
    parser.add_argument("--keep", type=Path, help="leave the run folders here")
    args = parser.parse_args()
    head = HEAD.format(name="search", seeds=[1], epochs=EPOCHS)
    studies = {
        "30 trials": (grid("small", (6, 1), 5), 30),
        "1,000, grid": (grid("grid", (20, 10), 5), 1_000),
        "1,000, search": (head + SEARCH, 1_000),
    }
    print(f"{machine()}; least of {args.rounds}")
    print("study            build     CPU  index.html  answer  filter  first figure  last figure")
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for place, (name, (text, count)) in enumerate(studies.items()):
            run = made((args.keep or Path(scratch)) / f"{place}", text, count)
            wall, cpu = map(min, zip(*(build(run) for _ in range(args.rounds)), strict=True))
            index = run / "report" / "index.html"
            seen = [opened(browser, index) for _ in range(args.rounds)]
            at = {mark: min(each[mark] for each in seen) for mark in seen[0]}
            print(
                f"{name:<14} {wall:6.1f}s {cpu:6.1f}s  {index.stat().st_size / 1e6:7.2f} MB "
                f"{at['answer']:6.2f}s {at['filter']:6.2f}s {at['first']:12.2f}s "
                f"{at['last']:11.2f}s",
                flush=True,
            )
        browser.close()


if __name__ == "__main__":
    main()
