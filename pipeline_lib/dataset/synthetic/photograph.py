"""What the camera adds: the surface behind the part, light, colour drift over time, dirt, blur and noise."""

from __future__ import annotations

import math
import zlib
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

from pipeline_lib.dataset.synthetic.canvas import Canvas, Look


def value_noise(rng: np.random.Generator, size: tuple[int, int], cells: tuple[int, int]) -> np.ndarray:
    """Smooth noise of about unit variance, float32 (height, width), from a random grid of `cells` (x, y)."""
    grid = rng.standard_normal((cells[1] + 1, cells[0] + 1), dtype=np.float32)
    return np.asarray(Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC), dtype=np.float32)


@lru_cache(maxsize=16)
def surface(key: tuple[int, ...], category: str, size: tuple[int, int]) -> np.ndarray:
    """The grain of the category's surface, the same in all its pictures; float32 (height, width)."""
    rng = np.random.default_rng([*key, zlib.crc32(category.encode())])
    brushed = category in ("tank_screw", "underbody_screw", "pipe_staple")
    fine = (12, 90) if brushed else (70, 60)
    grain = (
        0.55 * value_noise(rng, size, (4, 3))
        + 0.3 * value_noise(rng, size, (15, 12))
        + 0.3 * value_noise(rng, size, fine)
    )
    return np.asarray(grain, dtype=np.float32)


def background(
    look: Look, dataset_key: tuple[int, ...], category: str, size: tuple[int, int], colour: tuple[int, int, int]
) -> Image.Image:
    """The empty surface: the category's own grain, and stains that each picture has its own of."""
    own = value_noise(look.rng("stains"), size, (7, 6))
    tone = 1.0 + 0.10 * surface(dataset_key, category, size) + 0.06 * own
    pixels = tone[:, :, None] * np.asarray(colour, dtype=np.float32)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def dirt(canvas: Canvas, look: Look) -> None:
    """A few specks, drops and scratches that good pictures have too."""
    rng = look.rng("dirt")
    for _ in range(int(rng.poisson(4.0))):
        center = (float(rng.uniform(0, canvas.aspect)), float(rng.uniform(0, 1)))
        shade_of = int(rng.choice([20, 60, 215]))
        canvas.disc(
            center, float(rng.uniform(0.004, 0.012)), (shade_of, shade_of, shade_of, int(rng.integers(60, 170)))
        )
    for _ in range(int(rng.poisson(0.8))):
        x, y = float(rng.uniform(0, canvas.aspect)), float(rng.uniform(0, 1))
        angle, length = float(rng.uniform(0, math.tau)), float(rng.uniform(0.03, 0.12))
        end = (x + length * math.cos(angle), y + length * math.sin(angle))
        canvas.band([(x, y), end], 0.004, (210, 210, 205, int(rng.integers(50, 120))))


def glare(canvas: Canvas, look: Look) -> None:
    """In some pictures a reflection, or the shadow of something outside the view, falls on the part."""
    rng = look.rng("glare")
    x, y = float(rng.uniform(0, 1)) * canvas.aspect, float(rng.uniform(0, 1))
    angle, width = float(rng.uniform(0, math.pi)), float(rng.uniform(0.05, 0.25))
    tone = (255, 252, 240) if rng.random() < 0.5 else (0, 0, 0)
    if rng.random() < 0.35:
        ends = [(x - 3 * math.cos(angle), y - 3 * math.sin(angle)), (x + 3 * math.cos(angle), y + 3 * math.sin(angle))]
        for k in range(6):
            canvas.band(ends, width * (1 - 0.1 * k), (*tone, int(rng.integers(5, 14))))


def photograph(picture: Image.Image, look: Look) -> Image.Image:
    """The picture as the station's camera sees it at `look.time`.

    Light falls off along a direction that differs a little from picture to picture; the lamp ages (darker and warmer)
    over the whole period, with a slow swing on top; then blur and noise.
    """
    rng = look.rng("camera")
    width, height = picture.size
    sigma = height * float(rng.uniform(0.0008, 0.0028))
    pixels = np.asarray(picture.filter(ImageFilter.GaussianBlur(sigma)), dtype=np.float32)
    angle = math.radians(-120 + 25 * float(rng.standard_normal()))
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :] * math.cos(angle)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * math.sin(angle)
    light = 1.0 + float(rng.uniform(0.04, 0.14)) * (x + y)
    swing = math.sin(math.tau * 1.7 * look.time + look.key[1] % 7)
    drift = np.array([1.0 - 0.02 * look.time, 1.0 - 0.06 * look.time, 1.0 - 0.11 * look.time]) * (1 + 0.03 * swing)
    gain = float(rng.normal(1.0, 0.03)) * drift * rng.normal(1.0, 0.008, size=3)
    lit = pixels * light[:, :, None] * gain.astype(np.float32)
    noise = rng.standard_normal(lit.shape, dtype=np.float32) * (2.0 + 0.02 * lit)
    return Image.fromarray(np.clip(np.rint(lit + noise), 0, 255).astype(np.uint8))
