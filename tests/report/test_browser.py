"""The page in a real browser, opened as a file."""

from itertools import pairwise

import pytest

FIGURES = {
    *("completeness", "dose_response", "forest", "best_set", "paired_seeds", "learning"),
    *("cost", "queue_health", "interaction", "cell_means", "throughput", "timeline"),
}


def until(page, condition, arg=None):
    """Wait for something on the page, whose policy forbids what `wait_for_function` does."""
    page.evaluate(
        f"""async (arg) => {{
          const met = {condition}, end = Date.now() + 10_000;
          while (!met(arg)) {{
            if (Date.now() > end) throw new Error("it never came");
            await new Promise((next) => setTimeout(next, 20));
          }}
        }}""",
        arg,
    )


def all_drawn(page):
    """Wait until every figure of a page has something in it; return their names."""
    until(
        page,
        "() => [...document.querySelectorAll('.plot')].every("
        "plot => plot.dataset.drawn && plot.querySelector('.main-svg :is(path, rect, text)'))",
    )
    return {plot.get_attribute("id")[5:] for plot in page.locator(".plot").all()}


def fill_is(page, colour):
    """Wait until the first mean is drawn in a colour."""
    until(
        page,
        """colour => [...document.querySelectorAll(
             '#plot-dose_response .points path.point')].at(-1)?.style.fill === colour""",
        colour,
    )


def column(page, number):
    """The texts of a column of the trial table, of the rows that are seen."""
    rows = page.locator("table.trials tbody tr:not(.detail):visible")
    return rows.locator(f"> :nth-child({number + 1})").all_inner_texts()


def test_every_figure_draws_and_the_answer_stands_in_the_first_screen(opened, page_of):
    page = opened(page_of("whole"), 1280)
    assert all_drawn(page) == FIGURES
    points = page.locator("#plot-dose_response .points path.point").count()
    assert points >= 29 + 6, "a mark a finished trial and a mark a mean"
    assert page.locator("#plot-completeness text").count() >= 30
    box = page.locator("#answer").bounding_box()
    assert box["y"] + box["height"] < 800
    assert page.evaluate("document.documentElement.scrollWidth") == 1280


