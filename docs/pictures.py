"""Draws the pictures of report.md: `python -m docs.pictures RUN`, RUN a finished quickstart.

Most are of the published quickstart, what it keeps no images for of RUN, and what a quickstart's
page does not have of made-up studies. Needs Chromium, and what `.[test]` installs.
"""

import io
import math
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Browser, FloatRect, Locator, sync_playwright

from nnclr_study.report.page import build_report
from nnclr_study.study.plan import plan_trials, suggested_trial
from nnclr_study.study.rows import Suggestion
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study
from tests.report import studies
from tests.report.helpers import (
    SEARCH,
    epoch_row,
    made_session,
    study_text,
    trial_row,
    write_trial,
)

PICTURES = Path(__file__).parent / "pictures"
QUICKSTART = Path(__file__).parents[1] / "reports" / "quickstart"
WIDTH = 960
"""Pixels of the page."""
WIDE, NARROW = 1160, 560
"""The same where a table would be cut, and where a page would be half empty."""
SHARPNESS = 1.5
"""Dots of a picture on a pixel."""
MARGIN = 14
"""Pixels around a section."""
COLOURS = 256
OF_QUICKSTART = (
    *("answer", "completeness", "dose_response", "forest", "best_set"),
    *("paired_seeds", "learning", "cost", "queue_health", "throughput", "timeline"),
    *("trials", "methods", "provenance"),
)


def made_up_search(path: Path) -> RunFolder:
    """Write a search of 40 trials in which a large queue helps and the optimiser hardly does."""
    study = parse_study(SEARCH.replace("trials = 12", "trials = 40"), "hunt.toml")
    folder, chance = RunFolder.create(path).keep(study), random.Random(0)
    folder.append_session(made_session(command="nnclr-study run hunt.toml"))
    for number in range(40):
        params = {
            "queue_size": round(40 * 25 ** chance.random()),
            "optimizer": chance.choice(["adam", "lars"]),
        }
        if params["optimizer"] == "lars":
            params["lars_trust"] = 10 ** chance.uniform(-4, -2)
        trial = suggested_trial(study, number, params)
        folder.append_suggestion(Suggestion(trial_id=trial.id, number=number, params=params))
        top1 = 0.7 + 0.05 * math.log10(params["queue_size"]) + chance.gauss(0, 0.01)
        seconds = 20 + params["queue_size"] / 50 + chance.gauss(0, 2)
        stopped = (3, "stopped") if top1 < 0.8 and number % 3 else top1
        write_trial(folder, trial, stopped, seconds=seconds)
    return folder


def made_up_scores(path: Path) -> RunFolder:
    """Write a study of 8 conditions, which some scores rank as accuracy does."""
    sizes = "queue_size = [0, 80, 160, 320, 640, 1_280, 2_560, 5_120]"
    study, chance = parse_study(study_text(sizes), "made.toml"), random.Random(0)
    folder = RunFolder.create(path).keep(study)
    folder.append_session(made_session())
    for trial in plan_trials(study):
        top1 = 0.7 + 0.02 * math.log2(1 + trial.config.queue_size / 40) + chance.gauss(0, 0.006)
        scored = {
            "rankme": 60 * top1 + chance.gauss(0, 1),
            "alignment": chance.uniform(0.2, 0.3),
            "uniformity": -4 * top1 + chance.gauss(0, 0.2),
            "c_acc": 1 - top1 / 2 + chance.gauss(0, 0.06),
            "val_knn_top1": top1 - 0.05 + chance.gauss(0, 0.01),
        }
        epoch = epoch_row(1, 1, top1, trial.config.seed, True).model_copy(update=scored)
        folder.append_epoch(trial.id, epoch)
        test = min(1.0, top1 + chance.gauss(-0.01, 0.01))
        folder.append_trial(trial_row(trial, top1, test_probe_top1=test))
    return folder


MADE_UP = {
    made_up_scores: ("proxies",),
    studies.two_factors: ("interaction", "cell_means"),
    studies.confirmed: ("confirmation",),
    studies.one_failure: ("failed",),
    made_up_search: ("history", "importance", "parallel", "contour", "edf", "pareto"),
}
"""The sections of each made-up study that are drawn."""
DRAWN = "[...document.querySelectorAll('.plot')].every(p => p.querySelector('.main-svg path'))"


def draw(
    browser: Browser, run: Path, keys: tuple[str, ...], width: int
) -> Iterator[tuple[str, bytes]]:
    """Yield the picture of each of these sections of a run's page."""
    with TemporaryDirectory() as out:
        file = build_report(run, Path(out)).page
        page = browser.new_page(
            viewport={"width": width, "height": 1000}, device_scale_factor=SHARPNESS
        )
        page.goto(file.as_uri())
        page.add_style_tag(content=".layout { max-width: none; }")
        while not page.evaluate(DRAWN):
            page.wait_for_timeout(100)
        for key in keys:
            parts = page.locator("main > header, #answer" if key == "answer" else f"#{key}")
            yield key, page.screenshot(full_page=True, clip=_around(parts.all(), width))
        page.close()


def _around(parts: list[Locator], width: int) -> FloatRect:
    """Return what is cut out of a page: these parts of it, over its whole width."""
    boxes = [box for part in parts if (box := part.bounding_box())]
    top = min(box["y"] for box in boxes) - MARGIN
    bottom = max(box["y"] + box["height"] for box in boxes) + MARGIN
    return {"x": 0, "y": top, "width": width, "height": bottom - top}


def save(key: str, png: bytes) -> None:
    """Keep a picture in few colours, which takes a third of the room."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image = image.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    image.save(PICTURES / f"{key}.png", optimize=True)


def main(run: Path) -> None:
    """Draw all pictures anew."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with TemporaryDirectory() as made, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        todo = [(QUICKSTART, OF_QUICKSTART, WIDTH), (QUICKSTART, ("conditions",), WIDE)]
        todo.append((run, ("gallery",), NARROW))
        for make, keys in MADE_UP.items():
            todo.append((make(Path(made) / make.__name__).path, keys, WIDTH))
        for source, keys, width in todo:
            for key, png in draw(browser, source, keys, width):
                save(key, png)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
