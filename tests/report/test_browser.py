"""The page in a real browser, opened as a file."""

import pytest

from nnclr_study.report.page import build_report


@pytest.fixture
def opened(chromium, finished):
    """Open the page at a width; it must neither complain nor ask any host for anything."""
    url = build_report(finished.path).page.as_uri()
    said, asked, contexts = [], [], []

    def open_page(width, **options):
        context = chromium.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert asked
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def fill(page):
    """The colour in which the first mean is drawn."""
    point = page.locator("#plot-dose_response .points path.point").last
    return point.evaluate("mark => mark.style.fill")


def test_both_figures_draw_and_the_answer_stands_in_the_first_screen(opened):
    page = opened(1280)
    for name, marks in (("dose_response", 8), ("learning", 0)):
        plot = page.locator(f"#plot-{name}")
        plot.locator(".main-svg").first.wait_for()
        assert plot.locator(".points path.point").count() == marks
        assert plot.locator(".lines path.js-line").count() >= 1
    box = page.locator("#answer").bounding_box()
    assert box["y"] + box["height"] < 800
    assert page.evaluate("document.documentElement.scrollWidth") == 1280


def test_a_phone_scrolls_no_way_but_down(opened):
    page = opened(390)
    page.locator("#plot-learning .main-svg").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_figures_follow_the_theme(opened):
    page = opened(1280, color_scheme="light")
    page.locator("#plot-learning .main-svg").first.wait_for()
    assert fill(page) == "rgb(0, 114, 178)"
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button").click()
    page.wait_for_timeout(100)
    assert fill(page) == "rgb(86, 180, 233)"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != ground
    page.get_by_role("button").click()
    page.wait_for_timeout(100)
    assert fill(page) == "rgb(0, 114, 178)"


def test_a_dark_system_gets_a_dark_page_and_paper_a_light_one(opened):
    page = opened(1280, color_scheme="dark")
    page.locator("#plot-learning .main-svg").first.wait_for()
    assert fill(page) == "rgb(86, 180, 233)"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_timeout(100)
    assert fill(page) == "rgb(0, 114, 178)"
    assert page.locator("#provenance details").get_attribute("open") is not None


def test_without_javascript_sentences_and_tables_stay(opened):
    page = opened(390, java_script_enabled=False)
    assert page.locator("#answer .sentence").is_visible()
    assert page.locator("#conditions tbody tr").count() == 2
    assert page.get_by_text("Drawn by JavaScript").count() == 2
    assert not page.get_by_role("button").is_visible()
