"""Every trial in an Optuna storage: what a search learns from, and optuna-dashboard shows.

The rows of the run folder remain the truth. The storage is brought in step with them when a
`run` begins, and kept so while it lasts: a trial that finished is COMPLETE there, one that early
stopping ended PRUNED, one that failed FAIL, each with the value of all its epochs.
"""

import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from nnclr_study.errors import ClusterError, RunFolderWarning, StudyError, lines_of
from nnclr_study.study.config import TrialConfig
from nnclr_study.study.plan import Trial
from nnclr_study.study.provenance import masked
from nnclr_study.study.rows import EpochRow, TrialRow
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.search import Search, Value
from nnclr_study.study.spec import Study, resolved
from nnclr_study.sweep.cma import CmaEs
from nnclr_study.sweep.journal import Journal
from nnclr_study.sweep.space import applying, params_of

REDUCTION = 3
"""Of the trials that reach a rung of successive halving, one in so many goes on."""

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


@dataclass
class _Running:
    """A trial that runs, as the storage knows it."""

    key: int
    """The storage's own id."""
    epochs: int
    """That the trial is to have."""
    last: int = 0
    """Epoch that was noted last."""
    spared: bool = False
    """Whether early stopping leaves it alone."""


class Mirror:
    """An Optuna study that knows the trials of a run folder, by their ids.

    A journal of the run folder that Optuna cannot read is set aside, and made again from the rows.

    Raises:
        ClusterError: from the constructor, where the storage cannot be had.
        RunFolderError: the journal cannot be written.
    """

    def __init__(self, study: Study, folder: RunFolder, url: str | None = None) -> None:
        self._search = study.search
        self._objectives = study.search.table.objectives if study.search else ["val_probe_top1"]
        declared = study.search is not None and study.baseline
        self._baseline = resolved(study, study.baseline) if declared else None
        self._points = study.points if study.search else []
        try:
            self._open(study, folder, url)
        except StudyError:
            raise
        except Exception as error:  # whatever replaying the logs of a damaged journal raises
            if url is not None or not folder.optuna.exists():
                raise
            _set_aside(folder.optuna, error)
            self._open(study, folder, url)

    def _open(self, study: Study, folder: RunFolder, url: str | None) -> None:
        planned = folder.planned(study)
        self._storage = _storage(url, folder.optuna)
        self.study = optuna.create_study(
            study_name=study.name,
            storage=self._storage,
            directions=_directions(study),
            sampler=_sampler(study.search, len(planned)),
            pruner=_pruner(study),
            load_if_exists=True,
        )
        if self.study.directions != _directions(study):
            raise ClusterError(
                f"the Optuna study {study.name} at {masked(url or str(folder.optuna))} aims at "
                "something else; give this study another name"
            )
        self._study_key = self._storage.get_study_id_from_name(study.name)
        self._running: dict[str, _Running] = {}
        self._repeats: dict[str, list[optuna.Trial]] = {}
        """Suggestions that repeat a trial whose outcome is not known yet, by its id."""
        self._keep_up(planned, folder.trials(planned), folder.epochs(planned))

    def suggested(self, trial: Trial, asked: optuna.Trial) -> None:
        """Note which trial a suggestion has become."""
        for name, value in _names(trial).items():
            asked.set_user_attr(name, value)
        self._running[trial.id] = self._begun(trial, self._key(asked))

    def repeated(self, asked: optuna.Trial, trial_id: str) -> None:
        """Give a suggestion the outcome of the trial that it repeats, once that has ended."""
        asked.set_user_attr("repeats", trial_id)
        self._repeats.setdefault(trial_id, []).append(asked)
        self._tell_repeats(trial_id)

    def begin(self, trial: Trial) -> None:
        """Note that a trial runs, if it is not known to."""
        if trial.id not in self._running:
            self._add(trial, None, [])

    def epoch(self, trial_id: str, row: EpochRow) -> bool:
        """Note an epoch; return whether a search stops the trial there.

        The declared baseline is never stopped: it is what the best is measured against.
        """
        running = self._running[trial_id]
        if row.epoch <= running.last:
            return False  # told again after a retry: it was judged then
        running.last = row.epoch
        value = _value(self._objectives[0], row, 0.0)
        self._storage.set_trial_intermediate_value(running.key, row.epoch, value)
        if running.spared or row.epoch == running.epochs:
            return False
        return bool(self.study.pruner.prune(self.study, self._storage.get_trial(running.key)))

    def end(self, row: TrialRow, last: EpochRow | None) -> None:
        """Note what became of a trial."""
        key = self._running.pop(row.trial_id).key
        for name, value in _facts(row).items():
            self._storage.set_trial_user_attr(key, name, value)
        trial = optuna.trial.Trial(self.study, key)
        for name, value in self._constraints(row).items():
            trial.set_constraint(name, value)
        state, values = self._outcome(row, last)
        self.study.tell(trial, values, state)
        self._tell_repeats(row.trial_id)

    def _tell_repeats(self, trial_id: str) -> None:
        trials = self.study.get_trials(deepcopy=False)
        there = [trial for trial in trials if trial.user_attrs.get("trial_id") == trial_id]
        if trial_id in self._running or not (there and there[-1].state.is_finished()):
            return
        known = there[-1]
        for asked in self._repeats.pop(trial_id, []):
            for name, value in known.constraints.items():
                asked.set_constraint(name, value)
            if known.state == TrialState.PRUNED:  # what it is worth lies in its epochs
                for epoch, value in known.intermediate_values.items():
                    asked.report(value, epoch)
            values = known.values if known.state == TrialState.COMPLETE else None
            self.study.tell(asked, values, known.state)

    def learn(self, run: str, trial: Trial, row: TrialRow, last: EpochRow) -> bool:
        """Take in a finished trial of another run; return whether it is of use."""
        assert self._search is not None
        params, space = params_of(trial, self._search.space)
        state, values = self._outcome(row, last)
        if state != TrialState.COMPLETE or set(params) != set(applying(trial, self._search)):
            return False
        name = f"{run}: {trial.id}"
        trials = self.study.get_trials(deepcopy=False)
        if name not in {trial.user_attrs.get("warm_start") for trial in trials}:
            self.study.add_trial(
                create_trial(
                    values=values,
                    params=params,
                    distributions=space,
                    constraints=self._constraints(row),
                    user_attrs={"warm_start": name},
                )
            )
        return True

    def _keep_up(
        self,
        planned: Iterable[Trial],
        ended: Mapping[str, TrialRow],
        recorded: Mapping[str, list[EpochRow]],
    ) -> None:
        """Bring the storage in step with the rows."""
        trials = self.study.get_trials(deepcopy=False)
        there = {trial.user_attrs.get("trial_id"): trial for trial in trials}
        for trial in planned:
            row, rows, shown = ended.get(trial.id), recorded.get(trial.id, []), there.get(trial.id)
            if shown is None and not self._search:
                if row is not None or rows:
                    self._add(trial, row, rows)
                continue
            if shown is None and (row is not None or rows):
                self._add(trial, None, [])
            elif shown is not None and shown.state == TrialState.RUNNING:
                last = max(shown.intermediate_values, default=0)
                self._running[trial.id] = self._begun(trial, self._key(shown), last)
            if trial.id in self._running:
                # Told again, epoch by epoch: early stopping notes how far each has come.
                for epoch in rows:
                    self.epoch(trial.id, epoch)
                if row is not None:
                    self.end(row, rows[-1] if rows else None)
        for shown in trials:
            if shown.state != TrialState.RUNNING or "trial_id" in shown.user_attrs:
                continue
            if (repeated := shown.user_attrs.get("repeats")) is not None:
                self.repeated(optuna.trial.Trial(self.study, self._key(shown)), repeated)
            else:
                # Asked for and never begun.
                self.study.tell(shown.number, state=TrialState.FAIL)
                if point := shown.system_attrs.get("fixed_params"):
                    self.study.enqueue_trial(point)

    def _add(self, trial: Trial, row: TrialRow | None, rows: list[EpochRow]) -> None:
        params, space = params_of(trial, self._search.space if self._search else {})
        state, values = TrialState.RUNNING, None
        if row is not None:
            state, values = self._outcome(row, rows[-1] if rows else None)
        key = self._storage.create_new_trial(
            self._study_key,
            create_trial(
                state=state,
                values=values,
                params=params,
                distributions=space,
                user_attrs=_names(trial) | (_facts(row) if row else {}),
                system_attrs=self._as_asked(trial),
                constraints=self._constraints(row) if row else None,
                intermediate_values={r.epoch: _value(self._objectives[0], r, 0.0) for r in rows},
            ),
        )
        if row is None:
            self._running[trial.id] = self._begun(trial, key, len(rows))

    def _as_asked(self, trial: Trial) -> dict[str, Any]:
        """Return what Optuna notes of a trial that was a point, so that it is not tried again."""
        for point in self._points:
            if all(trial.condition.get(knob) == value for knob, value in point.items()):
                return {"fixed_params": point}
        return {}

    def _begun(self, trial: Trial, key: int, last: int = 0) -> _Running:
        knobs = {knob: getattr(trial.config, knob) for knob in self._baseline or {}}
        return _Running(key, trial.config.epochs, last, knobs == self._baseline)

    def _key(self, trial: optuna.trial.BaseTrial) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_key, trial.number)

    def _outcome(
        self, row: TrialRow, last: EpochRow | None
    ) -> tuple[TrialState, list[float] | None]:
        """Return Optuna's state, and the objectives of a trial that finished with all of them."""
        if row.status != "finished" or last is None:
            return (TrialState.PRUNED if row.status == "stopped" else TrialState.FAIL), None
        values = [_value(name, last, row.gpu_seconds) for name in self._objectives]
        if not all(map(math.isfinite, values)):
            return TrialState.FAIL, None
        return TrialState.COMPLETE, values

    def _constraints(self, row: TrialRow) -> dict[str, float]:
        """Return by how much a trial breaks each constraint; 0 and less keep it."""
        limit = self._search.table.max_memory_gb if self._search else None
        if limit is None:
            return {}
        # Every trial has one, as Optuna asks; of which nothing is known keeps it.
        return {"memory_gb": (row.peak_memory_bytes or 0) / 1e9 - limit}


