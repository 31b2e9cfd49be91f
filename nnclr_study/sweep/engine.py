"""A study from its plan to its last row, on whatever Ray has."""

import shlex
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import ValidationError
from ray import tune
from rich.console import Console

from nnclr_study.errors import ClusterError, DataWarning
from nnclr_study.study import provenance
from nnclr_study.study.config import TrialConfig
from nnclr_study.study.forecast import extremes
from nnclr_study.study.plan import Trial
from nnclr_study.study.rows import Session
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import Study
from nnclr_study.sweep import deaths
from nnclr_study.sweep.aside import aside
from nnclr_study.sweep.causes import told
from nnclr_study.sweep.cluster import check_state_api, joined, resources
from nnclr_study.sweep.mirror import Mirror
from nnclr_study.sweep.nodes import alive
from nnclr_study.sweep.recorder import Recorder
from nnclr_study.sweep.resources import Demand, Node, Placement, place
from nnclr_study.sweep.room import Ready, Room
from nnclr_study.sweep.store import Store
from nnclr_study.sweep.suggestions import EarlyStopping, Suggestions, searched
from nnclr_study.sweep.terminal import Progress
from nnclr_study.sweep.trackers import TensorBoard, Tracker, tracker
from nnclr_study.sweep.trial import RETRIES, Job, in_process, with_trainer
from nnclr_study.sweep.waiting import Waiting
from nnclr_study.trainer.data import load_dataset
from nnclr_study.trainer.findings import findings
from nnclr_study.trainer.plugins import check_plugins
from nnclr_study.trainer.prepared import Prepared, prepare


@dataclass(frozen=True)
class How:
    """Where and with what a study runs."""

    demand: Demand = field(default_factory=Demand)
    data: Path = Path("data")
    address: str | None = None
    """Of a Ray cluster; None: one is started on this machine."""
    optuna_storage: str | None = None
    """SQLAlchemy URL; None: a journal file in the run folder."""
    trackers: Sequence[str] = ()
    """That hear of all rows as well: `mlflow:URI`, `wandb:PROJECT`."""
    store: Store | None = None
    """Of the run folder's twin; None: all nodes see the run folder."""


