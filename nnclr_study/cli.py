"""The command line: one thin function a command, and the one place that prints errors."""

import inspect
import json
import os
import re
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table
from typer.core import TyperGroup

import nnclr_study
from nnclr_study import crash
from nnclr_study.errors import (
    ClusterError,
    DataWarning,
    StudyError,
    StudyWarning,
    UsageError,
    chain,
)
from nnclr_study.interrupts import by_sigterm, held
from nnclr_study.output import Output, console
from nnclr_study.printable import one_line

if TYPE_CHECKING:
    from nnclr_study.study.run_folder import RunFolder
    from nnclr_study.sweep.lease import Lease

INTERRUPTED = "interrupted; the same command goes on where it was"


class _Program(TyperGroup):
    """The program, whose usage errors repeat words of the command line on one line."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that is named."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if isinstance(message := getattr(error, "message", None), str):
                error.message = one_line(message)  # type: ignore[attr-defined]
            raise


app = typer.Typer(
    name="nnclr-study",
    cls=_Program,
    help="Hyperparameter studies of NNCLR on Ray, with reports that say honestly what they show.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
stdout = Output("stdout")
out, err = console(stdout), console(Output("stderr"))

StudyFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="Study file, as search_spaces/quickstart.toml")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON")]
DataFolder = Annotated[
    Path, typer.Option("--data", help="Folder of data sets; downloads go there")
]


def _print_version(wanted: bool) -> None:
    if wanted:
        out.write(f"nnclr-study {nnclr_study.__version__}\n")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version, and exit"
        ),
    ] = False,
) -> None:
    pass


@app.command()
def plan(
    file: StudyFile,
    like: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Forecast from the rows of this run")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Forecast from some steps, taken here and now")
    ] = False,
    data: DataFolder = Path("data"),
    nodes: Annotated[int, typer.Option(min=1, help="Of the cluster to pack onto")] = 1,
    node_cpus: Annotated[int | None, typer.Option(min=1, help="CPUs of each node")] = None,
    node_gpus: Annotated[int, typer.Option(min=0, help="GPUs of each node")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Workers a trial")] = None,
    gpus_per_trial: Annotated[float | None, typer.Option(min=0, help="As in `run`")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the trials of a study file and what they will take; run nothing.

    Without --like or --measure, hours and disk are not known; without --like, seeds are taken to
    scatter as in a published study. --node-cpus tells of a cluster, onto which trials are packed.

    Example: nnclr-study plan search_spaces/quickstart.toml --measure --node-cpus 2
    """
    from nnclr_study.report.noise import resolution
    from nnclr_study.study.forecast import extremes, forecast
    from nnclr_study.study.plan import plan_trials
    from nnclr_study.study.plan_warnings import plan_warnings
    from nnclr_study.study.plugins import require
    from nnclr_study.study.spec import load_study
    from nnclr_study.tell import (
        forecast_lines,
        headline,
        resolution_line,
        space_table,
        trials_table,
    )

    of_nodes = {"--nodes": nodes > 1, "--node-gpus": node_gpus, "--workers": workers}
    of_nodes["--gpus-per-trial"] = gpus_per_trial is not None
    if node_cpus is None and (given := [flag for flag, value in of_nodes.items() if value]):
        raise UsageError(f"{given[0]} tells of a cluster: say --node-cpus as well")
    study = load_study(file)
    require(study.plugins, file)
    trials = [] if study.search else plan_trials(study)
    placement = None
    if node_cpus is not None:
        from nnclr_study.sweep.resources import Demand, place

        cluster = [{"CPU": float(node_cpus), "GPU": float(node_gpus)}] * nodes
        placement = place(Demand("auto", workers, gpus_per_trial, None), cluster)
    paces, noise, other = [], None, []
    if like is not None:
        from nnclr_study.report.earlier import noise_of, paces_of, unlike
        from nnclr_study.report.evidence import load_any

        earlier = load_any(like)
        paces, noise = paces_of(earlier), noise_of(earlier)
        other = unlike(earlier, [trial.config for trial in trials] or extremes(study))
    if measure:
        from nnclr_study.trainer.pace import pace
        from nnclr_study.trainer.prepared import prepare

        for config in dict.fromkeys(extremes(study)):
            prepare(config.dataset, config.image_size, data)
            paces.append(pace(config, data, placement.gpus_per_worker if placement else None))
    coming = forecast(study, paces)
    resolved = resolution(study, noise)
    if as_json:
        rows = [{"trial_id": t.id, "config": t.config.model_dump()} for t in trials]
        further = {
            "pace_unlike": other,
            "max_concurrent": placement.max_concurrent if placement else None,
            "smallest_difference": resolved.difference if resolved else None,
            "noise": asdict(resolved.noise) if resolved else None,
        }
        about = {"study": study.name, "question": study.question, "trials": rows}
        about["warnings"] = plan_warnings(study)
        _print_json(about | {"forecast": asdict(coming) | further})
        return
    if study.search:
        out.print(space_table(study))
    else:
        out.write(trials_table(trials))
    for line in (headline(study), *forecast_lines(study, coming, placement, other)):
        out.print(line)
    if not study.search:
        out.print(resolution_line(resolved))
    for warning in plan_warnings(study):
        out.print(f"warning: {warning}")


