"""All figures in a real browser: each in its own colours, and nothing cut off on a phone."""

import json
from datetime import timedelta

import pandas as pd
import pytest
from plotly.offline import get_plotlyjs

from nnclr_study.report import figures, look
from tests.report.helpers import NOW
from tests.report.test_figures import made_arm, made_difference, made_trials

SIZES = (0, 2_100, 8_192, 32_768, 98_304)
SEEDS = (1, 2, 3, 4, 5)
CELLS = [(place, seed) for place in range(len(SIZES)) for seed in SEEDS]
TOPS = [0.88 + 0.005 * place + 0.002 * (seed * 3 % 5) for place, seed in CELLS]
VERDICTS = ("not resolved", "equivalent", "better", "depends on method")
STARTS = [NOW + timedelta(hours=2 * (place + seed)) for place, seed in CELLS]
TRIALS = made_trials(
    arm=[place for place, _ in CELLS],
    seed=[seed for _, seed in CELLS],
    status=["failed", "interrupted", "waiting", "running", "stopped", *["finished"] * 20],
    val_probe_top1=[None] * 5 + TOPS[5:],
    host=[f"gpu-{seed % 2}.a-cluster.with.a.long.name.example.org" for _, seed in CELLS],
    seconds=[7000.0] * 25,
    gpu_seconds=[7000.0 + 300 * place + 20 * seed for place, seed in CELLS],
    images_per_second=[2000.0 + 10 * seed for _, seed in CELLS],
    started_at=STARTS,
    ended_at=[start + timedelta(hours=2) for start in STARTS],
)
EPOCHS = pd.DataFrame(
    {"arm": place, "seed": seed, "status": "finished", "epoch": epoch, "feature_std": 0.05}
    | {"nn_same_label": 0.5, "nn_age": 20.0 * place, "rankme": 30.0 + epoch, "val_probe_top1": top}
    for (place, seed), top in zip(CELLS, TOPS, strict=True)
    for epoch in (1, 2, 3)
)


def made_arms(more=None):
    arms = [
        made_arm(
            size,
            0.88 + 0.005 * place,
            (0.875 + 0.005 * place, 0.885 + 0.005 * place),
            condition={"queue_size": size} | (more or {}),
            vs_best={"mean": -0.02 + 0.005 * place, "interval": (-0.03, 0.0)},
            in_best_set=place > 2,
            mean_gpu_seconds=7060.0 + 300 * place,
        )
        for place, size in enumerate(SIZES)
    ]
    for place, verdict in enumerate(VERDICTS, start=1):
        bounds = (0.005 * place - 0.0051, 0.005 * place + 0.0049)
        arms[place]["vs_baseline"] = made_difference(0.005 * place, bounds, verdict)
    return arms


def drawn(arms):
    knobs = list(arms[0]["condition"])
    crossed = {
        "knobs": ["queue_size", "temperature"],
        "levels": [list(SIZES), [0.1, 0.2]],
        "means": [[0.88, 0.90], [0.89, 0.90], [0.90, 0.89], [0.91, None], [0.92, 0.90]],
    }
    chosen = {"run": "found", "val_probe_top1": [0.90, 0.91, 0.92, 0.93]}
    trend = {"saturation": 32_000.0, "saturation_interval": [9_000.0, 6e4], "saturated": True}
    return {
        "dose_response": figures.dose_response(
            TRIALS.assign(**arms[0]["condition"]), arms, knobs, trend
        ),
        "completeness": figures.completeness(TRIALS, arms, SEEDS),
        "forest": figures.forest(arms, 0.005),
        "best_set": figures.best_set(arms),
        "paired_seeds": figures.paired_seeds(TRIALS, arms, knobs),
        "cost": figures.cost(TRIALS, arms),
        "queue_health": figures.queue_health(EPOCHS, arms),
        "learning_curves": figures.learning_curves(EPOCHS, arms),
        "interaction": figures.interaction(crossed),
        "cell_means": figures.cell_means(crossed),
        "confirmation": figures.confirmation(arms, chosen),
        "throughput": figures.throughput(TRIALS),
        "timeline": figures.timeline(TRIALS),
    }


@pytest.fixture(scope="module")
def canvas(chromium):
    """A page as wide as a phone's, with Plotly."""
    page = chromium.new_page(viewport={"width": 390, "height": 800})
    page.set_content("<body style='margin: 16px'><div id='plot'></div>")
    page.add_script_tag(content=get_plotlyjs())
    yield page
    page.close()


def show(page, figure):
    made = json.loads(figure.to_json())
    made["layout"] |= {"width": 358, "height": made["layout"].get("height", 400) + 150}
    page.evaluate(
        "f => Plotly.newPlot('plot', f.data, f.layout, {displayModeBar: false, staticPlot: true})",
        made,
    )


INKS = """() => {
  const found = new Set();
  for (const mark of document.querySelectorAll('#plot .main-svg :is(path, text, rect, line)')) {
    const box = mark.getBoundingClientRect(), style = getComputedStyle(mark);
    if (!(box.width || box.height) || mark.closest('defs, .draglayer')) continue;
    const filled = box.width && box.height && !mark.matches('.xerror, .yerror');
    if (filled && Number(style.fillOpacity)) found.add(style.fill);
    if (Number(style.strokeOpacity) && parseFloat(style.strokeWidth)) found.add(style.stroke);
  }
  return [...found];
}"""
CUT_OFF = """() => {
  const room = document.querySelector('#plot .main-svg').getBoundingClientRect();
  return [...document.querySelectorAll('#plot text')].filter((text) => {
    const box = text.getBoundingClientRect();
    return box.width && (box.left < room.left - 1 || box.right > room.right + 1);
  }).map((text) => text.textContent);
}"""
OURS = {tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in look.LIGHT}


def rgb(ink):
    """`rgba(0, 114, 178, 0.5)` as its colour; None where nothing is seen."""
    if not ink.startswith("rgb"):
        return None
    parts = [float(part) for part in ink[ink.index("(") + 1 : -1].split(",")]
    return None if parts[3:] == [0] else tuple(round(part) for part in parts[:3])


@pytest.mark.parametrize("name", drawn(made_arms()))
@pytest.mark.parametrize("more", [{}, {"temperature": 0.1, "aug_recipe": "brightness"}])
def test_a_figure_fits_a_phone_in_our_colours(canvas, name, more):
    show(canvas, drawn(made_arms(more))[name])
    foreign = {rgb(ink) for ink in canvas.evaluate(INKS)} - OURS - {None}
    assert not foreign, "page.js could not swap it for the dark theme"
    assert canvas.evaluate(CUT_OFF) == []


def test_a_foreign_colour_and_a_wide_name_are_seen(canvas):
    figure = figures.forest(made_arms(), 0.005)
    figure.add_annotation(text="x" * 80, x=0, y=0, font={"color": "#123456"})
    show(canvas, figure)
    assert (18, 52, 86) in {rgb(ink) for ink in canvas.evaluate(INKS)}
    assert canvas.evaluate(CUT_OFF) == ["x" * 80]
