import shutil
from contextlib import nullcontext

import pytest

from nnclr_study.report.page import build_report
from tests.report.helpers import make_run, study_text
from tests.report.studies import GOLDEN, STATES

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture
def finished(tmp_path):
    """A finished study of two queue sizes and three seeds."""

    def outcome(trial):
        return 0.80 + 0.02 * (trial.config.queue_size > 0) + 0.003 * trial.config.seed

    text = study_text("queue_size = [0, 500]", question="Does a queue help?")
    return make_run(tmp_path / "finished", text, outcome)


@pytest.fixture(scope="session")
def page_of(tmp_path_factory):
    """Return a function from a study's name to its page; each is built once."""
    built = {}

    def build(name):
        if name not in built:
            folder = (GOLDEN | STATES)[name](tmp_path_factory.mktemp(name))
            with folder.lock() if name == "running" else nullcontext():
                built[name] = build_report(folder.path).page
        return built[name]

    return build


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


@pytest.fixture
def opened(chromium):
    """Open a page at a width; it must neither complain nor ask any host for anything."""
    said, asked, contexts = [], [], []

    def open_page(file, width, **options):
        context = chromium.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert asked
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
