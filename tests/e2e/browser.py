"""What a person does in Prefect's two UIs, V1 and V2, in headless Chromium.

With FEDPATCH_SCREENSHOTS=<directory> the pages are kept there, as docs/images shows them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Locator, Page, Response, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from tests.e2e.prefect_stack import Stack

ARGUMENTS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
PATIENCE_MS = 120_000
CLICKS = 5
LOCKED = 503  # the database was locked: the server asks for another try, the UI says so
UI = Literal["v1", "v2"]
PREFIXES: dict[UI, str] = {"v1": "", "v2": "v2/"}


@contextmanager
def open_page(stack: Stack, path: str, *, ui: UI = "v2") -> Iterator[Page]:
    """A page of one of the UIs; of V2 past the log-in where the stack has a password."""
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(PATIENCE_MS)
        go_to(page, stack, path, ui=ui)
        if password := stack.environment.get("PREFECT_API_AUTH_STRING"):
            page.locator("input[type=password]").fill(password)
            page.get_by_role("button", name="Login").click()
            page.locator("input[type=password]").wait_for(state="detached")
            go_to(page, stack, path, ui=ui)
        yield page
        browser.close()


def go_to(page: Page, stack: Stack, path: str, *, ui: UI = "v2") -> None:
    """Another page in the same window."""
    page.goto(f"{stack.url}/{PREFIXES[ui]}{path}")


def keep(page: Page, name: str) -> None:
    """Keep a picture of the page where FEDPATCH_SCREENSHOTS says so."""
    if directory := os.environ.get("FEDPATCH_SCREENSHOTS"):
        page.wait_for_timeout(2500)  # charts and toasts
        page.screenshot(path=str(Path(directory) / f"{name}.png"))


def retry(stack: Stack, flow_run: str, *, picture: str | None = None, ui: UI = "v2") -> None:
    """Open the run's page and retry it; once more if the server asked for that (503: its database was locked)."""
    with open_page(stack, f"runs/flow-run/{flow_run}", ui=ui) as page:
        if ui == "v1":
            first, dialog = page.get_by_role("button", name="Retry").first, page.get_by_role("dialog")
        else:
            first, dialog = page.get_by_role("button", name="Open menu").first, page.get_by_role("alertdialog")
        first.wait_for()
        if picture:
            keep(page, picture)
        for _ in range(CLICKS):
            first.click()
            if ui == "v2":
                page.get_by_role("menuitem", name="Retry").click()
            answer = click_and_wait(dialog.get_by_role("button", name="Retry"), "/set_state")
            dialog.wait_for(state="detached")
            if answer.status != LOCKED:
                break
        assert answer.ok, answer.text()
        assert answer.json()["status"] == "ACCEPT", answer.text()  # a refusal is an answer like others


def click_and_wait(button: Locator, path: str) -> Response:
    """Click, and wait for the server's answer to the request that ends with `path`.

    A page that is still busy can lose a click: where nothing was asked of the server it is made again.
    """
    for _ in range(CLICKS):
        try:
            with button.page.expect_request(lambda asked: asked.url.endswith(path), timeout=PATIENCE_MS / 4) as asked:
                button.click()
        except PlaywrightTimeoutError:
            continue
        answer = asked.value.response()
        assert answer is not None, f"{path} has no answer"
        return answer
    raise AssertionError(f"{CLICKS} clicks asked nothing of {path}")


def submit(page: Page) -> str:
    """Submit the form of a run; the id of the run that was made."""
    for _ in range(CLICKS):
        answer = click_and_wait(page.get_by_role("button", name="Submit"), "/create_flow_run")
        if answer.status != LOCKED:
            break
    assert answer.ok, answer.text()
    return str(answer.json()["id"])


def field(page: Page, label: str) -> Locator:
    """The box of a parameter in the form of a run, by its label."""
    return page.get_by_label(f"{label} (Optional)", exact=True).first


def open_section(page: Page, label: str) -> None:
    """Open a section of the form that is folded: `None`, which is its defaults."""
    _block(page, label).get_by_role("tab", name=label, exact=True).click()


def give_optional_path(page: Page, label: str, value: str) -> None:
    """Choose `path` instead of `None` for a parameter that is not given by default, and fill it in."""
    _block(page, label).get_by_role("tab", name="path").click()
    _block(page, label).get_by_role("tabpanel").get_by_role("textbox").fill(value)


def _block(page: Page, label: str) -> Locator:
    return page.get_by_text(f"{label} (Optional)", exact=True).first.locator("xpath=ancestor::div[3]")
