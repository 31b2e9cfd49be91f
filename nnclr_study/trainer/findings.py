"""What a user should know of a prepared data set before any trial is trained on it."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from nnclr_study.study.config import TrialConfig
from nnclr_study.study.plugins import is_plugin
from nnclr_study.trainer.data import splits
from nnclr_study.trainer.decode import BACKGROUND, Remark
from nnclr_study.trainer.fitting import DARKEST, MOST_CUT
from nnclr_study.trainer.images import Split
from nnclr_study.trainer.prepared import RULES, Prepared

FEW = 50
"""Images of val or test, below which one image is more than two percentage points."""
MOSTLY = 0.75
"""Share of the images of one class, from which on accuracy says little."""

NOTES = {
    Remark.TURNED: "were turned upright, as their EXIF orientation says",
    Remark.TRANSPARENT: f"with transparency were put on {BACKGROUND}",
    Remark.SIXTEEN_BIT: "of 16 bits were scaled to 8 bits",
    Remark.FLOAT: "of floating-point values from 0 to 1 were scaled to 8 bits",
    Remark.ENLARGED: "are smaller than the image size, and were enlarged",
    Remark.CUT: f"have one side more than {MOST_CUT} times the other: less than half is kept",
}
WARNINGS = {
    Remark.FRAMES: (
        "have several frames or pages, of which only the first is used",
        "save those that you want as files of their own",
    ),
    Remark.ONE_COLOR: (
        "have one color throughout",
        "look whether the files are what they should be, and remove or repair them",
    ),
    Remark.DARK: (
        f"are almost black: no value is above {DARKEST} of 255",
        "pixels are scaled by the full range of their type, so scale the files to that range",
    ),
}
"""What is found of images, and what to do."""


class Findings(NamedTuple):
    """What is known of a data set beyond its counts."""

    identical: int | None
    """Images that are identical to another one; None: not known."""
    one_color: int | None
    """Images that have one color throughout; None: not known."""
    notes: list[str]
    """What was done to images, and which files were ignored."""
    warnings: list[str]
    """What may be a mistake, and how to mend it."""


def findings(found: Prepared, config: TrialConfig) -> Findings:
    """Return what a user should know of a data set.

    Args:
        found: the data set.
        config: says which it is, and which share of train is val.

    Raises:
        DataError: the prepared data set cannot be read.
    """
    name = config.dataset
    about = found.about(name)
    notes, warnings = [*about.get("notes", [])], [*about.get("warnings", [])]
    records = found.records()
    if is_plugin(name) or name.startswith("folder:"):
        if (rules := about.get("rules", 1)) < RULES:
            warnings.append(
                f"{found.path} was prepared by an earlier version, rules {rules} of "
                f"{RULES}: 16-bit, transparent and turned images may be wrong; bring the original "
                "back, and it is prepared anew"
            )
        notes += _notes(records)
        warnings += _remarked(found, records)
        warnings += _copies(found, config, records)
    warnings += _classes(found, config)
    return Findings(
        int(_has_copy(records).sum()) if records else None,
        sum(len(_rows(table, Remark.ONE_COLOR)) for table in records.values())
        if records
        else None,
        notes,
        warnings,
    )


def _rows(records: np.ndarray, remark: Remark) -> np.ndarray:
    return np.flatnonzero(records["remarks"] & remark)


def _notes(records: Mapping[str, np.ndarray]) -> Iterator[str]:
    whole = sum(map(len, records.values()))
    for remark, said in NOTES.items():
        if count := sum(len(_rows(table, remark)) for table in records.values()):
            yield f"{count:,} of {whole:,} images {said}"


def _remarked(found: Prepared, records: Mapping[str, np.ndarray]) -> Iterator[str]:
    whole = sum(map(len, records.values()))
    for remark, (said, way_out) in WARNINGS.items():
        rows = {part: _rows(table, remark) for part, table in records.items()}
        if count := sum(map(len, rows.values())):
            part = next(part for part in rows if len(rows[part]))
            example = found.names(part)[rows[part][0]]
            yield f"{count:,} of {whole:,} images {said}, as {example}; {way_out}"


def _has_copy(records: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return which images are identical to another one, (all images of all parts,)."""
    hashes = np.concatenate([table["hash"] for table in records.values()])
    _, group, size = np.unique(hashes, return_inverse=True, return_counts=True)
    return np.asarray(size[group] > 1)