def _directions(study: Study) -> list[StudyDirection]:
    names = study.search.directions if study.search else ["maximize"]
    return [StudyDirection[name.upper()] for name in names]


def _value(name: str, row: EpochRow, gpu_seconds: float) -> float:
    value = gpu_seconds if name == "gpu_seconds" else getattr(row, name)
    return math.nan if value is None else float(value)


def _names(trial: Trial) -> dict[str, Value]:
    return {"trial_id": trial.id, "seed": trial.config.seed, "digest": trial.config.digest}


def _facts(row: TrialRow) -> dict[str, Value]:
    facts = {
        "gpu_seconds": row.gpu_seconds,
        "seconds": row.seconds,
        "peak_memory_bytes": row.peak_memory_bytes,
        "host": row.host,
        "device": row.device,
        "error": row.error,
    }
    return {key: value for key, value in facts.items() if value is not None}


def _storage(url: str | None, journal: Path) -> optuna.storages.BaseStorage:
    if url is None:
        return optuna.storages.JournalStorage(Journal(journal))
    try:
        return optuna.storages.RDBStorage(url)
    except Exception as error:  # SQLAlchemy's drivers raise what they like
        reason = lines_of(error)[0]
        raise ClusterError(
            f"no Optuna storage at {masked(url)}: {masked(reason, url)}; give an SQLAlchemy "
            "URL, as sqlite:///optuna.db or postgresql+psycopg://USER@HOST/DATABASE, or leave "
            "--optuna-storage out"
        ) from None  # the error itself may hold the password