@app.command()
@by_sigterm()
def run(
    file: StudyFile,
    storage: Annotated[
        str,
        typer.Option(
            help="Folder of run folders; this study's is STORAGE/NAME. Or s3://BUCKET/FOLDER, "
            "with a working copy in runs",
        ),
    ] = "runs",
    data: DataFolder = Path("data"),
    address: Annotated[
        str | None,
        typer.Option(
            help="Ray cluster to join, as auto; default: start one here. With ray://HOST:10001 "
            "the study runs there, and paths are that cluster's"
        ),
    ] = None,
    runner: Annotated[
        Literal["auto", "train", "in-process"],
        typer.Option(help="A TorchTrainer a trial, or Tune's own processes; auto: by trial size"),
    ] = "auto",
    workers: Annotated[int | None, typer.Option(min=1, help="Workers a trial")] = None,
    gpus_per_trial: Annotated[
        float | None, typer.Option(min=0, help="0.25 packs four trials on a GPU; 0: CPU only")
    ] = None,
    max_concurrent: Annotated[
        int | None, typer.Option(min=1, help="Most trials at a time; default: all that fit")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Also run trials that failed before")
    ] = False,
    optuna_storage: Annotated[
        str | None,
        typer.Option(help="SQLAlchemy URL; default: the file optuna.journal in the run folder"),
    ] = None,
    tracker: Annotated[
        list[str] | None,
        typer.Option(help="Hears of all rows too: mlflow:URI or wandb:PROJECT; repeatable"),
    ] = None,
) -> None:
    """Run the trials of a study that have not ended, then build its report.

    Interrupted (Ctrl-C), it goes on where it was when run again.

    Example: nnclr-study run search_spaces/quickstart.toml
    """
    from nnclr_study.study.budget import allowed
    from nnclr_study.study.configurations import exhausted
    from nnclr_study.study.plan_warnings import plan_warnings
    from nnclr_study.study.plugins import require
    from nnclr_study.study.run_folder import RunFolder
    from nnclr_study.study.spec import load_study
    from nnclr_study.sweep.local_ray import find_place
    from nnclr_study.sweep.missing import restore_rows

    study = load_study(file)
    if address is not None and address.startswith("ray://"):
        from nnclr_study.sweep.client import run_there

        flags = run_flags(
            storage=storage,
            data=data,
            runner=runner,
            workers=workers,
            gpus_per_trial=gpus_per_trial,
            max_concurrent=max_concurrent,
            optuna_storage=optuna_storage,
            tracker=tracker,
            retry_failed=retry_failed,
        )
        raise typer.Exit(run_there(address, study.text, flags))
    require(study.plugins, file)
    store, lease = None, None
    if "://" in storage:
        from nnclr_study.sweep.store import Store

        store, storage = Store(storage, study.name), "runs"
    folder = RunFolder.create(Path(storage) / study.name)
    crash.run_folder = folder.path
    if store:
        from nnclr_study.sweep.lease import Lease

        lease = Lease(store, folder.path)
    with _sent(folder, lease), folder.lock():
        if store and lease:
            lease.take(out.print)
            folder.guards.append(lease.check)
            store.pull(folder.path)
        folder.keep(study)
        if restored := restore_rows(folder, study, store):
            out.print(restored)
        todo = folder.todo(study, retry_failed)
        todo, over = allowed(folder, study, todo, retry_failed)
        more = bool(todo or study.search)
        if more and over is None:
            for warning in plan_warnings(study):
                err.print(f"warning: {warning}", soft_wrap=True)
            if address is None:
                find_place()  # fails early: the next lines, and Ray's start, take long
            with _loaded(), held():
                from nnclr_study.report.live import Interim
                from nnclr_study.sweep.engine import How, run_study
                from nnclr_study.sweep.resources import Demand

            demand = Demand(runner, workers, gpus_per_trial, max_concurrent)
            how = How(demand, data, address, optuna_storage, tracker or (), store)
            send = lease.push if lease else lambda: None
            with _rows_sent(lease):
                run_study(study, folder, todo, how, out, Interim(folder.path, send))
            folder.mend()
            if store and lease:
                lease.push()  # first: of most files, a pull brings those that are longer
                store.pull(folder.path)
        known = folder.planned(study)
        ended = folder.trials(known)
        counts = Counter(ended[trial.id].status for trial in known if trial.id in ended)
        if not more:
            said = ", ".join(f"{counts[state]} {state}" for state in ("finished", "failed"))
            out.print(f"all {len(known)} trials have ended: {said}")
        elif over := over or exhausted(study, known, ended):
            out.print(over)
        from nnclr_study.report.page import build_report

        # Anew, even if nothing ran: a run may have been killed between its last row and its page.
        answer = build_report(folder.path, option="--storage").answer
        out.print()
        out.print(answer)
        out.print(f"report: {folder.report / 'index.html'}")
        if lease:
            lease.push()  # while the lock keeps another `run` here from taking over
    if counts["failed"]:
        out.print(f"{counts['failed']} failed; --retry-failed runs them again")
    stdout.flush()
    stdout.lost = None  # the run folder has it all
    if counts["failed"]:
        raise typer.Exit(1)


