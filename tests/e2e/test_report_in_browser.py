"""The report in headless Chromium: no console errors, no requests, no sideways scrolling, readable in the dark.

With FEDPATCH_SCREENSHOTS=<directory> the pages are kept there as report_<width>_<scheme>.png. With
FEDPATCH_REPORT=<report.html> that file is opened instead of a made-up one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from pipeline_lib.report.page import render_report
from tests.report_fixtures import made_up_run

pytestmark = pytest.mark.e2e

CHROMIUM = Path("/usr/bin/chromium")
LOW_CONTRAST = """() => {
  const luminance = text => {
    const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const found = [];
  for (const element of document.querySelectorAll('body *:not(title)')) {
    if (![...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    const style = getComputedStyle(element);
    const ink = element.closest('svg') ? style.fill : style.color;
    const [a, b] = [luminance(ink), luminance(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${element.outerHTML.slice(0, 80)} ${ratio.toFixed(2)}`);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def report(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if given := os.environ.get("FEDPATCH_REPORT"):
        return Path(given)
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_report(*made_up_run(tiny_root)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.is_file():
        pytest.skip(f"no Chromium at {CHROMIUM}; install Debian's package chromium to have this test run")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-background-networking"]
        )
        yield chromium
        chromium.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_the_report_opens_cleanly(report: Path, browser: Browser, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    said: list[str] = []
    requested: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    page.goto(report.as_uri())
    _scroll_through(page)
    assert said == []
    assert [url for url in requested if not url.startswith("data:")] == [report.as_uri()]
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    across, visible = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert across <= visible
    assert page.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).length") == 0
    assert page.evaluate(LOW_CONTRAST) == []
    if directory := os.environ.get("FEDPATCH_SCREENSHOTS"):
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = false); window.scrollTo(0, 0)")
        page.screenshot(path=Path(directory) / f"report_{width}_{scheme}.png")
    page.close()


def test_wide_tables_scroll_inside_their_box(report: Path, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 360, "height": 900})
    page.goto(report.as_uri())
    boxes = page.evaluate("[...document.querySelectorAll('.scroll')].map(b => [b.scrollWidth, b.clientWidth])")
    assert any(inner > outer for inner, outer in boxes)
    assert all(outer <= 360 for _, outer in boxes)
    page.close()


def test_closed_parts_are_printed_too(report: Path, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(report.as_uri())
    page.emulate_media(media="print")
    hidden = page.evaluate(
        "[...document.querySelectorAll('details > :not(summary)')].filter(e => !e.checkVisibility()).length"
    )
    assert hidden == 0
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    page.close()


def _scroll_through(page: Page) -> None:
    """Past every picture, so that those that load late do."""
    for picture in page.locator("img").all():
        picture.scroll_into_view_if_needed()