def _copies(
    found: Prepared, config: TrialConfig, records: Mapping[str, np.ndarray]
) -> Iterator[str]:
    """Yield what identical images do to scores, and how many there are."""
    if not records or not _has_copy(records).any():
        return
    unlabelled, train, val, test = splits(found, config)
    hashes = {part: table["hash"] for part, table in records.items()}
    rows = {name: split.images.rows.numpy() for name, split in (("train", train), ("val", val))}
    seen = {"train": ("train", rows["train"]), "val": ("train", rows["val"])}
    seen["test"] = ("test", test.images.rows.numpy())
    if unlabelled is not None:
        seen["unlabelled"] = ("unlabelled", unlabelled.rows.numpy())
    for scored, trained, told in (
        ("test", "train", "test accuracy is of images that were trained on"),
        ("test", "unlabelled", "test images are trained on, if without their labels"),
        ("test", "val", "val and test accuracy are not independent"),
        ("val", "train", "val accuracy is of images that were trained on"),
        ("val", "unlabelled", "val images are trained on, if without their labels"),
    ):
        if trained not in seen:
            continue
        (part, ours), (other, theirs) = seen[scored], seen[trained]
        both = np.isin(hashes[part][ours], hashes[other][theirs])
        if both.any():
            row = ours[both][0]
            twin = theirs[hashes[other][theirs] == hashes[part][row]][0]
            pair = f"{found.names(part)[row]} and {found.names(other)[twin]}"
            yield (
                f"{both.sum():,} of {len(ours):,} {scored} images are also in {trained}, as "
                f"{pair}: {told}; remove the copies"
            )
    copies = _has_copy(records)
    yield (
        f"{copies.sum():,} of {len(copies):,} images are identical to another one; remove the "
        "copies"
    )
    for part, labels in found.labels.items():
        ordered = np.lexsort((labels, hashes[part]))
        sorted_hashes, sorted_labels = hashes[part][ordered], labels[ordered]
        same = sorted_hashes[1:] == sorted_hashes[:-1]
        torn = np.flatnonzero(same & (sorted_labels[1:] != sorted_labels[:-1]))
        if len(torn):
            first, second = (found.names(part)[ordered[torn[0] + k]] for k in (0, 1))
            yield (
                f"{len(torn):,} images of {part} are in more than one class, as {first} and "
                f"{second}; keep each in one"
            )


def _classes(found: Prepared, config: TrialConfig) -> Iterator[str]:
    """Yield what labels make of accuracies."""
    classes = found.classes
    if len(classes) == 1:
        yield (
            f"there is one class, {classes[0]!r}: every accuracy is 100 %; put the images of each "
            "class in a folder of its own, directly in train/ and test/"
        )
        return
    _, train, val, test = splits(found, config)
    labelled = len(train.labels) + len(val.labels)
    for name, split in (("train", train), ("val", val), ("test", test)):
        counts = np.bincount(split.labels.numpy(), minlength=len(classes))
        if missing := [classes[kind] for kind in np.flatnonzero(counts == 0)]:
            yield (
                f"{name} has no image of {len(missing)} of {len(classes)} classes: "
                f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}; "
                + _way_out(name, split, labelled)
            )
    for name, split in (("val", val), ("test", test)):
        counts = np.bincount(split.labels.numpy(), minlength=len(classes))
        if MOSTLY * (count := int(counts.sum())) <= counts.max() < count:
            yield (
                f"{counts.max() / count:.0%} of {name} are of the class "
                f"{classes[counts.argmax()]!r}: compare accuracies with that share, or add images "
                "of other classes"
            )
        if 0 < count < FEW:
            yield (
                f"{name} has {count} images: its accuracy goes in steps of {100 / count:.1f} "
                "points; add images"
            )


def _way_out(name: str, split: Split, labelled: int) -> str:
    if name != "val":
        return f"add images of each to {'test' if name == 'test' else 'train'}"
    if not len(split.labels):
        return "raise val_fraction, or add images to train"
    # Val takes evenly spaced images of train in the order of classes.
    enough = -(-labelled // len(split.labels))
    return f"add images to train ({enough} of a class are enough), or raise val_fraction"