def _set_aside(journal: Path, error: Exception) -> None:
    names = (f"{journal.name}.bad{number or ''}" for number in itertools.count())
    bad = next(path for path in map(journal.with_name, names) if not path.exists())
    journal.replace(bad)
    warnings.warn(
        RunFolderWarning(
            f"{journal} is not a journal that Optuna can read ({type(error).__name__}: {error}): "
            f"it is kept as {bad.name}, and made again from the rows"
        ),
        stacklevel=2,
    )


def _sampler(search: Search | None, before: int) -> optuna.samplers.BaseSampler:
    """Return a search's sampler; the trials before it keep it from saying the same again."""
    if search is None:
        return optuna.samplers.RandomSampler()
    seed = (search.table.seed + before) % 2**32
    kind = search.table.sampler
    if kind == "tpe":
        return optuna.samplers.TPESampler(
            seed=seed, multivariate=True, group=True, constant_liar=True
        )
    kinds: dict[str, Callable[..., optuna.samplers.BaseSampler]] = {
        "random": optuna.samplers.RandomSampler,
        "qmc": optuna.samplers.QMCSampler,
        "gp": optuna.samplers.GPSampler,
        "cmaes": CmaEs,
        "nsga2": optuna.samplers.NSGAIISampler,
    }
    return kinds[kind](seed=seed)


def _pruner(study: Study) -> optuna.pruners.BasePruner:
    if study.search is None or study.search.table.early_stopping == "none":
        return optuna.pruners.NopPruner()
    epochs = study.fixed.get("epochs", TrialConfig.model_fields["epochs"].default)
    if axis := study.search.space.get("epochs"):
        epochs = min(axis.choices) if axis.choices else axis.least
    first = study.search.min_epochs(int(epochs))
    if study.search.table.early_stopping == "median":
        return optuna.pruners.MedianPruner(
            n_startup_trials=4,
            n_warmup_steps=first,
            n_min_trials=4,  # that reported epochs: a repeat of a trial does not count
        )
    return optuna.pruners.SuccessiveHalvingPruner(first, REDUCTION)