@pytest.mark.parametrize("width", [360, 768, 1200])
def test_no_width_scrolls_sideways(opened, page_of, width):
    page = opened(page_of("whole"), width)
    all_drawn(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_figures_follow_the_window_s_width_and_keep_their_height(opened, page_of):
    """As a phone is turned, or a window made narrower."""
    page = opened(page_of("rising"), 1000)
    all_drawn(page)
    plot = page.locator("#plot-dose_response")
    before = plot.bounding_box()
    for width, shown in ((390, 358), (1000, before["width"])):
        page.set_viewport_size({"width": width, "height": 800})
        until(
            page,
            """width => [...document.querySelectorAll('.plot .main-svg')].every(
                 svg => Number(svg.getAttribute('width')) === width)""",
            shown,
        )
        assert plot.bounding_box()["height"] == before["height"] == 400
        assert page.evaluate("document.documentElement.scrollWidth") == width
    assert plot.bounding_box()["width"] == before["width"]


def test_figures_follow_the_theme(opened, page_of):
    page = opened(page_of("rising"), 1280, color_scheme="light")
    fill_is(page, "rgb(0, 114, 178)")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    theme = page.get_by_role("button", name="Change between light and dark")
    theme.click()
    fill_is(page, "rgb(86, 180, 233)")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != ground
    theme.press("Enter")
    fill_is(page, "rgb(0, 114, 178)")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == ground


def test_a_dark_system_gets_a_dark_page_and_paper_a_light_one(opened, page_of):
    page = opened(page_of("rising"), 1280, color_scheme="dark")
    fill_is(page, "rgb(86, 180, 233)")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    fill_is(page, "rgb(0, 114, 178)")
    assert page.locator("#provenance details").get_attribute("open") is not None
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    fill_is(page, "rgb(86, 180, 233)")


def test_it_prints(opened, page_of):
    page = opened(page_of("whole"), 1280)
    all_drawn(page)
    printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/Type /Page\n") >= 4
    assert len(printed) > 100_000, "figures are printed as vectors"


def test_without_javascript_sentences_and_tables_stay(opened, page_of):
    page = opened(page_of("whole"), 390, java_script_enabled=False)
    assert page.locator("#answer .sentence").is_visible()
    assert page.locator("#conditions tbody tr").count() == 6
    assert page.get_by_text("Drawn by JavaScript").count() == len(FIGURES)
    assert page.get_by_role("button").count() == 0


def test_a_column_sorts_both_ways_and_what_is_missing_comes_last(opened, page_of):
    page = opened(page_of("whole"), 1280)
    head = page.locator("table.trials thead th").nth(5)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    *known, lost = column(page, 5)
    assert lost == "-"
    assert known == sorted(known, key=float)
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    *turned, lost = column(page, 5)
    assert lost == "-"
    assert turned == sorted(known, key=float, reverse=True)
    sizes = page.locator("table.trials thead th").nth(3)
    sizes.get_by_role("button").click()
    assert head.get_attribute("aria-sort") is None
    assert column(page, 3) == ["0"] * 10 + ["500"] * 10 + ["2,500"] * 10, "numbers, no words"


def test_the_filter_keeps_rows_that_have_every_word(opened, page_of):
    page = opened(page_of("whole"), 1280)
    field = page.get_by_label("Filter")
    field.fill("failed")
    assert column(page, 1) == ["✕ failed"]
    assert page.locator("#shown").inner_text() == "1 of 30"
    field.fill("SEED 3, queue_size 2,500".replace("2,500", "500"))
    assert len(column(page, 2)) == len(
        [row for row in zip(column(page, 2), column(page, 3), strict=True) if row[0] == "3"]
    )
    field.fill("seed 3")
    assert column(page, 2) == ["3"] * 6
    field.fill("no such thing")
    assert column(page, 2) == []
    assert page.locator("#shown").inner_text() == "0 of 30"
    field.fill("")
    assert len(column(page, 2)) == 30
    assert page.locator("#shown").inner_text() == ""


def test_a_row_opens_and_closes_by_keyboard(opened, page_of):
    page = opened(page_of("whole"), 1280)
    page.get_by_label("Filter").fill("failed")
    row = page.locator("table.trials tbody tr:visible").first
    button = row.get_by_role("button")
    assert button.get_attribute("aria-expanded") == "false"
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    detail = page.locator("tr.detail")
    assert "OutOfMemoryError: 2 GiB" in detail.inner_text()
    assert "queue_size 2,500, temperature 0.2" in detail.inner_text()
    assert ".safetensors" in detail.inner_text()
    page.keyboard.press("Space")
    assert detail.count() == 0
    assert button.get_attribute("aria-expanded") == "false"
    page.get_by_label("Filter").fill("finished")
    page.locator("table.trials tbody tr:visible").first.get_by_role("button").click()
    curve = page.locator("tr.detail svg")
    assert curve.get_attribute("aria-label").startswith("val_probe_top1 from ")
    assert len(curve.locator("polyline").get_attribute("points").split()) == 4
    page.locator("table.trials thead th").nth(2).get_by_role("button").click()
    assert page.locator("tr.detail").count() == 0, "a detail stands below its own row or nowhere"


def test_a_search_sorts_by_a_knob_that_not_every_trial_has(opened, page_of):
    page = opened(page_of("pruned_search"), 1280)
    head = page.locator("table.trials thead th", has_text="lars_trust")
    place = page.locator("table.trials thead th").all_inner_texts().index("lars_trust")
    head.get_by_role("button").click()
    values = column(page, place)
    known = [value for value in values if value not in ("-", "none")]
    assert known == sorted(known, key=float)
    assert len(known) == 6
    assert values[:6] == known


def test_the_page_is_in_order_for_those_who_hear_it(opened, page_of):
    page = opened(page_of("whole"), 1280)
    all_drawn(page)
    for plot in page.locator(".plot").all():
        assert plot.get_attribute("role") == "img"
        label = plot.get_attribute("aria-label")
        assert label.endswith("."), label
        assert " " in label
    levels = [int(x) for x in page.evaluate(HEADINGS)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.evaluate("[...document.querySelectorAll('th')].every(head => head.scope)")
    assert page.evaluate("[...document.querySelectorAll('table')].every(t => t.tHead)")
    names = page.evaluate("[...document.querySelectorAll('[id]')].map(each => each.id)")
    ours = [name for name in names if not name.startswith(("g", "clip", "legend", "topdefs"))]
    assert len(set(ours)) == len(ours)
    for link in page.locator("nav a").all():
        assert page.locator(link.get_attribute("href")).count() == 1


HEADINGS = "[...document.querySelectorAll('h1, h2, h3, h4')].map(head => head.tagName[1])"


LOOKS = [(1280, "light"), (390, "dark"), (390, "light"), (1280, "dark")]


@pytest.mark.parametrize(
    ("name", "looks"),
    [
        ("whole", LOOKS),
        ("all_failed", LOOKS[:2]),
        ("pruned_search", LOOKS[:2]),
        ("running", LOOKS[:2]),
    ],
)
def test_axe_finds_nothing_serious(opened, page_of, name, looks):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = opened(page_of(name), 1280)
    page.add_style_tag(content=".main-svg { display: none }")  # an image to axe, and a large one
    found = []
    for width, scheme in looks:
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        answer = axe.run(page, options={"resultTypes": ["violations"]}).response
        assert len(answer["passes"]) > 20, "it did look"
        for violation in answer["violations"]:
            # A page of a running study reloads itself: that is what it is for.
            if violation["impact"] in SERIOUS and violation["id"] != "meta-refresh":
                where = [node["html"][:200] for node in violation["nodes"][:3]]
                found.append((width, scheme, violation["id"], violation["help"], where))
    assert found == []


SERIOUS = ("serious", "critical")
