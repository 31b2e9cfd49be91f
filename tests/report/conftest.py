import shutil

import pytest

from tests.report.helpers import make_run, study_text

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture
def finished(tmp_path):
    """A finished study of two queue sizes and three seeds."""

    def outcome(trial):
        return 0.80 + 0.02 * (trial.config.queue_size > 0) + 0.003 * trial.config.seed

    text = study_text("queue_size = [0, 500]", question="Does a queue help?")
    return make_run(tmp_path / "finished", text, outcome)


@pytest.fixture(scope="session")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser found: none of {', '.join(BROWSERS)} is installed")
    quiet = ("background-networking", "component-update", "sync", "gpu")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found,
            args=["--no-sandbox", *(f"--disable-{feature}" for feature in quiet)],
        )
        yield browser
        browser.close()
