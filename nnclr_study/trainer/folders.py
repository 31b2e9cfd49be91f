"""Image folders: which files are images, which are ignored, and what is wrong with the rest."""

import hashlib
import os
import stat
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from nnclr_study.errors import DataError
from nnclr_study.trainer.contracts import Original, Part
from nnclr_study.trainer.decode import named

SYSTEM = {
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"),
    *("$recycle.bin", "system volume information", "lost+found"),
    *("#recycle", "#snapshot", "@eadir", "@recycle", "@recently-snapshot"),
    *("__macosx", "network trash folder", "temporary items", "__pycache__"),
}
"""Files and folders that operating systems, NAS devices and Python leave behind."""
LEFTOVERS = {".tmp", ".part", ".crdownload", ".bak"}
METADATA = {
    *(".csv", ".tsv", ".txt", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini"),
    *(".md", ".rst", ".html", ".log", ".xmp", ".aae", ".url", ".md5", ".sha1", ".sha256"),
}
"""Ends of the names of files that go with images and are none."""
SPELLINGS = ("unlabelled", "unlabeled")
LISTED = 20
"""Problems that a message lists; it counts the others."""
WALKED = 100
"""Folders below an ignored one whose files are counted; a snapshot of a disk may hold millions."""
NAMED = 6
"""Kinds of ignored files that a line names."""


def together(problems: Sequence[str], count: int, of: str) -> DataError:
    """Return one error that lists the first of so many problems."""
    if count == 1:
        return DataError(problems[0])
    lines = [f"  {problem}" for problem in problems[:LISTED]]
    lines += [f"  ... and {count - len(lines):,} more"] if count > len(lines) else []
    return DataError(f"{count:,} problems in {of}:", *lines)


def is_folder(path: Path) -> bool:
    """Tell whether a folder is there.

    Raises:
        DataError: that cannot be found out.
    """
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; make it readable") from None


class ImageFolder:
    """The files of `train/CLASS/`, `test/CLASS/` and, if there is one, `unlabelled/`.

    Hidden and system files and folders, leftovers and metadata are ignored at every level.

    Args:
        base: the folder that holds these.

    Raises:
        DataError: a part has no images, or a folder or file cannot be used; all are named.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.ignored: Counter[str] = Counter()
        """Number of ignored files of each kind."""
        self._problems: list[str] = []
        # What is there must be a folder: a link to one that is gone is not "no images".
        spelled = [name for name in SPELLINGS if os.path.lexists(base / name)]
        if len(spelled) > 1:
            raise DataError(f"{base} has both {' and '.join(spelled)}; merge them into one")
        self.folders = {part: base / part for part in ("train", "test")}
        if spelled:
            self.folders["unlabelled"] = base / spelled[0]
        self.files = {part: self._files(folder) for part, folder in self.folders.items()}
        self._raise()

    def fingerprint(self) -> str:
        """Return a digest of the path, size and time of every image."""
        digest = hashlib.sha256()
        for path in (path for files in self.files.values() for path in files):
            try:
                about = path.stat()
            except OSError as error:
                self._problems.append(_unreadable(path, error))
                continue
            line = f"{path.relative_to(self.base)}\0{about.st_size}\0{about.st_mtime_ns}\n"
            digest.update(line.encode(errors="surrogateescape"))
        self._raise()
        return digest.hexdigest()

    def original(self) -> Original:
        """Return the data set. Names of classes are compared in Unicode's composed form (NFC)."""
        spelled = {part: self._classes(part) for part in ("train", "test")}
        self._raise()
        self._compare(spelled["train"], spelled["test"])
        self._raise()
        numbers = {key: number for number, key in enumerate(spelled["train"])}
        parts = {}
        for part, paths in self.files.items():
            labels = None
            if part != "unlabelled":
                labels = np.array([numbers[_composed(self._class(part, p))] for p in paths])
            name = partial(self._name, paths)
            parts[part] = Part(len(paths), partial(_open, paths), labels, name)
        classes = list(spelled["train"].values())
        return Original(classes, parts, self.notes(), self.warnings())

    def notes(self) -> list[str]:
        """Return one line that counts the ignored files, if there are any."""
        if not self.ignored:
            return []
        kinds = [f"{kind} ({count:,})" for kind, count in self.ignored.most_common(NAMED)]
        kinds += ["..."] if len(self.ignored) > NAMED else []
        count = self.ignored.total()
        return [f"ignored {count:,} hidden, system or metadata files: {', '.join(kinds)}"]

    def warnings(self) -> list[str]:
        """Return what is allowed, and rarely meant."""
        said = []
        read = {folder.name for folder in self.folders.values()}
        others = [path.name for path in _subfolders(self.base) if path.name not in read]
        if others:
            said.append(
                f"only {', '.join(sorted(read))} of {self.base} are used, "
                f"not {_some(others)}; val is held out of train, and images without labels "
                "belong in unlabelled/"
            )
        for part in ("train", "test"):
            classes = set(self._named(part))
            folders = (path.name for path in _subfolders(self.base / part))
            empty = [name for name in folders if name not in classes]
            if empty:
                said.append(
                    f"{self.base / part} has folders without images: {_some(empty)}; they are not "
                    "classes: add images, or remove the folders"
                )
        alike = defaultdict(list)
        for name in self._named("train"):
            alike[_look(name)].append(name)
        for names in alike.values():
            if len(names) > 1:
                said.append(
                    f"the classes {' and '.join(map(ascii, names))} differ only in case, width, "
                    "spaces or invisible characters, and count as different classes; if they are "
                    "one, merge their folders"
                )
        return said

    def _files(self, folder: Path) -> list[Path]:
        """Return all images below a folder, in the order of their names."""
        if os.path.lexists(folder) and not is_folder(folder):
            raise DataError(
                f"{folder} is not a folder, or a link to one that is gone; repair or remove it"
            )
        if not is_folder(folder):
            there = [path.name for path in _subfolders(self.base)]
            raise _no_images(folder, f" ({self.base.name} has {_some(there)})" if there else "")
        found: list[Path] = []
        waiting = [(folder, frozenset[tuple[int, int]]())]
        while waiting:
            at, above = waiting.pop()
            try:
                about = at.stat()
                with os.scandir(at) as listing:
                    entries = list(listing)
            except OSError as error:
                self._problems.append(_unreadable(at, error))
                continue
            here = (about.st_dev, about.st_ino)
            if here in above:
                self._problems.append(f"{at} is a link to a folder that holds it; remove it")
                continue
            for entry in entries:
                path = at / entry.name
                try:
                    if self._is_ignored(entry):
                        continue
                    if entry.is_dir():
                        waiting.append((path, above | {here}))
                    elif entry.is_file():
                        found.append(path)
                    elif stat.S_IFMT(path.stat().st_mode):  # fails where a link leads nowhere
                        self._problems.append(f"{path} is not a regular file; remove it")
                except OSError as error:
                    self._problems.append(_unreadable(path, error))
        if not found and not self._problems:
            raise _no_images(folder)
        return sorted(found)

    def _is_ignored(self, entry: os.DirEntry[str]) -> bool:
        """Tell whether something is ignored, and count it."""
        name, end = entry.name, Path(entry.name).suffix.lower()
        junk = name.startswith(".") or name.casefold() in SYSTEM
        if entry.is_dir():
            walked = islice(os.walk(entry.path), WALKED) if junk else ()
            if count := sum(len(files) for _, _, files in walked):
                self.ignored[name] += count
            return junk
        if not junk and end not in LEFTOVERS | METADATA and not name.endswith("~"):
            return False
        kind = name if junk else f"*{end if end in LEFTOVERS | METADATA else '~'}"
        self.ignored["._*" if name.startswith("._") else kind] += 1
        return True

    def _class(self, part: str, path: Path) -> str:
        """Return the name of an image's class, as its folder is spelled."""
        return path.parts[len(self.folders[part].parts)]

    def _named(self, part: str) -> list[str]:
        """Return the classes of a part, as their folders are spelled."""
        return sorted({self._class(part, path) for path in self.files[part]})

    def _name(self, paths: Sequence[Path], row: int) -> str:
        return str(paths[row].relative_to(self.base))

    def _classes(self, part: str) -> dict[str, str]:
        """Return the spelling of each class by its composed name, in order; note what is wrong."""
        folder = self.folders[part]
        self._problems += [
            f"{path} is not in a class; move it to {folder}/CLASS/"
            for path in self.files[part]
            if path.parent == folder
        ]
        classes: dict[str, str] = {}
        for name in self._named(part):
            if (other := classes.setdefault(_composed(name), name)) != name:
                self._problems.append(
                    f"{folder} has the folders {other!a} and {name!a}, whose names are "
                    "the same text in two Unicode forms; merge them into one"
                )
        return classes

    def _compare(self, train: Mapping[str, str], test: Mapping[str, str]) -> None:
        """Note classes that only one of train and test has."""
        looks = {_look(test[key]): test[key] for key in test.keys() - train.keys()}
        for key in sorted(train.keys() - test.keys()):
            if near := looks.pop(_look(train[key]), None):
                self._problems.append(
                    f"{self.base / 'train'} has a class {train[key]!a}, and "
                    f"{self.base / 'test'} has {near!a}; if they are one, spell both alike"
                )
            else:
                self._problems.append(self._lacking("train", train[key], "test"))
        self._problems += [self._lacking("test", name, "train") for name in sorted(looks.values())]

    def _lacking(self, has: str, name: str, lacks: str) -> str:
        return (
            f"{self.base / has} has a class {name!r} that {self.base / lacks} does not have; "
            "the classes of both must be the same"
        )

    def _raise(self) -> None:
        if self._problems:
            raise together(self._problems, len(self._problems), str(self.base))


def _open(paths: Sequence[Path], row: int) -> Image.Image:
    with named(paths[row]):
        return Image.open(paths[row])


def _subfolders(base: Path) -> list[Path]:
    """Return the folders in a folder, less those that are ignored; none if it is unreadable."""
    try:
        with os.scandir(base) as listing:
            names = [entry.name for entry in listing if entry.is_dir()]
    except OSError:
        return []
    kept = (name for name in names if not name.startswith(".") and name.casefold() not in SYSTEM)
    return [base / name for name in sorted(kept)]


def _no_images(folder: Path, there: str = "") -> DataError:
    return DataError(
        f"no images in {folder}; an image folder has train/CLASS/*, test/CLASS/* and, if there "
        f"are any, unlabelled/*{there}; name the folder that holds it with --data"
    )


def _unreadable(path: Path, error: OSError) -> str:
    return f"{path} cannot be read: {error.strerror}; make it readable, or remove it"


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _look(name: str) -> str:
    """Return a name without what one can hardly see."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in plain if not c.isspace() and unicodedata.category(c) != "Cf")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
