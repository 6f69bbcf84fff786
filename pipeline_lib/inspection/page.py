"""index.html: what one call of `fedpatch score` decided, for the one who inspects; what to look at first."""

from __future__ import annotations

import base64
import io
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from pipeline_lib.bank.explanation import Neighbor, PatchExplanation
from pipeline_lib.drawing.html_pages import page_template
from pipeline_lib.inspection.decisions import (
    ACCEPT,
    LOOK_AGAIN,
    NEAR,
    REFUSED,
    TRAINED_ON,
    common_folder,
    counted,
    is_close,
    margin,
    trained_on,
    urgency,
)
from pipeline_lib.inspection.files import OVERLAY, beside, panel_px
from pipeline_lib.inspection.known_images import found_at, known_misses, other_rates, told
from pipeline_lib.inspection.pictures import tile_place
from pipeline_lib.inspection.run_model import RunModel
from pipeline_lib.maps.visualize import ANCHORS, Scale, fit
from pipeline_lib.storage.artifact_store import write_file

SHOWN = 500
REFUSED_SHOWN = 100
PROMISES_SHOWN = 3
MISSES_SHOWN = 12
EMBEDDED_BYTES = 9_000_000
"""Of the pictures that lie in the page itself, as base64: those of the images to look at first; others are linked."""

EMBEDDED_PX, JPEG_QUALITY = 800, 80


@dataclass(frozen=True)
class Tile:
    """A patch on the picture of an explanation, as a background of CSS: that picture's size and its place there, in per
    cent; what it is, in full and in short, and its distance."""

    size: str
    position: str
    name: str
    short: str
    distance: str


@dataclass(frozen=True)
class Pictures:
    """The pictures of a card: their data, or where they lie beside the page; empty without one."""

    image: str
    overlay: str
    explained: str


@dataclass(frozen=True)
class Card:
    """One decided image as the page shows it. Paths of pictures are relative to the page, percent-encoded."""

    row: dict[str, Any]  # schema DECISIONS
    size_px: tuple[int, int]  # width, height
    tiles: tuple[tuple[Tile, ...], ...] = ()  # a row for each explained patch, its own tile first

    @property
    def margin(self) -> float:
        """Score less threshold as a share of the threshold; minus infinity where there is no threshold."""
        return margin(self.row["score"], self.row["threshold"])

    @property
    def is_accepted(self) -> bool:
        """Whether nobody needs to look at it."""
        return bool(self.row["advice"] == ACCEPT)

    @property
    def is_close(self) -> bool:
        """Whether the score is near the threshold."""
        return is_close(self.row["score"], self.row["threshold"])

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
        return "its highest place is ringed" if self.row["advice"] == LOOK_AGAIN["close"] else ""

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
    """Collects what a call decides and writes it as one page, with the pictures that have to be looked at first in it.

    Holds SHOWN images, not more. `options`: words of the call that a command on the page repeats.
    """

    def __init__(self, table: Path, model: RunModel, options: Sequence[str] = ()) -> None:
        self._table, self._model, self._options = table, model, options
        self.path = table.with_name(table.stem.replace("decisions", "index", 1) + ".html")
        self._cards: list[Card] = []
        self._refused: list[dict[str, Any]] = []
        self._advice: Counter[str] = Counter()
        self._n_trained_on = 0
        self._categories: set[str] = set()
        self._folders: set[str] = set()
        self._embedded: dict[str, Pictures] = {}

    def add(self, row: dict[str, Any], size_px: tuple[int, int], patches: Sequence[PatchExplanation] = ()) -> None:
        """One image: its row in the schema DECISIONS, width and height, and its explanation."""
        self._advice[row["advice"]] += 1
        if row["reason"]:
            self._refused = [*self._refused, row][:REFUSED_SHOWN]
            return
        self._n_trained_on += row["note"].startswith(TRAINED_ON)
        self._categories.add(row["category"])
        self._folders.add(os.path.dirname(row["path"]))
        self._cards.append(Card(row, size_px, _tiles(patches)))
        if len(self._cards) > 2 * SHOWN:
            self._cards = self._shown()

    def write(self, n_rows: int) -> None:
        """Write the page whole; `n_rows`: of the table, with those of earlier calls. Raises ArtifactError."""
        shown = self._shown()
        categories = sorted(self._categories)
        n_images, n_accepted, n_refused = self._advice.total(), self._advice[ACCEPT], self._advice[REFUSED]
        self._embed(shown)
        lower, higher = other_rates(self._model, categories)
        misses = known_misses(self._model, categories)
        of_stations = self._model.of_stations
        text = page_template("pipeline_lib.inspection", "index.html.j2").render(
            made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z"),
            model=self._model.directory,
            table=self._table.name,
            folder=common_folder([os.path.join(folder, "*") for folder in self._folders]),
            n_rows=n_rows,
            headline=counted(self._advice),
            n_images=n_images,
            n_refused=n_refused,
            n_left=n_images - n_refused - len(shown),
            n_to_look_at=n_images - n_refused - n_accepted,
            to_look_at=[card for card in shown if not card.is_accepted],
            others=[card for card in shown if card.is_accepted],
            pictures={card.row["picture"]: self._pictures(card.row) for card in shown},
            embedded=self._embedded,
            refused=self._refused,
            promises=[lines for name in categories if (lines := told(self._model, name))],
            promises_shown=PROMISES_SHOWN,
            shortfalls=[*filter(None, [trained_on(self._n_trained_on)]), *self._model.shortfalls(categories)],
            scales=self._scales(shown),
            gradient=", ".join(f"#{colour:06x}" for colour in ANCHORS),
            near=f"{100 * NEAR:g}",
            explaining="" if "--explain" in self._options or of_stations else self._command("why", "--explain"),
            fewer=lower and self._command(f"at_{lower:g}", "--false-alarm-rate", f"{lower:g}"),
            more=higher and self._command(f"at_{higher:g}", "--false-alarm-rate", f"{higher:g}"),
            higher=f"{100 * (higher or 0):g}",
            found_at=found_at(self._model, higher, categories) if higher else (0, 0),
            is_given=self._model.fixed_threshold is not None,
            misses=misses[:MISSES_SHOWN],
            n_misses=len(misses),
            of_stations=of_stations,
        )
        write_file(self.path, text.encode())

    def _command(self, what: str, *options: str) -> str:
        """The same call with other options; its results go beside these, not among them."""
        words = ["--out", f"{self._table.parent}_{what}", *self._options, *options]
        return f"fedpatch score {shlex.quote(str(self._model.directory))} IMAGES {shlex.join(words)}"

    def _shown(self) -> list[Card]:
        return sorted(self._cards, key=lambda card: urgency(card.row))[:SHOWN]

    def _scales(self, shown: Sequence[Card]) -> list[tuple[str, Scale, float | None]]:
        """(category, scale of its colours, threshold)."""
        first = {card.row["category"]: card.row for card in reversed(shown)}
        return [
            (name, self._model.colour_scale(name, row["score"]), row["threshold"])
            for name, row in sorted(first.items())
        ]

    def _pictures(self, row: dict[str, Any]) -> Pictures:
        """Those in the page, else links to those beside it."""
        linked = (row["picture"], beside(row["picture"], OVERLAY), row["explained"])
        return self._embedded.get(row["picture"]) or Pictures(*map(quote, linked))

    def _embed(self, cards: Sequence[Card]) -> None:
        """Keep the pictures of the first of `cards` as data, of EMBEDDED_BYTES together."""
        before, self._embedded = self._embedded, {}
        left = EMBEDDED_BYTES
        for card in cards:
            picture = card.row["picture"]
            found = before.get(picture) or _as_data(self._table.parent, card)
            if found is None:
                continue
            left -= sum(map(len, (found.image, found.overlay, found.explained)))
            if left < 0:
                break
            self._embedded[picture] = found


