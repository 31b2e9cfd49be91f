"""The Python API, for notebooks and scripts: what the commands do, and what they leave behind.

`import nnclr_study` has all of it; torch, Ray and pandas are loaded by what needs them.
"""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nnclr_study.errors import RunFolderError, UsageError
from nnclr_study.study.plan import Trial, plan_trials
from nnclr_study.study.run_folder import RunFolder, is_export
from nnclr_study.study.spec import Study
from nnclr_study.study.spec import load_study as _load

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    from torch import Tensor, nn

    from nnclr_study.report.load import Tables
    from nnclr_study.report.page import Report


class Run:
    """A run folder, or published evidence, to look at; read anew by every call."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def study(self) -> Study:
        """The study that was run."""
        return RunFolder.look(self.path).study()

    def trials(self) -> "pd.DataFrame":
        """Return a row a planned trial; accuracies are shares of 1, missing unless finished."""
        return self._tables().trials

    def epochs(self) -> "pd.DataFrame":
        """Return a row an epoch of every trial that has begun."""
        return self._tables().epochs

    def analysis(self) -> dict[str, Any]:
        """Return all numbers of the report, as its analysis.json holds them."""
        from nnclr_study.report.analyse import analyse

        return analyse(self._tables())

    def best(self) -> dict[str, Any] | None:
        """Return the condition with the highest mean val_probe_top1; None before any has one.

        It is the entry of `analysis()["arms"]`, with `trial_ids` of its finished trials beside
        it. The highest mean need not be the best condition: `analysis()["best_set"]` holds the
        places in `arms` of all that are not ruled out as the best.
        """
        from nnclr_study.report.analyse import analyse

        tables = self._tables()
        analysis = analyse(tables)
        if analysis["best"] is None:
            return None
        place = analysis["best"]["arm"]
        trials = tables.trials
        own = trials[(trials["arm"] == place) & (trials["status"] == "finished")]
        return {**analysis["arms"][place], "trial_ids": own["trial_id"].tolist()}

    def figures(self) -> "dict[str, go.Figure]":
        """Return the figures of the page by section: light, on white, 720 pixels wide."""
        from nnclr_study.report.static import figures_of, printed

        return {name: printed(figure) for name, figure in figures_of(self.path).items()}

    def _tables(self) -> "Tables":
        from nnclr_study.report.evidence import load_any

        return load_any(self.path)


def load_study(path: str | Path) -> Study:
    """Read and check a study file.

    Raises:
        StudyFileError: it breaks a rule; the error names every problem.
    """
    return _load(Path(path))


def plan(study: Study | str | Path) -> list[Trial]:
    """Return every trial of a study, seed by seed.

    Raises:
        StudyFileError: the study file breaks a rule.
        UsageError: the study is a search, which names its trials as it goes.
    """
    found = study if isinstance(study, Study) else load_study(study)
    if found.search is not None:
        raise UsageError(f"{found.name} is a search, which names its trials as it goes; run it")
    return plan_trials(found)


def run(
    study: Study | str | Path,
    storage: str | Path = "runs",
    *,
    data: str | Path = "data",
    address: str | None = None,
    runner: Literal["auto", "train", "in-process"] = "auto",
    workers: int | None = None,
    gpus_per_trial: float | None = None,
    max_concurrent: int | None = None,
    retry_failed: bool = False,
    optuna_storage: str | None = None,
    tracker: Sequence[str] = (),
) -> Run:
    """Run the trials of a study that have not ended and build its report, as the command does.

    Interrupted, it goes on where it was when called again. Trials that fail are rows of the run
    that is returned, and no error.

    Args:
        study: a study, or its file.
        storage: folder of run folders; the study's is `storage/NAME`.
        data: folder of data sets.
        address: of a Ray cluster to join, as `auto`; None: one is started here and ended.
        runner: what a trial runs in; `auto`: by its size.
        workers: a trial.
        gpus_per_trial: 0.25 packs four trials on a GPU; 0: CPU only.
        max_concurrent: most trials at a time; None: all that fit.
        retry_failed: also run trials that failed before.
        optuna_storage: SQLAlchemy URL; None: a file in the run folder.
        tracker: those that hear of all rows too: `mlflow:URI`, `wandb:PROJECT`.

    Raises:
        StudyError: whatever the command would end with; the text says what to do.
    """
    if address is not None and address.startswith("ray://"):
        raise UsageError(
            f"address={address!r} runs a study, and leaves its run folder, on the cluster: use "
            "the command `nnclr-study run` for that, or an address without ray://"
        )
    from typer import Exit

    from nnclr_study import cli

    parsed = study if isinstance(study, Study) else load_study(study)
    path = Path("runs" if "://" in str(storage) else storage) / parsed.name
    options: dict[str, Any] = {
        "storage": str(storage),
        "data": Path(data),
        "address": address,
        "runner": runner,
        "workers": workers,
        "gpus_per_trial": gpus_per_trial,
        "max_concurrent": max_concurrent,
        "optuna_storage": optuna_storage,
        "tracker": list(tracker),
        "retry_failed": retry_failed,
    }
    named = path / "study.toml" if isinstance(study, Study) else study
    with (
        tempfile.TemporaryDirectory() as home,
        _as_command("run", str(named), *cli.run_flags(**options)),
        suppress(Exit),  # trials failed
    ):
        file = Path(home) / "study.toml"
        file.write_text(parsed.text, encoding="utf-8")
        cli.run(file, **options)
    return Run(path)


@contextmanager
def _as_command(*words: str) -> Iterator[None]:
    """Let a session record the command that does the same."""
    before = sys.argv
    sys.argv = ["nnclr-study", *words]
    try:
        yield
    finally:
        sys.argv = before


def open_run(path: str | Path) -> Run:
    """Return a run folder, or a folder of published evidence, to look at.

    Raises:
        RunFolderError: it is neither.
    """
    return Run(RunFolder.look(Path(path)).path)


def build_report(run: Run | str | Path, out: str | Path | None = None) -> "Report":
    """Write the page of a run and the files beside it, as the command `report` does.

    Args:
        run: a run, or its folder.
        out: where to; by default the run folder's `report/`.

    Returns:
        `answer`, a sentence, and `page`, a path.

    Raises:
        RunFolderError: there is no run folder, or `out` cannot be written.
    """
    from nnclr_study.report.page import build_report as build

    return build(_path(run), None if out is None else Path(out))


def load_encoder(source: Run | str | Path, trial_id: str | None = None) -> "nn.Module":
    """Return a trial's encoder as it was after its last epoch, on the CPU and in eval mode.

    It takes float RGB images (B, 3, S, S) with values from 0 to 1 and nothing subtracted, and
    gives features (B, D). S is its attribute `image_size`: images of another size are resized as
    for the study, the shorter side to S by bicubic interpolation, and the middle cut out. Other
    shapes and uint8 raise ValueError. A ResNet's weights have torchvision's names.

    Args:
        source: a run with `trial_id`, the folder of an export, or the file of a checkpoint.
        trial_id: as `Run.trials()` names it.

    Raises:
        UsageError: the run has no such trial, or the source does not say which trial.
        RunFolderError: the trial has no checkpoint, or what is there is not one of ours.
    """
    from nnclr_study.trainer import checkpoint, exports

    path = _path(source)
    if trial_id is not None:
        folder = RunFolder.open(path)
        if trial_id not in {trial.id for trial in folder.planned()}:
            raise UsageError(f"{path} has no trial {trial_id!r}; Run.trials() names them")
        path = folder.checkpoint(trial_id)
    if is_export(path):
        config, tensors, *_ = exports.read(path)
    elif path.is_dir():
        raise UsageError(
            f"{path} is a folder and no export: say which trial_id, or name a checkpoint's file"
        )
    else:
        snapshot = checkpoint.load(path if trial_id else path.resolve())
        if snapshot is None:
            raise RunFolderError(
                f"{path} is not there: the trial has not begun, or lies elsewhere"
            )
        config, tensors = snapshot.config, checkpoint.encoder_state(snapshot)
    encoder = exports.rebuilt(config, tensors, path)
    size = config.image_size
    encoder.image_size = size  # type: ignore[assignment]
    encoder.register_forward_pre_hook(partial(_check_images, size))
    return encoder


def _check_images(size: int, _module: "nn.Module", given: "tuple[Tensor, ...]") -> None:
    """Refuse images that are not as those that the encoder was trained on."""
    (images,) = given
    if images.shape[1:] != (3, size, size) or not images.is_floating_point():
        raise ValueError(
            f"images are {images.dtype} {tuple(images.shape)}; use float RGB from 0 to 1, "
            f"(B, 3, {size}, {size})"
        )


def _path(run: Run | str | Path) -> Path:
    return run.path if isinstance(run, Run) else Path(run)