def run_flags(**options: Any) -> list[str]:
    """Return options of `run`, by its parameters' names, as one would type them."""
    flags = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            flags += [flag] * value
        elif isinstance(value, list):
            flags += [f"{flag}={each}" for each in value]
        elif value is not None:
            flags.append(f"{flag}={value}")
    return flags


@contextmanager
def _loaded() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ClusterError(
            f"what `run` needs does not load: {error}; `nnclr-study doctor` looks at what is "
            "installed, and pip install -e . in nnclr-study's clone installs it"
        ) from error


@contextmanager
def _sent(folder: "RunFolder", lease: "Lease | None") -> Iterator[None]:
    """After Ctrl-C, send a run folder whose page does not say that it runs; end the lease."""
    try:
        yield
    except KeyboardInterrupt:
        from nnclr_study.report.page import build_report

        with suppress(StudyError):
            build_report(folder.path)
        _push(lease)
        raise
    finally:
        if lease:
            lease.release()


@contextmanager
def _rows_sent(lease: "Lease | None") -> Iterator[None]:
    """Send the rows of a run that an error ends; that error is reported, whatever sending does."""
    try:
        yield
    except Exception:
        _push(lease)
        raise


def _push(lease: "Lease | None") -> None:
    """Send a run folder if its lease is held and its object store can be used."""
    if lease and lease.is_held:
        with suppress(StudyError, OSError):
            lease.push()


