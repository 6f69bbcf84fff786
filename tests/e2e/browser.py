"""What a person does in Prefect's V2 UI, in headless Chromium.

With FEDPATCH_SCREENSHOTS=<directory> the pages are kept there, as docs/images shows them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Locator, Page, Response, sync_playwright

from tests.e2e.prefect_stack import Stack

ARGUMENTS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
PATIENCE_MS = 120_000
CLICKS = 5
LOCKED = 503  # the database was locked: the server asks for another try, the UI says so


@contextmanager
def open_page(stack: Stack, path: str) -> Iterator[Page]:
    """A page of the V2 UI, past the log-in where the stack has a password."""
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(PATIENCE_MS)
        go_to(page, stack, path)
        if password := stack.environment.get("PREFECT_API_AUTH_STRING"):
            page.locator("input[type=password]").fill(password)
            page.get_by_role("button", name="Login").click()
            page.locator("input[type=password]").wait_for(state="detached")
            go_to(page, stack, path)
        yield page
        browser.close()


def go_to(page: Page, stack: Stack, path: str) -> None:
    """Another page of the V2 UI in the same window."""
    page.goto(f"{stack.url}/v2/{path}")


def keep(page: Page, name: str) -> None:
    """Keep a picture of the page where FEDPATCH_SCREENSHOTS says so."""
    if directory := os.environ.get("FEDPATCH_SCREENSHOTS"):
        page.wait_for_timeout(2500)  # charts and toasts
        page.screenshot(path=str(Path(directory) / f"{name}.png"))


def retry(stack: Stack, flow_run: str, *, picture: str | None = None) -> None:
    """Open the run's page and retry it; once more if the server asked for that (503: its database was locked)."""
    with open_page(stack, f"runs/flow-run/{flow_run}") as page:
        menu = page.get_by_role("button", name="Open menu").first
        menu.wait_for()
        if picture:
            keep(page, picture)
        for _ in range(CLICKS):
            menu.click()
            page.get_by_role("menuitem", name="Retry").click()
            answer = click_and_wait(page.get_by_role("alertdialog").get_by_role("button", name="Retry"), "/set_state")
            page.get_by_role("alertdialog").wait_for(state="detached")
            if answer.status != LOCKED:
                break
        assert answer.ok, answer.text()
        assert answer.json()["status"] == "ACCEPT", answer.text()


def click_and_wait(button: Locator, path: str) -> Response:
    """Click, and wait for the server's answer to the request that ends with `path`."""
    with button.page.expect_response(lambda answer: answer.url.endswith(path)) as asked:
        button.click()
    return asked.value


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


def give_optional_path(page: Page, label: str, value: str) -> None:
    """Choose `path` instead of `None` for a parameter that is not given by default, and fill it in."""
    block = page.get_by_text(f"{label} (Optional)", exact=True).first.locator("xpath=ancestor::div[3]")
    block.get_by_role("tab", name="path").click()
    block.get_by_role("tabpanel").get_by_role("textbox").fill(value)
