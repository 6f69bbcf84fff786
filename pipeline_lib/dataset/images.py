"""Reading image files: every supported file becomes an 8-bit RGB image, every other one an ImageError with a reason.

How pixels become 8-bit RGB (nothing is ever stretched by an image's own minimum and maximum):

* 8-bit grey, palette, CMYK: Pillow's conversion; an alpha channel is dropped, not blended.
* 12- and 16-bit grey and colours: scaled by the one value range of their category, 0..range to 0..255; min-is-white is
  turned round within it. Without a range, as earlier versions did: 0..65535, and nothing is turned round.
* 1-bit: 0 and 255. Signed, 32-bit integer and float images are refused: their range is not known.
* The orientation of EXIF and TIFF is applied in all formats; `stored`, as in earlier versions, applies a TIFF's alone.
* Of a file with several pages or frames, the first is read.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from data_contracts.errors import ImageError
from data_contracts.settings import BY_TYPE, ImageReading
from pipeline_lib.dataset.deep_pixels import SIXTEEN_BIT_GREY, deep_values, is_deep, raw_mode, refuse_unclear_tiff

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
"""File name endings that count as images, in lower case."""

MAX_PIXELS = 89_000_000
"""A larger image is refused as a probable decompression bomb (just below the size at which Pillow warns)."""

UPRIGHT = 1
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Orientation of EXIF and TIFF -> what makes the stored picture upright."""

_NOT_OF_THE_USER = frozenset(
    {"@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "recycler", "lost+found",
     "system volume information", "__macosx", "thumbs.db", "desktop.ini"}
)  # fmt: skip
"""Names, in lower case, that file servers and file browsers give."""

_GREY_MODES = frozenset({"1", "L", "LA", "La"})
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
_ACCEPTED = "accepted are PNG, JPEG, BMP, TIFF and WebP, with 8 or 16 bits a value"


def is_image_file(path: Path) -> bool:
    """Whether the name is that of an image: a known suffix in any case, and not hidden."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(path.name)


def is_hidden(name: str) -> bool:
    """Whether a file or directory is hidden, a recycle bin, a snapshot, or what a file browser leaves behind."""
    return name.startswith(".") or name.casefold() in _NOT_OF_THE_USER


@dataclass(frozen=True)
class StoredImage:
    """What a file holds, before the rule of its category makes 8-bit RGB of it."""

    name: str  # in errors
    image: Image.Image  # decoded, in Pillow's mode; a TIFF is upright
    deep: np.ndarray | None  # uint16 (height, width[, 3]): the values of more than 8 bits
    bit_depth: int  # 8, or what the file says, up to 16
    is_grey: bool
    is_min_white: bool  # of `deep`; with 8 bits Pillow turns it round
    orientation: int  # 1 to 8
    pages: int

    @cached_property
    def max_value(self) -> int:
        """The largest value of any channel."""
        return int(self._values.max())

    @property
    def is_constant(self) -> bool:
        """Whether all pixels are the same."""
        first = self._values[0, 0]
        return bool((self._values[0] == first).all() and (self._values == first).all())

    def pixels_sha256(self) -> str:
        """SHA-256 (hex) over the upright pixels and their size: equal for equal pictures, however they are stored."""
        values = self._values
        if self.deep is not None:
            values = np.broadcast_to(np.atleast_3d(values), (*values.shape[:2], 3))
        elif self._turn != UPRIGHT:
            values = np.asarray(turned(self._rgb8, self._turn))
        return hashlib.sha256(f"{values.shape} ".encode() + values.tobytes()).hexdigest()

    def to_rgb(self, reading: ImageReading) -> Image.Image:
        """As RGB with 8 bits a channel, by the rules at the head of this module.

        Raises ImageError for an image that goes beyond the value range, or of a pixel type without a fixed one.
        """
        value_range = reading.value_range
        if self.deep is None or value_range is None:
            rgb = self._rgb8
        else:
            if self.max_value > value_range:
                raise ImageError(brighter(self.name, self.max_value, value_range))
            values = self.deep.astype(np.uint32)
            if self.is_min_white:
                values = value_range - values
            scaled = ((values * 510 + value_range) // (2 * value_range)).astype(np.uint8)
            rgb = Image.fromarray(scaled).convert("RGB")
        return turned(rgb, self._turn) if reading.orientation == "applied" else rgb

    def upright(self) -> Image.Image:
        """`image` as it is to be seen, in its own mode."""
        return turned(self.image, self._turn)

    @property
    def _turn(self) -> int:
        """What makes `image` upright; Pillow has turned a TIFF."""
        return UPRIGHT if self.image.format == "TIFF" else self.orientation

    @cached_property
    def _rgb8(self) -> Image.Image:
        return to_rgb(self.image, name=self.name)

    @cached_property
    def _values(self) -> np.ndarray:
        return np.asarray(self._rgb8) if self.deep is None else self.deep


def brighter(name: str, max_value: int, value_range: int) -> str:
    """What is said of an image that goes beyond the value range of its category."""
    return (
        f"cannot use image {name}: it holds the value {max_value}, and the value range of its category is 0 to "
        f"{value_range}; is it of the same camera with the same bit depth? preprocessing.value_range sets the range "
        "that a model is trained with"
    )


def load_image(path: Path | str, reading: ImageReading = BY_TYPE) -> Image.Image:
    """The image at `path`, fully decoded, as RGB with 8 bits a channel; the rest as in `StoredImage.to_rgb`.

    Raises ImageError, naming the file and the reason, for a file that is missing, empty, truncated, not an image,
    larger than MAX_PIXELS, brighter than the range, or of a pixel type that has no fixed range.
    """
    return read_stored(read_bytes(path), name=str(path)).to_rgb(reading)


def read_stored(content: bytes, *, name: str) -> StoredImage:
    """What the file with this content holds, fully decoded. `name` is its name in errors. Raises ImageError."""

    def reopen() -> Image.Image:
        return _open(io.BytesIO(content), name=name)

    image = _opened(content, name=name)
    with _damage_named(name):
        raw, pages, tags = raw_mode(image), _pages(image), getattr(image, "tag_v2", {})
        refuse_unclear_tiff(tags, name)
        bits, photometric = max(tags.get(258, (16,))), tags.get(262, 1)
        if image.format != "TIFF":  # Pillow looks for EXIF at the end of a PNG by decoding it, and damage is said once
            image.load()
        stored_orientation = orientation_of(image)
        image.load()
        deep = deep_values(image, raw, reopen) if is_deep(raw) else None
    return StoredImage(
        name=name,
        image=image,
        deep=deep,
        bit_depth=8 if deep is None else bits,
        is_grey=image.mode in _GREY_MODES if deep is None else deep.ndim == 2,
        is_min_white=deep is not None and photometric == 0,
        orientation=stored_orientation,
        pages=pages,
    )


def image_size(path: Path | str) -> tuple[int, int]:
    """(width, height) in pixels of the upright picture, from the header alone. Raises ImageError as `load_image`."""
    try:
        with Path(path).open("rb") as file:
            image = _open(file, name=str(path))
            width, height = image.size  # of a TIFF it is that of the upright picture
            is_turned = image.format != "TIFF" and swaps_sides(orientation_of(image))
            return (height, width) if is_turned else (width, height)
    except OSError as error:
        raise ImageError(f"cannot read image {path}: {error.strerror or error}") from error


def orientation(path: Path | str) -> int:
    """How the picture is stored: 1 upright, 2 to 8 as the orientation of EXIF and TIFF says; 1 where nothing is said.

    Raises ImageError as `load_image` does.
    """
    return orientation_of(_opened(read_bytes(path), name=str(path)))


def orientation_of(image: Image.Image) -> int:
    """The same of an opened image. Of a TIFF ask before it is decoded: Pillow turns it then, and drops the tag."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    except Exception:  # EXIF that cannot be read says nothing; the pixels are read all the same
        return UPRIGHT
    return found if found in TURNS else UPRIGHT


