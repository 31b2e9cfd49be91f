"""What the report says of fourteen studies, word for word, and the numbers that it rests on.

`python -m tests.report.test_golden` writes the files anew; read the difference before it is kept.
"""

import json
from pathlib import Path

import pytest

from nnclr_study.report.analyse import analyse
from nnclr_study.report.findings import find
from nnclr_study.report.load import load
from nnclr_study.report.page import build_report
from tests.report.studies import GOLDEN
from tests.report.test_page import plain_text

HOME = Path(__file__).parent / "golden"
BLOCKS = ("df", "residual_sd", "critical", "correlation", "method", "seeds_for_margin")


def told(path, name):
    """The sentences of a study, and its key numbers."""
    analysis = analyse(load(GOLDEN[name](path)))
    found = find(analysis)
    blocks, trend = analysis["blocks"] or {}, analysis["trend"] or {}
    return {
        "sentences": {
            key: f"{each.level}: {each.text}" for key, each in found.items() if each.text
        },
        "verdicts": [
            versus and versus["verdict"] for versus in (a["vs_baseline"] for a in analysis["arms"])
        ],
        "simultaneous": [
            versus and versus["simultaneous"]
            for versus in (arm["vs_baseline"] for arm in analysis["arms"])
        ],
        "best_set": analysis["best_set"],
        "sufficient": analysis["sufficient"] and analysis["sufficient"]["arm"],
        "blocks": {key: blocks[key] for key in BLOCKS if blocks},
        "trend": {key: trend[key] for key in ("slope", "model", "saturated") if trend},
    }


def close(value):
    """The same, but for what the processor rounds."""
    if isinstance(value, dict):
        return {key: close(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [close(each) for each in value]
    return pytest.approx(value, rel=1e-6, abs=1e-9) if isinstance(value, float) else value


@pytest.mark.parametrize("name", GOLDEN)
def test_a_study_is_told_as_it_was(tmp_path, name):
    found = told(tmp_path / "run", name)
    kept = json.loads((HOME / f"{name}.json").read_text())
    assert found["sentences"] == kept["sentences"]
    assert close(json.loads(json.dumps(found))) == kept
    page = build_report(tmp_path / "run").page
    said = kept["sentences"]["answer"].split(": ", 1)[1]
    text = plain_text(page).replace("\u00a0", " ").replace("&#39;", "'").replace("&lt;", "<")
    assert said.replace("`nnclr-study confirm`", "<code>nnclr-study confirm</code>") in text


def test_every_golden_file_has_its_study():
    assert {path.stem for path in HOME.iterdir()} == set(GOLDEN)


if __name__ == "__main__":
    from tempfile import TemporaryDirectory

    HOME.mkdir(exist_ok=True)
    for study in GOLDEN:
        with TemporaryDirectory() as folder:
            text = json.dumps(told(Path(folder), study), indent=1)
        (HOME / f"{study}.json").write_text(f"{text}\n")