def run_study(
    study: Study,
    folder: RunFolder,
    todo: Sequence[Trial],
    how: How,
    console: Console,
    page: AbstractContextManager[Callable[[], None]],
) -> None:
    """Run the trials of a study and record them in its run folder, locked by the caller.

    Args:
        study: the study.
        folder: its run folder.
        todo: trials to run; a search adds its own to those that it has begun.
        how: where and with what.
        console: for progress.
        page: gives what is called after a trial has ended. It is left before the cluster is: what
            a thread still frees of Ray's once Ray is gone ends this process.

    Raises:
        DataError: the images cannot be had; found before the first trial starts.
        PluginError: a plug-in fails, or is not what it should be; likewise.
        ClusterError: the cluster or the Optuna storage cannot be reached, or the cluster cannot
            hold a trial.
        RunFolderError: a run to learn from is none.
        RunFolderError: there is no room for a row or a checkpoint, or a part of the run folder
            is a symbolic link.
        StudyFileError: hardly any values of a search's space fit each other.
        UsageError: the demand contradicts itself, or a tracker is none or not installed.
    """
    folder.check_subfolders()
    asked = {word: tracker(word, study, folder) for word in how.trackers}
    configs = [trial.config for trial in todo] or list(extremes(study))
    images, seen = _prepare(configs, how.data, console)
    with told(), joined(how.address) as over, page as changed:
        nodes = resources()
        placement = place(how.demand, nodes)
        if placement.runner == "train":
            check_state_api()
        if not placement.gpus_per_worker:
            _check_needs_no_gpu(study)
        run = None if how.store else folder.path.resolve()
        ready = Ready(run, images, study.plugins, is_ours=how.address is None)
        ready.make(alive())
        mirror = Mirror(study, folder, how.optuna_storage)
        trials = iter(todo)
        if study.search:
            for said in _warm_start(study, mirror):
                console.print(said, style="dim")
            trials = searched(study, folder, mirror, todo, partial(console.print, soft_wrap=True))
        session = _session(study, placement, nodes, seen)
        number = folder.append_session(session)
        console.print(_how(session), style="dim")
        again = [trial.id for trial in todo]
        with (
            Progress(console, study, folder, None if study.search else list(todo)) as progress,
            aside(asked, progress.say) as others,
        ):
            trackers: list[Tracker] = [TensorBoard(folder.tensorboard), *others]
            recorder = Recorder(study, folder, again, session, mirror, progress, changed, trackers)
            room = Room(how.demand, placement, ready, progress)
            suggestions = Suggestions(trials, recorder, room)
            job = Job(
                checkpoints=folder.checkpoints.resolve(),
                data=how.data.resolve(),
                images=images,
                placement=placement,
                ray_storage=str(folder.ray.resolve()),
                store=how.store,
                # A GPU that was only declared has no accelerator type; nccl would wait for it.
                nccl=placement.gpus_per_worker > 0
                and any(key.startswith("accelerator_type:") for node in nodes for key in node),
            )
            work = tuner(
                _trainable(job),
                suggestions,
                recorder,
                f"session-{number}-{uuid4().hex[:8]}",  # what is there already is not used
                job.ray_storage,
                reuse=placement.runner == "in-process",
                # A cluster of ours has no others that could hold anything.
                others=[Waiting(placement, progress)] if how.address else [],
            )
            try:
                work.fit()
            finally:
                over.set()
            if recorder.running:
                raise KeyboardInterrupt  # at SIGUSR1, Tune ends its trials and says nothing


def _trainable(job: Job) -> Any:
    """Return what Tune runs for a trial, with the resources of its slot."""
    placement = job.placement
    if placement.runner == "in-process":
        function, slot = in_process, {"cpu": 1.0, "gpu": placement.gpus_per_worker}
    else:
        function, slot = with_trainer, {"cpu": placement.driver_cpus}
    return tune.with_resources(tune.with_parameters(function, job=job), slot)


def tuner(
    trainable: Any,
    suggestions: Suggestions,
    recorder: Recorder,
    name: str,
    storage: str,
    reuse: bool = False,
    others: Sequence[tune.Callback] = (),
) -> tune.Tuner:
    """Return what runs a study's trials on Ray, one `suggestions` after another.

    Args:
        trainable: what Tune runs for a trial.
        suggestions: which trial is next.
        recorder: hears of what becomes of them.
        name: of the folder of Ray's own files.
        storage: where that folder lies.
        reuse: whether a process may run one trial after another.
        others: hear of what Tune does as well.
    """
    deaths.understand()
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=suggestions,
            num_samples=-1,
            reuse_actors=reuse,
            trial_name_creator=_trial_id,
            trial_dirname_creator=_trial_id,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=storage,
            stop=EarlyStopping(recorder),
            callbacks=[recorder, *others],
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            verbose=0,
        ),
    )


def _trial_id(trial: tune.experiment.Trial) -> str:
    return str(trial.config["trial_id"])


def _warm_start(study: Study, mirror: Mirror) -> Iterator[str]:
    """Teach a search what earlier runs found; yield what was of use, run by run."""
    assert study.search is not None
    for run in study.search.table.warm_start:
        folder = RunFolder.open(Path(run))
        planned, used = folder.planned(), 0
        rows, epochs = folder.trials(planned), folder.epochs(planned)
        finished = [t for t in planned if t.id in rows and epochs.get(t.id)]
        for trial in finished:
            here = replace(trial, condition={k: getattr(trial.config, k) for k in study.knobs})
            if _alike(study, here):
                used += mirror.learn(run, here, rows[trial.id], epochs[trial.id][-1])
        yield f"{used} of {len(finished)} trials of {run} are of use to this search"


