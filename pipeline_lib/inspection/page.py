"""index.html: what one call of `fedpatch score` decided, for the one who inspects; what to look at first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline_lib.bank.explanation import PatchExplanation
from pipeline_lib.drawing.html_pages import page_template
from pipeline_lib.inspection.decisions import NEAR, margin
from pipeline_lib.inspection.files import OVERLAY, beside
from pipeline_lib.inspection.pictures import tile_place
from pipeline_lib.inspection.run_model import RunModel
from pipeline_lib.storage.artifact_store import write_file

SHOWN = 500
REFUSED_SHOWN = 100


@dataclass(frozen=True)
class Tile:
    """A patch on the picture of an explanation: that picture's width, and its own left and top edge there, in per cent
    of a tile; what it is, and its score or distance."""

    width: float
    left: float
    top: float
    name: str
    value: str


@dataclass(frozen=True)
class Card:
    """One decided image as the page shows it. Pictures are relative to the page, percent-encoded."""

    row: dict[str, Any]  # schema DECISIONS
    size_px: tuple[int, int]  # width, height
    tiles: tuple[tuple[Tile, ...], ...] = ()  # a row for each explained patch, its own tile first

    @property
    def margin(self) -> float:
        """Score less threshold as a share of the threshold; minus infinity where there is no threshold."""
        return margin(self.row["score"], self.row["threshold"])

    @property
    def rank(self) -> int:
        """0 flagged, 1 good but close to the threshold, 2 with a note of something to look at, 3 none of these."""
        if self.row["decision"] == "defective":
            return 0
        return 1 if self.is_close else 2 if self.row["note"] else 3

    @property
    def is_close(self) -> bool:
        """Whether the score is near the threshold."""
        return abs(self.margin) < NEAR

    @property
    def order(self) -> tuple[int, float, float]:
        """By rank, in each the highest score in terms of the threshold first."""
        return self.rank, -self.margin, -self.row["score"]

    @property
    def verdict(self) -> str:
        """The decision in words, with how far the score is from the threshold."""
        if (decision := self.row["decision"]) is None:
            return "Not decided: the model has no threshold"
        percent = f"{100 * abs(self.margin):.{1 if self.is_close else 0}f} %"
        side = "above" if decision == "defective" else "below"
        return f"{decision.capitalize()}{', but close' if self.is_close else ''}: {percent} {side} the threshold"

    @property
    def gauge(self) -> float:
        """How long the bar of the score is, in per cent; the threshold lies in the middle."""
        return round(min(max(50 * (1 + self.margin), 0), 100), 1)

    @property
    def places(self) -> str:
        """What the overlay outlines or rings, in words; empty where it marks nothing."""
        if n := self.row["n_regions"]:
            area = self.row["area_px"]
            return f"{n} place{'s' if n > 1 else ''} outlined, {area} pixel{'s' if area > 1 else ''}"
        return "its highest place is ringed" if self.rank == 1 else ""

    @property
    def picture(self) -> str:
        """Image, heat map and overlay side by side; empty where it could not be drawn."""
        return quote(self.row["picture"])

    @property
    def overlay(self) -> str:
        """The image with its map and the outlined places."""
        return quote(beside(self.row["picture"], OVERLAY))

    @property
    def explained(self) -> str:
        """The picture of the most similar normal patches; empty without one."""
        return quote(self.row["explained"])


class DecisionPage:
    """Collects what a call decides and writes it as one page beside its pictures. Holds SHOWN images, not more."""

    def __init__(self, table: Path, model: RunModel) -> None:
        self._table, self._model = table, model
        self.path = table.with_name(table.stem.replace("decisions", "index", 1) + ".html")
        self._cards: list[Card] = []
        self._refused: list[dict[str, Any]] = []
        self._counts: Counter[str] = Counter()
        self._n_to_look_at = 0
        self._categories: set[str] = set()

    def add(self, row: dict[str, Any], size_px: tuple[int, int], patches: Sequence[PatchExplanation] = ()) -> None:
        """One image: its row in the schema DECISIONS, width and height, and its explanation."""
        if row["reason"]:
            self._counts["refused"] += 1
            self._refused = [*self._refused, row][:REFUSED_SHOWN]
            return
        card = Card(row, size_px, _tiles(patches))
        self._counts[row["decision"] or "not decided"] += 1
        self._n_to_look_at += card.rank < 3
        self._categories.add(row["category"])
        self._cards.append(card)
        if len(self._cards) > 2 * SHOWN:
            self._cards = self._shown()

    def write(self, n_rows: int) -> None:
        """Write the page whole; `n_rows`: of the table, with those of earlier calls. Raises ArtifactError."""
        shown = self._shown()
        text = page_template("pipeline_lib.inspection", "index.html.j2").render(
            made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z"),
            model=self._model.directory,
            table=self._table.name,
            n_rows=n_rows,
            counts=self._counts,
            n_images=self._counts.total(),
            n_left=self._counts.total() - self._counts["refused"] - len(shown),
            n_to_look_at=self._n_to_look_at,
            to_look_at=[card for card in shown if card.rank < 3],
            others=[card for card in shown if card.rank == 3],
            refused=self._refused,
            promises=[text for name in sorted(self._categories) if (text := self._model.promised(name))],
            shortfalls=self._model.shortfalls(sorted(self._categories)),
            near=f"{100 * NEAR:g}",
        )
        write_file(self.path, text.encode())

    def _shown(self) -> list[Card]:
        return sorted(self._cards, key=lambda card: card.order)[:SHOWN]


def _tiles(patches: Sequence[PatchExplanation]) -> tuple[tuple[Tile, ...], ...]:
    def tile(row: int, column: int, name: str, value: str) -> Tile:
        width, left, top = tile_place(patches, row, column)
        return Tile(100 * width, 100 * left, 100 * top, name, value)

    return tuple(
        (
            tile(row, 0, "this image", f"score {patch.score:.4g}"),
            *(
                tile(row, column, neighbor.origin, f"distance {neighbor.distance:.4g}")
                for column, neighbor in enumerate(patch.neighbors, start=1)
            ),
        )
        for row, patch in enumerate(patches)
    )
