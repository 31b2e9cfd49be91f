"""Who hears of every epoch and every end of a trial, beside the run folder: its mirrors.

TensorBoard's event files are always written. MLflow and Weights & Biases are asked for with
`--tracker`, have a run a trial, and know again the runs of a run folder that goes on.
"""

import hashlib
import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tensorboardX import SummaryWriter

from nnclr_study.errors import UsageError
from nnclr_study.study.files import subfolder
from nnclr_study.study.plan import Trial
from nnclr_study.study.provenance import masked
from nnclr_study.study.rows import EpochRow, TrialRow
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import Study

if TYPE_CHECKING:
    import mlflow
    import wandb

FACTS = {"status", "error", "host", "device", "gpu_seconds", "peak_memory_bytes"}
"""Of a trial that has ended; its accuracies are those of its last epoch."""
SYNC_SECONDS = 15.0
"""How long a trial's begin and its end may wait for Weights & Biases."""


class Tracker(Protocol):
    """Hears of what the recorder has written, each epoch once."""

    def epoch(self, trial: Trial, row: EpochRow) -> None:
        """Take in one epoch of a trial."""

    def end(self, trial: Trial, row: TrialRow) -> None:
        """Take in what became of a trial."""

    def close(self) -> None:
        """Leave the trials that have not ended: the study has been put down, or is over."""


class TensorBoard:
    """Event files, a folder a trial: `tensorboard --logdir RUN/tensorboard`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writers: dict[str, SummaryWriter] = {}

    def epoch(self, trial: Trial, row: EpochRow) -> None:
        """Write one epoch of a trial."""
        if trial.id not in self._writers:
            home = subfolder(self._path.parent, f"{self._path.name}/{trial.id}")
            self._writers[trial.id] = SummaryWriter(str(home))
        writer = self._writers[trial.id]
        for name, value in _numbers(row).items():
            writer.add_scalar(name, value, row.epoch)
        writer.flush()

    def end(self, trial: Trial, _row: TrialRow) -> None:
        """Close a trial's file."""
        writer = self._writers.pop(trial.id, None)
        if writer is not None:
            writer.close()

    def close(self) -> None:
        """Close all files."""
        for writer in self._writers.values():
            writer.close()


class MLflow:
    """A run a trial, in the experiment that has the study's name.

    Args:
        uri: of a tracking server or a database, as `sqlite:///mlflow.db`.
        study: the study.
        folder: its run folder.

    Raises:
        UsageError: from the constructor, where mlflow is not installed.
    """

    def __init__(self, uri: str, study: Study, folder: RunFolder) -> None:
        # It would tell its makers of its use, which is no business of a study.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        try:
            from mlflow import MlflowClient
        except ImportError:
            raise _not_installed("mlflow") from None
        logging.getLogger("mlflow").setLevel(logging.CRITICAL)
        self._new_client = MlflowClient
        self._uri = uri
        self._study = study
        self._folder = folder
        self._runs: dict[str, str] = {}

    def epoch(self, trial: Trial, row: EpochRow) -> None:
        """Log the numbers of an epoch as metrics, with the epoch as their step."""
        self._log(self._run(trial), _numbers(row), row.epoch)

    def end(self, trial: Trial, row: TrialRow) -> None:
        """Log the facts of a trial that has ended, and end its run."""
        run, facts = self._run(trial), _facts(row)
        for name, value in facts.items():
            if isinstance(value, str):
                self._client.set_tag(run, name, value)
        numbers = {name: value for name, value in facts.items() if not isinstance(value, str)}
        self._log(run, numbers, row.epochs)
        ends = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
        self._client.set_terminated(run, ends[row.status])
        del self._runs[trial.id]

    def close(self) -> None:
        """End the runs of trials that have not ended as killed."""
        for run in self._runs.values():
            self._client.set_terminated(run, "KILLED")

    @cached_property
    def _client(self) -> "mlflow.MlflowClient":
        return self._new_client(tracking_uri=self._uri)

    @cached_property
    def _experiment(self) -> str:
        known = self._client.get_experiment_by_name(self._study.name)
        if known is not None:
            return str(known.experiment_id)
        return str(self._client.create_experiment(self._study.name))

    def _run(self, trial: Trial) -> str:
        if trial.id not in self._runs:
            self._runs[trial.id] = self._begin(trial)
        return self._runs[trial.id]

    def _begin(self, trial: Trial) -> str:
        """Return the run that a trial had in an earlier call of `run`, or else a new one."""
        from mlflow.entities import Param

        key = _key(self._study, self._folder, trial)
        known = self._client.search_runs([self._experiment], f"tags.nnclr_study = '{key}'")
        if known:
            run = str(known[0].info.run_id)
            self._client.update_run(run, status="RUNNING")
            return run
        made = self._client.create_run(
            self._experiment, tags={"nnclr_study": key}, run_name=trial.id
        )
        knobs = trial.config.model_dump().items()
        params = [Param(knob, str(value)) for knob, value in knobs]
        self._client.log_batch(made.info.run_id, params=params)
        return str(made.info.run_id)

    def _log(self, run: str, numbers: Mapping[str, float], epoch: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, epoch) for name, value in numbers.items()]
        self._client.log_batch(run, metrics=metrics)


