"""Links and pictures of the docs lead somewhere, and the index leads to every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.documented_commands import FENCE, PAGES

LINK = re.compile(r"\]\(([^)\s]+)\)")
EVERY = sorted({*PAGES, ROOT / "CHANGELOG.md"})


def targets(page: Path) -> list[str]:
    """What a page links to within the repository."""
    found = LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    return [target for target in found if not re.match(r"https?://|mailto:", target)]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", EVERY, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in targets(page):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(there), f"{page.name} links to {target}"


def test_the_index_leads_to_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / target).resolve() for target in targets(index)}
    assert not {page for page in PAGES if page != index} - linked


def test_the_readme_leads_to_the_index_and_shows_a_picture() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(docs/README.md)" in text
    assert re.search(r"!\[[^\]]+\]\(docs/images/", text)


def test_every_picture_is_shown() -> None:
    shown = {(page.parent / target).resolve() for page in PAGES for target in targets(page)}
    assert not set((ROOT / "docs" / "images").iterdir()) - shown
