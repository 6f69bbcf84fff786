"""Tiny data sets written to disk, and ways to damage them. Made anew for each test; nothing of them is stored."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

DEFECTS: tuple[dict[str, Any], ...] = (
    {"defect_name": "scratch", "pixel_value": 255, "saturation_threshold": 0.5, "relative_saturation": True},
    {"defect_name": "missing", "pixel_value": 128, "saturation_threshold": 20, "relative_saturation": False},
)
"""Entries of the tiny data sets' defects_config.json; each name is also a test folder."""


def write_image(path: Path, pixels: np.ndarray) -> Path:
    """Write uint8 pixels, (height, width) or (height, width, 3 or 4), creating the directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_deep_png(path: Path, values: np.ndarray) -> Path:
    """Write uint16 values, (height, width) or (height, width, 2, 3 or 4), as PNG; Pillow writes grey alone."""
    height, width = values.shape[:2]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2] if values.ndim == 3 else 1]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


def write_tiff(
    path: Path, values: np.ndarray, *, order: str = "<", photometric: int = 1, bits: int = 16, tags: Any = ()
) -> Path:
    """Write values (height, width) or (height, width, 3) as an uncompressed TIFF of the byte order `order`.

    photometric: 0 min-is-white, 1 min-is-black, 2 RGB; bits: of a value, 12 are packed; tags: further (tag, number).
    """
    height, width = values.shape[:2]
    channels = values.shape[2] if values.ndim == 3 else 1
    if bits == 12:
        flat = values.reshape(-1, 2).astype(int)
        packed = [flat[:, 0] >> 4, (flat[:, 0] & 15) << 4 | flat[:, 1] >> 8, flat[:, 1] & 255]
        content = np.stack(packed, axis=1).astype(np.uint8).tobytes()
    else:
        content = values.astype(f"{order}{values.dtype.kind}{bits // 8}").tobytes()
    entries = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: channels, 278: height}
    entries |= {279: len(content), **dict(tags)}
    start = 8 + len(content)
    parts = [struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in sorted(entries.items())]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    directory = struct.pack(order + "H", len(parts)) + b"".join(parts) + struct.pack(order + "I", 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + content + directory)
    return path


def tiny_pixels(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A smooth gradient with a little noise: uint8 (height, width, 3) of `size` (width, height)."""
    width, height = size
    ramp = np.linspace(60, 160, width)[None, :, None] + np.linspace(0, 40, height)[:, None, None]
    return np.clip(ramp + rng.normal(0, 4, (height, width, 3)), 0, 255).astype(np.uint8)


def draw_defect(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blacken a random rectangle of `pixels` in place; returns it as a boolean mask (height, width)."""
    height, width = pixels.shape[:2]
    mask = np.zeros((height, width), dtype=bool)
    top, left = int(rng.integers(0, height - height // 4)), int(rng.integers(0, width - width // 4))
    mask[top : top + height // 4, left : left + width // 4] = True
    pixels[mask] = 0
    return mask


def write_tiny_autovi(
    root: Path,
    *,
    categories: Sequence[str] = ("pipe_clip",),
    train: int = 6,
    good: int = 4,
    defective: int = 3,
    size: tuple[int, int] = (64, 48),
    seed: int = 0,
) -> Path:
    """AutoVI's layout: `train` and `good` images, and `defective` images of each entry of DEFECTS.

    The first defective image of each folder has two mask channels, the others one. Returns `root`.
    """
    rng = np.random.default_rng(seed)
    for category in categories:
        directory = root / category
        for split, count in (("train", train), ("test", good)):
            for number in range(count):
                write_image(directory / split / "good" / f"{number:04d}.png", tiny_pixels(rng, size))
        for entry in DEFECTS:
            folder, value = entry["defect_name"], entry["pixel_value"]
            for number in range(defective):
                pixels = tiny_pixels(rng, size)
                for channel in range(2 if number == 0 else 1):
                    mask = draw_defect(pixels, rng).astype(np.uint8) * np.uint8(value)
                    write_image(directory / "ground_truth" / folder / f"{number:04d}" / f"{channel:04d}.png", mask)
                write_image(directory / "test" / folder / f"{number:04d}.png", pixels)
        (directory / "defects_config.json").write_text(json.dumps(DEFECTS))
    return root


def write_tiny_mvtec(
    root: Path, *, category: str = "bottle", train: int = 6, good: int = 4, defective: int = 3, seed: int = 0
) -> Path:
    """MVTec's layout with the one defect folder `broken`. Returns `root`."""
    rng = np.random.default_rng(seed)
    directory = root / category
    for split, count in (("train", train), ("test", good)):
        for number in range(count):
            write_image(directory / split / "good" / f"{number:03d}.png", tiny_pixels(rng, (64, 48)))
    for number in range(defective):
        pixels = tiny_pixels(rng, (64, 48))
        mask = draw_defect(pixels, rng)
        write_image(directory / "test" / "broken" / f"{number:03d}.png", pixels)
        write_image(directory / "ground_truth" / "broken" / f"{number:03d}_mask.png", mask.astype(np.uint8) * 255)
    return root


def write_tiny_folder(root: Path, *, good: int = 10, defective: int = 3, seed: int = 0) -> Path:
    """A root with good/ and defective/, without masks. Returns `root`."""
    rng = np.random.default_rng(seed)
    for label, count in (("good", good), ("defective", defective)):
        for number in range(count):
            write_image(root / label / f"img{number + 1}.png", tiny_pixels(rng, (64, 48)))
    return root


def truncate(path: Path, *, keep: float = 0.5) -> None:
    """Cut a file short, to the first `keep` of its bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
