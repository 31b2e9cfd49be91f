"""What `status`, `data` and `evaluate` print."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from nnclr_study.aligned import aligned
from nnclr_study.printable import one_line
from nnclr_study.study.plan import condition_label
from nnclr_study.study.progress import TrialProgress
from nnclr_study.study.rows import TrialRow


def status_table(cells: Sequence[TrialProgress], ended: Mapping[str, TrialRow]) -> str:
    """Return a line a trial, and below them why trials failed."""
    lines = [("condition", "seed", "status", "epochs")]
    for cell in cells:
        config = cell.trial.config
        done = f"{cell.epochs_done} of {config.epochs}"
        lines.append((condition_label(cell.trial.condition), str(config.seed), cell.status, done))
    table = aligned(lines, right=("epochs",))
    for cell in cells:
        if cell.status == "failed":
            error = ended[cell.trial.id].error or ""
            table += f"{cell.trial.id}: {one_line(error)}\n"
    return table


def parts_table(parts: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return a line a part of a data set: its images, their size, how even its classes are."""
    table = Table(box=None, pad_edge=False)
    for column in ("part", "images", "MB", "images of a class"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for part, facts in parts.items():
        of_class = facts["images_of_class"]
        balance = "unlabelled"
        if of_class is not None:
            least, most = min(of_class), max(of_class)
            balance = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        table.add_row(part, f"{facts['images']:,}", f"{facts['bytes'] / 1e6:,.1f}", balance)
    return table


def score_line(told: Mapping[str, Any], before: bool, supervised: float | None) -> str:
    """Return a protocol's accuracies, and its gain over an encoder that was never pretrained."""
    gain = ""
    if supervised is not None:
        points = 100 * (told["test_top1"] - supervised)
        gain = f"  {points:+.1f} points on test over never pretrained"
    took = "scored before" if before else f"{told['seconds']:.0f} s"
    return (
        f"{told['protocol']:<14} {told['labels']:>7,} labels  val {told['val_top1']:6.1%}  "
        f"test {told['test_top1']:6.1%}  {took}{gain}"
    )