def _as_data(out: Path, card: Card) -> Pictures | None:
    """The pictures of a card as data: URIs, none longer than EMBEDDED_PX; None where they are not all there."""
    row = card.row
    if not row["picture"]:
        return None
    try:
        panels = Image.open(out / row["picture"])
        own, _ = fit(Image.new("1", card.size_px), None, panel_px(card.size_px))
        image = panels.crop((0, 0, *own.size))
        overlay = Image.open(out / beside(row["picture"], OVERLAY))
        explained = _data_uri(Image.open(out / row["explained"])) if row["explained"] else ""
        return Pictures(_data_uri(image), _data_uri(overlay), explained)
    except OSError:
        return None


def _data_uri(picture: Image.Image) -> str:
    smaller, _ = fit(picture.convert("RGB"), None, EMBEDDED_PX)
    buffer = io.BytesIO()
    smaller.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _tiles(patches: Sequence[PatchExplanation]) -> tuple[tuple[Tile, ...], ...]:
    def tile(row: int, column: int, name: str, short: str, distance: float) -> Tile:
        width, height, left, top = tile_place(patches, row, column)
        position = f"{100 * left / (width - 1):.3f}% {100 * top / (height - 1):.3f}%"
        return Tile(f"{100 * width:.2f}% {100 * height:.2f}%", position, name, short, f"{distance:.4g}")

    return tuple(
        (
            tile(row, 0, "of this photograph", "the place", patch.score),
            *(
                tile(row, column, neighbor.origin, _short(neighbor), neighbor.distance)
                for column, neighbor in enumerate(patch.neighbors, start=1)
            ),
        )
        for row, patch in enumerate(patches)
    )


def _short(neighbor: Neighbor) -> str:
    return neighbor.origin if neighbor.image_id is None else neighbor.image_id.rpartition("/")[2]