@app.command()
def status(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="As runs/quickstart")],
    as_json: AsJson = False,
) -> None:
    """Print how far a study is.

    Example: nnclr-study status runs/quickstart
    """
    from nnclr_study.study.budget import spent_of
    from nnclr_study.study.configurations import exhausted
    from nnclr_study.study.progress import progress, warn_of_missing_epochs
    from nnclr_study.study.run_folder import RunFolder
    from nnclr_study.summaries import status_table

    folder = RunFolder.open(run_folder)
    study = folder.study()
    planned = folder.planned(study)
    ended, epochs = folder.trials(planned), folder.epoch_seconds(planned)
    cells = progress(planned, ended, epochs, folder.is_running())
    warn_of_missing_epochs(folder.path, cells, ended)
    counts = Counter(cell.status for cell in cells)
    spent = spent_of(study, planned, ended, epochs, folder.sessions())
    over, nothing_new = spent.exhausts(study.budget), exhausted(study, planned, ended)
    if as_json:
        rows = [
            {
                "trial_id": cell.trial.id,
                "status": cell.status,
                "epochs_done": cell.epochs_done,
                "epochs": cell.trial.config.epochs,
                "error": ended[cell.trial.id].error if cell.trial.id in ended else None,
            }
            for cell in cells
        ]
        about = {"study": study.name, "counts": counts, "budget": over, "exhausted": nothing_new}
        _print_json(about | {"trials": rows})
        return
    out.write(status_table(cells, ended))
    said = ", ".join(f"{counts[status]} {status}" for status in counts)
    out.print(f"{study.name}: {len(cells)} trials: {said}")
    if nothing_new is not None:
        out.print(nothing_new)
    elif over is not None and (study.search or counts["waiting"] or counts["interrupted"]):
        out.print(over)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="As runs/quickstart")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Folder; default: RUN/report (of evidence RUN), and comparison"
        ),
    ] = None,
    static: Annotated[
        bool, typer.Option("--static", help="Each figure also as PNG and SVG; needs a Chrome")
    ] = False,
) -> None:
    """Build the report page of a run folder, finished or not; compare the studies of several.

    Needs neither torch nor Ray: a copied run folder is enough, and so is published evidence.

    Example: nnclr-study report runs/quickstart -o reports/mine
    """
    from nnclr_study.report.page import build_report

    names = Counter(folder.name for folder in runs)
    for place, folder in enumerate(runs, start=1):
        name = folder.name if names[folder.name] == 1 else f"{folder.name}-{place}"
        target = output / name if output and len(runs) > 1 else output
        built = build_report(folder, target, option="--output")
        out.print(built.answer)
        out.print(f"report: {built.page}")
        if static:
            from nnclr_study.report.static import figures_of, write_images

            images = write_images(figures_of(folder), built.page.parent / "figures")
            out.print(f"figures: {len(images)} files in {built.page.parent / 'figures'}")
    if len(runs) > 1:
        from nnclr_study.report.compare_page import build_comparison

        built = build_comparison(runs, output or Path("comparison"))
        out.print()
        out.print(built.answer)
        out.print(f"comparison: {built.page}")


@app.command()
def restore(
    evidence: Annotated[Path, typer.Argument(metavar="EVIDENCE", help="As reports/quickstart")],
    storage: Annotated[Path, typer.Option(help="Folder for the run folder")] = Path("runs"),
) -> None:
    """Make a run folder of published evidence: `run` goes on with it, `confirm` chooses from it.

    Trials that ended are not trained again. Checkpoints are not published: what needs an encoder
    has none, and a trial that had only begun starts anew.

    Example: nnclr-study restore reports/quickstart
    """
    from nnclr_study.report.evidence import restore as restored

    folder = restored(evidence, storage)
    study = folder.study()
    known, left = len(folder.planned(study)), len(folder.todo(study))
    out.print(f"{folder.path}: {known - left} of {known} known trials have ended")
    where = "" if storage == Path("runs") else f" --storage {storage}"
    out.print(f"next: nnclr-study run {folder.study_file}{where}")


@app.command()
@by_sigterm()
def watch(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="As runs/quickstart")],
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any that is free")] = 8000,
) -> None:
    """Serve a study's page on 127.0.0.1, always up to date, until Ctrl-C.

    Example: nnclr-study watch runs/quickstart
    """
    from nnclr_study.report.live import serving

    def say(reason: str) -> None:
        err.write(f"error: {reason}\n")

    with serving(run_folder, port, say) as server:
        out.print(f"http://127.0.0.1:{server.server_address[1]}  (Ctrl-C ends it)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


@app.command()
def confirm(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="As runs/four_way")],
    best: Annotated[
        int | None,
        typer.Option("-k", min=1, help="Best conditions beside baseline; default: 3 at most"),
    ] = None,
    seeds: Annotated[int, typer.Option(min=2, help="Fresh seeds of each")] = 5,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Of each trial; default: as in the run")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="File, and name; default: RUN_confirm.toml"),
    ] = None,
) -> None:
    """Write the study that trains a run's baseline and best again, on seeds it has not used.

    The best of many trials looks better than it is. What this study shows is the result. A search
    may be short and its confirmation long, with more --epochs.

    Example: nnclr-study confirm runs/four_way -k 3 --seeds 5
    """
    from nnclr_study.study.confirm import confirmation
    from nnclr_study.study.plan import plan_trials
    from nnclr_study.study.run_folder import RunFolder

    folder = RunFolder.open(run_folder)
    study = confirmation(folder, best, seeds, epochs, output.stem if output else None)
    path = output or Path(f"{study.name}.toml")
    try:
        if path.exists() and path.read_bytes() != study.text.encode():
            raise UsageError(f"{path} is there already; move it away, or use another --output")
        path.write_text(study.text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}; name a file") from None
    conditions = len(study.points)
    out.print(f"{len(plan_trials(study))} trials: {conditions} conditions x {seeds} seeds")
    if left := len(folder.todo(folder.study())):
        out.print(f"{left} trials of {folder.path} have not ended: its best may change yet")
    out.print(f"next: nnclr-study run {path}")


