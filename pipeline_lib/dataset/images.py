"""Reading image files: every supported file becomes an 8-bit RGB image, every other one an ImageError with a reason.

How pixels become 8-bit RGB (nothing is ever stretched by an image's own minimum and maximum):

* 8-bit grey, palette, CMYK: Pillow's conversion; an alpha channel is dropped, not blended.
* 16-bit grey: divided by 257, so that 0..65535 becomes 0..255.
* 1-bit: 0 and 255. 32-bit integer and float images are refused: their range is not known.
* The EXIF orientation is not applied, because masks are drawn on the pixels as they are stored.
* Of a file with several pages or frames, the first is read.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from data_contracts.errors import ImageError

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

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
_SIXTEEN_BIT_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_ACCEPTED = "accepted are PNG, JPEG, BMP, TIFF and WebP, 8-bit or 16-bit grey"


def is_image_file(path: Path) -> bool:
    """Whether the name is that of an image: a known suffix in any case, and not hidden."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(path.name)


def is_hidden(name: str) -> bool:
    """Whether a file or directory is hidden, a recycle bin, a snapshot, or what a file browser leaves behind."""
    return name.startswith(".") or name.casefold() in _NOT_OF_THE_USER


def load_image(path: Path | str) -> Image.Image:
    """The image at `path`, fully decoded, as RGB with 8 bits a channel.

    Raises ImageError, naming the file and the reason, for a file that is missing, empty, truncated, not an image,
    larger than MAX_PIXELS, or of a pixel type that has no fixed range.
    """
    return to_rgb(decode_image(read_bytes(path), name=str(path)), name=str(path))


def image_size(path: Path | str) -> tuple[int, int]:
    """(width, height) in pixels, from the header alone. Raises ImageError as `load_image` does."""
    try:
        with Path(path).open("rb") as file:
            return _open(file, name=str(path)).size
    except OSError as error:
        raise ImageError(f"cannot read image {path}: {error.strerror or error}") from error


def orientation(path: Path | str) -> int:
    """How the picture is stored: 1 upright, 2 to 8 as the orientation of EXIF and TIFF says; 1 where nothing is said.

    Raises ImageError as `load_image` does.
    """
    content = read_bytes(path)
    return orientation_of(_open(io.BytesIO(content), name=str(path)))


def orientation_of(image: Image.Image) -> int:
    """The same of an opened image. Of a TIFF ask before it is decoded: Pillow turns it then, and drops the tag."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    except Exception:  # EXIF that cannot be read says nothing; the pixels are read all the same
        return UPRIGHT
    return found if found in TURNS else UPRIGHT


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """A stored picture as it is to be seen; 5 to 8 exchange width and height."""
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def read_bytes(path: Path | str) -> bytes:
    """The content of an image file. Raises ImageError where the file cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read image {path}: {error.strerror or error}") from error


def decode_image(content: bytes, *, name: str) -> Image.Image:
    """The image in `content`, fully decoded, in its own mode. `name` is the file's name in the error."""
    if not content:
        raise ImageError(f"cannot read image {name}: the file is empty; copy it again from its source")
    image = _open(io.BytesIO(content), name=name)
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds; each becomes one clear error
        raise ImageError(
            f"cannot read image {name}: truncated or damaged ({error}); copy it from its source"
        ) from error
    return image


def to_rgb(image: Image.Image, *, name: str = "image") -> Image.Image:
    """`image` as 8-bit RGB, by the rules at the head of this module. Raises ImageError for other pixel types."""
    if image.mode == "RGB":
        return image
    if image.mode in _SIXTEEN_BIT_MODES:
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
        raise ImageError(f"cannot read image {name}: not an image that can be identified; {_ACCEPTED}") from error
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