def _alike(study: Study, trial: Trial) -> bool:
    """Tell whether a trial differs from this study's own in nothing but what is searched."""
    knobs = study.fixed | trial.condition | {"seed": trial.config.seed}
    try:
        return TrialConfig(**knobs) == trial.config  # type: ignore[arg-type]
    except ValidationError:
        return False


def _prepare(
    configs: Sequence[TrialConfig], data: Path, console: Console
) -> tuple[list[Path], dict[str, str]]:
    """Prepare the images of trials; return the folders in which they lie, and hashes of them.

    What a user should know of them is printed, and warned of. They are loaded once for every way
    in which trials differ in them, which may not work; so are their plug-ins.
    """
    sets = {(config.dataset, config.image_size) for config in configs}
    paths, seen = [], {}
    for name, size in sorted(sets):
        found = prepare(name, size, data.resolve())
        paths += [found.path] if found.path else []
        seen[f"{name}, {size} px"] = found.about(name)["sha256"][:16]
        ours = [c for c in configs if (c.dataset, c.image_size) == (name, size)]
        _tell_findings(found, {c.val_fraction: c for c in ours}.values(), console)
    knobs = {"dataset", "image_size", "val_fraction", "batch_size", "labelled_batch_size"}
    for config in {str(c.model_dump(include=knobs)): c for c in configs}.values():
        load_dataset(config, data, paths)
    knobs = {"image_size", "encoder", "width", "aug_recipe", "aug_strength"}
    for config in {str(c.model_dump(include=knobs)): c for c in configs}.values():
        check_plugins(config)
    return paths, seen


def _tell_findings(found: Prepared, configs: Iterable[TrialConfig], console: Console) -> None:
    """Print what was done to images, and warn of what may be a mistake, each once."""
    all_findings = [(config, findings(found, config)) for config in configs]
    notes = {
        f"{c.dataset}, {c.image_size} px: {note}" for c, f in all_findings for note in f.notes
    }
    for note in sorted(notes):
        console.print(note, style="dim")
    for config, each in all_findings:
        for text in each.warnings:
            said = f"{config.dataset}, {config.image_size} px: {text}"
            warnings.warn(said, DataWarning, stacklevel=2)  # the command prints each once


def _check_needs_no_gpu(study: Study) -> None:
    """Without GPUs, what is counted in them stays 0 for ever."""
    objectives = study.search.table.objectives if study.search else []
    counted = "objective gpu_seconds" if "gpu_seconds" in objectives else None
    if study.budget.gpu_hours is not None:
        counted = "[budget] gpu_hours"
    if counted:
        raise ClusterError(
            f"{counted} of {study.name} counts GPUs, and its trials take none here; join a "
            "cluster that has some with --address, ask for them with --gpus-per-trial, or take "
            "it out"
        )


def _session(
    study: Study, placement: Placement, nodes: Sequence[Node], images: dict[str, str]
) -> Session:
    return Session(
        started_at=datetime.now(UTC),
        command=shlex.join(map(provenance.masked, ["nnclr-study", *sys.argv[1:]])),
        versions=provenance.versions(study.plugins),
        commit=provenance.commit(),
        machine=provenance.machine(),
        images=images,
        cpus=sum(node.get("CPU", 0) for node in nodes),
        gpus=sum(node.get("GPU", 0) for node in nodes),
        nodes=len(nodes),
        runner=placement.runner,
        workers=placement.workers,
        gpus_per_trial=placement.gpus_per_worker * placement.workers,
        max_concurrent=placement.max_concurrent,
    )


def _how(session: Session) -> str:
    where = "a TorchTrainer each" if session.runner == "train" else "in Tune's processes"
    return (
        f"{session.nodes} node(s), {session.cpus:g} CPUs, {session.gpus:g} GPUs: "
        f"{session.max_concurrent} trials at a time, {where}"
    )