class WeightsAndBiases:
    """A run a trial, in a group that has the study's name; offline with WANDB_MODE=offline.

    Args:
        project: its name, or ENTITY/PROJECT.
        study: the study.
        folder: its run folder; wandb's own files go there.

    Raises:
        UsageError: from the constructor, where wandb is not installed or has no key.
    """

    def __init__(self, project: str, study: Study, folder: RunFolder) -> None:
        try:
            from wandb import Settings, init, login, setup
            from wandb.errors import AuthenticationError
        except ImportError:
            raise _not_installed("wandb") from None
        # Silent, and rows alone: no terminal, and no command line, which may hold a password.
        self._settings = Settings(
            silent=True,
            console="off",
            disable_git=True,
            save_code=False,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_disable_stats=True,
            init_timeout=SYNC_SECONDS,
            finish_timeout=SYNC_SECONDS,
        )
        if setup(self._settings).settings.mode == "online":
            # wandb would ask for a key on the terminal, behind the progress.
            with suppress(AuthenticationError):  # there is one, and it is refused when used
                if not login(prompt=False):
                    raise UsageError(
                        f"--tracker wandb:{project} has no key: give one with `wandb login` or in "
                        "WANDB_API_KEY, or set WANDB_MODE=offline and send the runs later "
                        "(`wandb sync`)"
                    )
        self._init = init
        self._entity, _, self._project = project.rpartition("/")
        self._study = study
        self._folder = folder
        self._runs: dict[str, wandb.Run] = {}

    def epoch(self, trial: Trial, row: EpochRow) -> None:
        """Log the numbers of an epoch, with the epoch as their step."""
        self._run(trial).log(_numbers(row), step=row.epoch)

    def end(self, trial: Trial, row: TrialRow) -> None:
        """Add the facts of a trial that has ended to its summary, and finish its run."""
        run = self._run(trial)
        run.summary.update(_facts(row))
        del self._runs[trial.id]
        run.finish(exit_code=int(row.status == "failed"))

    def close(self) -> None:
        """Finish the runs of trials that have not ended, as failed."""
        for run in self._runs.values():
            run.finish(exit_code=1)

    def _run(self, trial: Trial) -> "wandb.Run":
        if trial.id not in self._runs:
            self._runs[trial.id] = self._init(
                entity=self._entity or None,
                project=self._project,
                group=self._study.name,
                name=trial.id,
                id=_key(self._study, self._folder, trial),
                resume="allow",
                reinit="create_new",
                config=trial.config.model_dump(),
                dir=str(self._folder.path.resolve()),
                settings=self._settings,
            )
        return self._runs[trial.id]


def tracker(word: str, study: Study, folder: RunFolder) -> Tracker:
    """Return what `--tracker` asks for; nobody is asked for anything yet.

    Args:
        word: `mlflow:URI` or `wandb:PROJECT`.
        study: the study.
        folder: its run folder.

    Raises:
        UsageError: it is neither, or its package is not installed.
    """
    kind, _, target = word.partition(":")
    if target and kind == "mlflow":
        return MLflow(target, study, folder)
    if target and kind == "wandb":
        return WeightsAndBiases(target, study, folder)
    raise UsageError(
        f"--tracker {masked(word)} names no tracker; use mlflow:URI, as "
        "mlflow:sqlite:///mlflow.db or mlflow:http://HOST:5000, or wandb:PROJECT"
    )


def _numbers(row: EpochRow) -> dict[str, float]:
    return row.model_dump(exclude={"epoch"}, exclude_none=True)


def _facts(row: TrialRow) -> dict[str, str | float]:
    # An error of an earlier attempt goes when a later one has none.
    return {"error": ""} | row.model_dump(include=FACTS, exclude_none=True)


def _key(study: Study, folder: RunFolder, trial: Trial) -> str:
    """Return what names a trial of this run folder: the same study run afresh has others."""
    begun = folder.sessions()[0].started_at.isoformat()
    return hashlib.sha256(f"{study.name} {begun} {trial.id}".encode()).hexdigest()[:16]


def _not_installed(package: str) -> UsageError:
    return UsageError(
        f"--tracker {package}:.. needs {package}, which is not installed: "
        f"pip install 'nnclr-study[{package}]'"
    )
