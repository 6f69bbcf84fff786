"""What `fedpatch score` leaves of an image for people: its row, its heat map and its regions."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline_lib.bank.explanation import PatchExplanation
from pipeline_lib.inspection.decisions import PICTURES, ImageDecision
from pipeline_lib.inspection.pictures import explanation_picture
from pipeline_lib.maps.visualize import DARK, OUTLINE, Scale, draw_outline, overlay, png_bytes, visualize_anomaly_map
from pipeline_lib.storage.artifact_store import write_file
from pipeline_lib.storage.files import safe_name

PANEL_PX = 800
SMALLEST_MARK = 1 / 12
"""Of the shorter side: a region that is smaller is ringed, so that it is seen where the page shows it at a fifth."""

TEXT_SHARE, SMALLEST_TEXT_PX = 1 / 22, 10
"""Height of what is written on a picture, of its shorter side: read on a phone, too."""

OVERLAY, EXPLAINED = ".overlay.jpg", ".explained.png"


def table_row(
    decision: ImageDecision, picture: str = "", patches: Sequence[PatchExplanation] = ()
) -> dict[str, object]:
    """One image in the schema DECISIONS."""
    return {
        "reason": "",
        "note": "",
        **decision.summary(),
        "n_regions": len(decision.regions),
        "area_px": 0 if decision.mask is None else int(decision.mask.sum()),
        "regions": json.dumps([asdict(region) for region in decision.regions]),
        "nearest_normal": json.dumps([patch.summary() for patch in patches]),
        "picture": picture,
        "explained": beside(picture, EXPLAINED) if patches else "",
        "advice": decision.advice,
    }


def beside(picture: str, ending: str) -> str:
    """Path of what belongs to a picture: with OVERLAY or EXPLAINED instead of its own ending."""
    return picture.removesuffix(".jpg") + ending if picture else ""


def write_pictures(out: Path, decision: ImageDecision, scale: Scale, patches: Sequence[PatchExplanation] = ()) -> str:
    """<name>.jpg (image, heat map, overlay), <name>.overlay.jpg (regions outlined with their area), and
    <name>.explained.png where there are explanations; returns the first one's path relative to `out`. Pictures of an
    earlier decision on a file of the same name stay."""
    assert decision.pixels is not None
    assert decision.anomaly_map is not None
    panels = visualize_anomaly_map(
        decision.pixels,
        decision.anomaly_map,
        scale=scale,
        ground_truth=None,
        panel_px=panel_px((decision.pixels.shape[1], decision.pixels.shape[0])),
    )
    content = _jpeg_bytes(panels)
    stem = picture_stem(decision)
    if _differs(out / PICTURES / f"{stem}.jpg", content):  # of an earlier decision on a file of this name
        stem = f"{stem}-{hashlib.sha256(content).hexdigest()[:8]}"
    relative = f"{PICTURES}/{stem}.jpg"
    write_file(out / relative, content)
    write_file(out / beside(relative, OVERLAY), _jpeg_bytes(outlined_regions(decision, scale)))
    if patches:
        write_file(out / beside(relative, EXPLAINED), png_bytes(explanation_picture(decision, list(patches))))
    return relative


def outlined_regions(decision: ImageDecision, scale: Scale) -> Image.Image:
    """The image at its own size with the map over it, the regions above the threshold outlined, each with its area.

    Regions too small to be seen on a page are ringed, and so is the highest place of a good image that is close.
    """
    assert decision.pixels is not None
    assert decision.anomaly_map is not None
    covered = overlay(decision.pixels, decision.anomaly_map, scale)
    if decision.mask is not None and decision.mask.any():
        covered = draw_outline(covered, decision.mask)
    picture = Image.fromarray(covered)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=max(SMALLEST_TEXT_PX, TEXT_SHARE * min(picture.size)))
    if decision.decision == "good" and decision.is_close:
        peak_y, peak_x = divmod(int(decision.anomaly_map.argmax()), picture.width)
        _ring(draw, (peak_x, peak_y, peak_x + 1, peak_y + 1))
    for region in decision.regions[:10]:
        left, top, _, bottom = _ring(draw, (region.left, region.top, region.right, region.bottom))
        text = f"{region.area_px} px"
        _, _, width, height = draw.textbbox((0, 0), text, font=font)
        x = int(np.clip(left, 0, max(0, picture.width - width - 4)))
        y = top - height - 6 if top > height + 6 else min(bottom + 2, picture.height - height - 4)
        draw.rectangle((x, y, x + width + 4, y + height + 4), fill=DARK)
        draw.text((x + 2, y + 1), text, fill=OUTLINE, font=font)
    return picture


def _ring(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Draw a ring around what is in the box (left, top, right, bottom) where it is small; the box with its ring."""
    shorter = min(draw.im.size)
    radius, width = round(SMALLEST_MARK * shorter / 2), max(1, round(shorter / 100))
    left, top, right, bottom = box
    if max(right - left, bottom - top) >= 2 * radius:
        return box
    x, y = (left + right) // 2, (top + bottom) // 2
    for grown, colour, thick in ((1, DARK, width + 2), (0, OUTLINE, width)):
        reach = radius + grown
        draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline=colour, width=thick)
    return x - radius, y - radius, x + radius, y + radius


def panel_px(size_px: tuple[int, int]) -> int:
    """The longer side of each panel of the picture of an image of that width and height."""
    return min(PANEL_PX, max(size_px))


def _differs(path: Path, content: bytes) -> bool:
    return path.exists() and path.read_bytes() != content


def _jpeg_bytes(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def picture_stem(decision: ImageDecision) -> str:
    """A file name that tells images of one name in different directories apart."""
    parts = decision.path.absolute().parts
    digest = hashlib.sha256("/".join(parts).encode(errors="surrogateescape")).hexdigest()[:8]
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{parts[-2] if len(parts) > 2 else ''}_{decision.path.stem}")
    return f"{safe_name(decision.category or 'unknown')}/{plain[-80:]}-{digest}"