def swaps_sides(orientation: int) -> bool:
    """Whether the upright picture is as wide as the stored one is high."""
    return orientation >= 5


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """A stored picture as it is to be seen."""
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def read_bytes(path: Path | str) -> bytes:
    """The content of an image file. Raises ImageError where the file cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read image {path}: {error.strerror or error}") from error


def decode_image(content: bytes, *, name: str) -> Image.Image:
    """The image in `content`, fully decoded, in its own mode. `name` is the file's name in the error."""
    image = _opened(content, name=name)
    with _damage_named(name):
        image.load()
    return image


def _opened(content: bytes, *, name: str) -> Image.Image:
    if not content:
        raise ImageError(f"cannot read image {name}: the file is empty; copy it again from its source")
    return _open(io.BytesIO(content), name=name)


@contextmanager
def _damage_named(name: str) -> Iterator[None]:
    try:
        yield
    except (MemoryError, ImageError):
        raise
    except Exception as error:  # Pillow's decoders raise many kinds; each becomes one clear error
        raise ImageError(
            f"cannot read image {name}: truncated or damaged ({error}); copy it from its source"
        ) from error


def _pages(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # a damaged list of pages; the first is read all the same
        return 1


def to_rgb(image: Image.Image, *, name: str = "image") -> Image.Image:
    """`image` as 8-bit RGB, by the rules at the head of this module. Raises ImageError for other pixel types."""
    if image.mode == "RGB":
        return image
    if image.mode in SIXTEEN_BIT_GREY:
        grey = (np.asarray(image).astype(np.uint32) + 128) // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode in {"I", "F"} or image.mode.startswith(("I;", "F;")):
        raise ImageError(
            f"cannot use image {name}: its pixels are 32-bit numbers (mode {image.mode}) without a fixed range; "
            f"{_ACCEPTED}; convert it"
        )
    if "transparency" in image.info:  # a transparent colour is dropped like an alpha channel
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")


def _open(file: IO[bytes], *, name: str) -> Image.Image:
    try:
        image = Image.open(file, formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(_too_large(name, str(error))) from error
    except UnidentifiedImageError as error:
        file.seek(0)
        is_tiff = file.read(4) in _TIFF_MAGIC
        kind = "a TIFF whose kind of pixels is not read" if is_tiff else "not an image that can be identified"
        raise ImageError(f"cannot read image {name}: {kind}; {_ACCEPTED}") from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged header can raise nearly anything; it becomes one clear error
        raise ImageError(f"cannot read image {name}: damaged header ({error}); copy it from its source") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(_too_large(name, f"{width}x{height} pixels"))
    return image


def _too_large(name: str, found: str) -> str:
    return f"cannot read image {name}: too large ({found}); at most {MAX_PIXELS} pixels are read; scale it down"