@app.command()
def trial(
    file: StudyFile,
    trial_id: Annotated[
        str, typer.Argument(metavar="ID", help="As `plan` prints it, or how it begins")
    ],
    data: DataFolder = Path("data"),
) -> None:
    """Train one trial in this process, without Ray, and print its rows; record nothing.

    Example: nnclr-study trial search_spaces/quickstart.toml queue_size-0_s1
    """
    from nnclr_study.study.plan import named, plan_trials
    from nnclr_study.study.plugins import require
    from nnclr_study.study.spec import load_study

    study = load_study(file)
    require(study.plugins, file)
    if study.search:
        raise UsageError(f"{file} is a search, which names its trials as it goes; `run` it")
    config = named(plan_trials(study), trial_id, f"plan {file}").config

    with held():
        from nnclr_study.trainer.data import load_dataset
        from nnclr_study.trainer.loop import train
        from nnclr_study.trainer.prepared import prepare
        from nnclr_study.trainer.world import World

    prepare(config.dataset, config.image_size, data)
    for snapshot in train(config, load_dataset(config, data), World.alone()):
        _print_json(snapshot.rows[-1].model_dump())


@app.command()
def export(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="As runs/quickstart")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder: a new one, or an earlier export's")
    ],
    trial_id: Annotated[
        str | None,
        typer.Argument(metavar="TRIAL", help="Its id, or how it begins; default: see above"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a trial's encoder as files that other programs read, with a card that describes it.

    These are encoder.safetensors, encoder.onnx (where the extra is installed), preprocessing.json,
    config.json and README.md. Unless TRIAL is named, it is of the condition with the highest mean
    the finished trial with the lowest seed: the one that scored best would flatter the condition.

    Example: nnclr-study export runs/quickstart -o quickstart_encoder
    """
    from nnclr_study.export import export as export_trial

    written = export_trial(run_folder, trial_id, output)
    if as_json:
        _print_json(written._asdict() | {"path": str(output)})
        return
    out.print(f"{written.trial_id}, after epoch {written.epoch}")
    if written.no_onnx:
        out.print(f"encoder.onnx is left out: {written.no_onnx}")
    out.print(f"export: {output}, described in {output / 'README.md'}")


@app.command()
def evaluate(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="A run, as runs/quickstart; an export; or a .safetensors file"
        ),
    ],
    trial_id: Annotated[
        str | None, typer.Argument(metavar="TRIAL", help="Of a run: its id, or how it begins")
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(help="linear, knn, or finetune-P and supervised-P for P of 1, 10, 100 %"),
    ] = None,
    data: DataFolder = Path("data"),
    dataset: Annotated[
        str | None, typer.Option(help="Of a file; of an export, instead of its own")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Of a file: side in pixels; default: as of `data`")
    ] = None,
    normalise: Annotated[
        str | None, typer.Option(help="Of a file: what it expects: none, imagenet, or MEAN/STD")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score an encoder by further protocols; all of them, unless some are named.

    linear and knn take its frozen features. finetune-P trains it on, with P % of the labels;
    supervised-P trains an encoder that was never pretrained in the same way, which fine-tuning
    has to beat. Everything is chosen on val. What was scored before of a run is not scored again.

    SOURCE may be weights that others published, a ResNet with torchvision's names in a safetensors
    file: --dataset and --normalise then say which images it gets.

    Example: nnclr-study evaluate runs/quickstart queue_size-100_s1 --protocol finetune-10
    """
    from nnclr_study.study.run_folder import is_export

    if not source.exists():
        raise UsageError(
            f"{source} is not there; give a run folder and a trial of it, the folder of an "
            "export, or a safetensors file"
        )
    given = {"--dataset": dataset, "--image-size": image_size, "--normalise": normalise}
    asked = [flag for flag, value in given.items() if value is not None]
    is_file = source.is_file()
    exported = is_export(source)
    if trial_id is not None and (is_file or exported):
        raise UsageError(f"{source} is no run folder, so that it has no trial {trial_id!r}")
    if is_file and dataset is None:
        raise UsageError(f"{source} does not say which images it is for: name some by --dataset")
    if exported and set(asked) - {"--dataset"}:
        raise UsageError(f"{source} says itself what its encoder expects: leave out {asked[-1]}")
    if not (is_file or exported) and asked:
        raise UsageError(
            f"{asked[0]}: a run's trials are scored on their own images; `export` one, and "
            "evaluate that"
        )
    if not (is_file or exported) and trial_id is None:
        raise UsageError(f"{source} may have many trials: name one of them after it")

    with held():
        from nnclr_study.evaluation import of_export, of_file, of_trial
        from nnclr_study.study.config import images_config
        from nnclr_study.summaries import score_line

    wanted = protocol or []
    if is_file:
        assert dataset is not None
        images = images_config(dataset, image_size)
        about, results = of_file(source, images, normalise, wanted, data)
    elif exported:
        about, results = of_export(source, dataset, wanted, data)
    else:
        assert trial_id is not None
        about, results = of_trial(source, trial_id, wanted, data)
    if not as_json:
        out.print(about)
    for told, before, supervised in results:
        if as_json:
            _print_json(told)
        else:
            out.print(score_line(told, before, supervised))


@app.command(name="data")
def prepare_data(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `dataset` in a study file")],
    originals: Annotated[
        Path | None, typer.Option("--from", help="Folder of the original; default: --data")
    ] = None,
    data: Annotated[Path, typer.Option("--data", help="Folder of data sets")] = Path("data"),
    image_size: Annotated[
        int | None, typer.Option(help="Side in pixels; default: the data set's own, or 224")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prepare a data set for all trials to come, and show what is in it.

    `run` does so by itself; here it can be looked at first. NAME is digits, synthetic, stl10,
    cifar10, cifar100, folder:NAME for the image folder NAME: train/CLASS/*, test/CLASS/* and, if
    there are any, unlabelled/* or unlabeled/*; or plugin:NAME for what an installed package
    brings. What may be a mistake is told as a warning, as `run` tells it too.

    Example: nnclr-study data folder:birds --from /photos
    """
    from nnclr_study.study.config import images_config

    config = images_config(name, image_size)

    from nnclr_study.summaries import parts_table
    from nnclr_study.trainer.contact_sheet import contact_sheet
    from nnclr_study.trainer.findings import findings
    from nnclr_study.trainer.prepared import prepare

    with _progress(as_json) as progress:
        found = prepare(config.dataset, config.image_size, data, originals, progress)
    sheet = contact_sheet(found, data / f"{name.replace(':', '-')}-{config.image_size}px.png")
    told = findings(found, config)
    about = found.about(config.dataset) | {"path": str(found.path), "contact_sheet": str(sheet)}
    about |= told._asdict()
    if as_json:
        _print_json(about)
        return
    out.print(parts_table(about["parts"]))
    classes = found.classes
    shown = ", ".join(classes[:10]) + (", .." if len(classes) > 10 else "")
    out.print(f"{len(classes)} classes: {shown}")
    side = config.image_size
    out.print(f"{side} x {side} pixels; content sha256 {about['sha256'][:16]}")
    if "unlabelled" not in found.pixels and name != "digits":
        out.print("no unlabelled images: train, less val, serves for both")
    if told.identical is not None:
        out.print(f"identical to another image: {told.identical:,}; one color: {told.one_color:,}")
    for note in told.notes:
        out.print(note)
    out.print(f"prepared: {found.path or 'in memory, at each start'}")
    out.print(f"contact sheet: {sheet}")
    for warning in told.warnings:
        warnings.warn(warning, DataWarning, stacklevel=1)


@app.command()
def doctor(
    storage: Annotated[str, typer.Option(help="As of `run`")] = "runs",
    data: DataFolder = Path("data"),
    as_json: AsJson = False,
) -> None:
    """Look at this machine: whether `run` can work here, what would be slow, and the way out.

    Starts nothing and leaves nothing. Ends with 3 where `run` cannot work.

    Example: nnclr-study doctor --storage /shared/runs
    """
    from nnclr_study.doctor import can_run, examine, lines

    checks = examine(storage, data)
    if as_json:
        _print_json({"can_run": can_run(checks), "checks": [asdict(check) for check in checks]})
    else:
        for line in lines(checks):
            out.print(line)
    if not can_run(checks):
        raise typer.Exit(3)


@app.command()
def schema() -> None:
    """Print the JSON Schema of study files, which editors read to complete and check them.

    Example: nnclr-study schema > study_schema.json
    """
    from nnclr_study.study.schema import schema_text

    out.write(schema_text())


@app.command()
def example(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="As quickstart; default: list them")
    ] = None,
) -> None:
    """Print a study file to start from, or the names of all that come with the package.

    Example: nnclr-study example quickstart > quickstart.toml
    """
    from nnclr_study.study.examples import example_names, example_text
    from nnclr_study.study.spec import parse_study

    if name is not None:
        out.write(example_text(name))
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for each in example_names():
        table.add_row(each, parse_study(example_text(each), each).question)
    out.print(table)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Show how far a preparation is, on a terminal."""
    from rich.progress import Progress

    with Progress(console=err, transient=True, disable=quiet or not err.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def tell(part: str, done: int, whole: int) -> None:
            if part not in tasks:
                tasks[part] = bars.add_task(part, total=whole)
            bars.update(tasks[part], completed=done)

        yield tell


def _print_json(value: Any) -> None:
    # JSON leaves this one control character as it is.
    out.write(json.dumps(value).replace("\x7f", "\\u007f") + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code.

    0: fine. 1: finished with failed trials. 2: usage or study file. 3: cluster or data.
    70: internal error, with a log to report. 130: interrupted, and resumable.
    """
    code = _call(argv)
    stdout.flush()
    lost = stdout.lost
    if lost and not isinstance(lost, BrokenPipeError):
        err.print(f"error: what was to be printed is lost: {lost.strerror}")
        return code or 2
    return code


class _InternalError(Exception):
    """Wrap what no user can cause: click itself would end with 1 for some of it."""


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that raises what its user caused, an interrupt, or `_InternalError`."""

    @wraps(command)
    def guarded(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except (StudyError, typer.Exit):
            raise
        except BaseException as error:
            # An interrupt may make what it interrupts fail.
            if any(isinstance(cause, KeyboardInterrupt) for cause in chain(error)):
                raise typer.Exit(130) from None
            if isinstance(error, MemoryError | RuntimeError):
                from nnclr_study.sweep.memory import lack

                if lacked := lack(error):
                    raise ClusterError(lacked) from error
            if isinstance(error, OSError) and isinstance(error.filename, (str, bytes, Path)):
                path = os.fsdecode(error.filename)
                raise UsageError(f"{path} cannot be used: {error.strerror}") from None
            raise _InternalError from error

    return guarded


def _call(argv: Sequence[str] | None) -> int:
    crash.run_folder = None
    with warnings.catch_warnings():
        # Not "once": Python forgets what it has shown whenever something changes the filters.
        warnings.simplefilter("always", StudyWarning)
        warnings.showwarning = partial(_warn, warnings.showwarning, set())
        try:
            app(argv)
        except SystemExit as end:
            if end.code == 130:
                err.print(INTERRUPTED)
            return int(end.code or 0)
        except KeyboardInterrupt:
            err.print(INTERRUPTED)
            return 130
        except StudyError as error:
            err.write(f"error: {error}\n")
            return error.exit_code
        except Exception as error:
            _report_crash(error.__cause__ or error, sys.argv[1:] if argv is None else argv)
            return 70
    return 0


def _report_crash(error: BaseException, argv: Sequence[str]) -> None:
    said = f"internal error: {crash.summary(error)}"
    if log := crash.write_log(error, argv):
        err.print(f"{said}; details in {log}; please report it with that file")
    else:
        err.write("".join(traceback.format_exception(error)))
        err.print(f"{said}; no folder takes a log of it: please report it with the lines above")


def _warn(
    usual: Callable[..., None],
    told: set[str],
    message: Warning | str,
    kind: type[Warning],
    *where: Any,
) -> None:
    """Print each warning of this program once, in a line; other warnings go their usual way.

    `told` holds those that were printed, and takes up the new one.
    """
    if not issubclass(kind, StudyWarning):
        usual(one_line(str(message)), kind, *where)
    elif (text := str(message)) not in told:
        told.add(text)
        err.write(f"warning: {text}\n")


for _info in app.registered_commands:
    assert _info.callback is not None
    _info.callback = _guarded(_info.callback)
    # A paragraph is a line, which a terminal breaks where it ends: typer would break it as we do.
    _info.help = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.getdoc(_info.callback) or "")

if __name__ == "__main__":
    sys.exit(main())
