"""How much a page weighs: its budget is 4 MB, of which plotly.js takes a half."""

import json
import re

from nnclr_study.report.page import build_report
from tests.report.helpers import make_run, study_text

MB = 1_000_000


def test_a_study_of_30_trials_can_be_mailed(tmp_path):
    sizes = "queue_size = [0, 500, 1_000, 2_000, 4_000, 8_000]"
    text = study_text(sizes, seeds=range(1, 6), epochs=100)
    run = make_run(tmp_path, text, lambda trial: 0.8 + 0.01 * trial.config.seed)
    page = build_report(run.path).page
    assert 2 * MB < page.stat().st_size < 4 * MB
    data = re.search(r'id="figures">(.*?)</script>', page.read_text(), re.DOTALL)[1]
    assert json.loads(data)
    assert len(data) < 0.5 * MB
