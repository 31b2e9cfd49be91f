"""What `export` does: a trial's encoder, from its checkpoint to a folder for other programs."""

from pathlib import Path
from typing import Any, NamedTuple

import nnclr_study
from nnclr_study.card import Facts, card
from nnclr_study.errors import UsageError
from nnclr_study.report.analyse import analyse
from nnclr_study.report.load import Tables, load
from nnclr_study.study.rows import Session
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.trainer import checkpoint, exports
from nnclr_study.trainer.encoder import SMALL_SIDE


class Exported(NamedTuple):
    """What was written, and from what."""

    trial_id: str
    epoch: int
    no_onnx: str | None
    """Why encoder.onnx is left out; None: it is there."""


def export(run_folder: Path, trial_id: str | None, folder: Path) -> Exported:
    """Write the encoder of a trial as files that other programs read.

    Args:
        run_folder: of the study.
        trial_id: its id, or how it begins; None: of the condition with the highest mean
            val_probe_top1 the finished trial with the lowest seed, which no score has chosen.
        folder: new, or that of an earlier export.

    Raises:
        RunFolderError: there is no such run folder, or the trial has no checkpoint.
        UsageError: no such trial, or the folder cannot be written or holds other files.
    """
    run = RunFolder.open(run_folder)
    tables = load(run)
    analysis = analyse(tables)
    trial = run.trial(_first_of_best(tables, analysis) if trial_id is None else trial_id)
    snapshot = checkpoint.of_trial(run, trial.id)
    exports.rebuilt(snapshot.config, checkpoint.encoder_state(snapshot), run.checkpoint(trial.id))
    session = _session(run, trial.id)
    versions = session.versions if session else {}
    about = {
        "study": tables.study.name,
        "question": tables.study.question,
        "trial_id": trial.id,
        "condition": trial.condition,
        "trained_with": versions,
        "commit": session.commit if session else None,
        "exported_with": {"nnclr-study": nnclr_study.__version__},
    }
    exports.claim(folder)
    no_onnx = exports.write(snapshot, about, folder)
    (place,) = tables.trials.loc[tables.trials["trial_id"] == trial.id, "arm"]
    facts = Facts(
        study=tables.study,
        trial=trial,
        row=snapshot.rows[-1],
        arm=analysis["arms"][place],
        chosen=trial_id is None,
        versions=versions,
        small_stem=snapshot.config.image_size <= SMALL_SIDE,
        onnx=no_onnx is None,
    )
    exports.write_text(card(facts), folder / exports.CARD)
    return Exported(trial.id, len(snapshot.rows), no_onnx)


def _first_of_best(tables: Tables, analysis: dict[str, Any]) -> str:
    """Return the finished trial with the lowest seed of the condition with the highest mean."""
    if analysis["best"] is None:
        raise UsageError(
            f"no trial of {tables.path} has finished; wait for one, or name the TRIAL that is to "
            "be exported as far as it is"
        )
    trials = tables.trials
    of_best = (trials["arm"] == analysis["best"]["arm"]) & (trials["status"] == "finished")
    return str(trials[of_best].sort_values("seed")["trial_id"].iloc[0])


def _session(run: RunFolder, trial_id: str) -> Session | None:
    """Return the call of `run` in which a trial ended; None: it has not, or that is not known."""
    row, sessions = run.trials().get(trial_id), {one.number: one for one in run.sessions()}
    return sessions.get(row.session) if row else None
