"""Images from anywhere to patch features: data sets, DataLoaders, arrays of pixels, normalized tensors.

Features come out in the precision in which the artifact store holds them, so that a model made here and one made by a
flow from the same images have the same rows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from data_contracts.config import PreprocessingConfig
from data_contracts.errors import DatasetError, FedpatchError, ImageError
from data_contracts.manifests import Cells
from data_contracts.settings import Reading
from pipeline_lib.features.extraction import extract_batch
from pipeline_lib.features.preprocessing import preprocess_image
from pipeline_lib.when_needed import torch

if TYPE_CHECKING:
    from pipeline_lib.features.extractor import FeatureExtractor

ImageSize = tuple[int, int] | PreprocessingConfig
"""(width, height) in pixels that images are resized to, or the sizes of a configuration, by category."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageInfo:
    """What is known of one image besides its pixels."""

    image_id: str  # the path, or "image <number>" where there is none
    height: int  # as it came in, in pixels: the size of its anomaly map
    width: int
    category: str | None
    path: str | None


@dataclass(frozen=True)
class InputImage:
    """One image on its way to the backbone."""

    info: ImageInfo
    values: torch.Tensor  # uint8 (height, width, 3), or float (3, height, width) and normalized


@dataclass(frozen=True)
class ImagePatches:
    """The patch features of one image."""

    info: ImageInfo
    patches: np.ndarray  # float16 (patch, dim), row-major over the grid
    grid: tuple[int, int]  # (height, width) in patches
    cells: Cells  # where each of them looks


def iter_images(
    images: Any,
    *,
    image_size: ImageSize | None = None,
    category: str | None = None,
    on_bad_image: Literal["skip", "fail"] = "fail",
) -> Iterator[InputImage]:
    """One image after the other from whatever holds images.

    Accepted are an `AutoVIDataset` or a subset of it; a DataLoader or any iterable of batches; batches and samples as
    the data set's dictionaries (`image`, `category`, `path`); uint8 pixels (height, width, 3) or (image, height, width,
    3) as array or tensor; PIL images; and float tensors (3, height, width) or (image, 3, height, width) that
    `get_transforms` normalized. Pixels and PIL images are resized to `image_size`; tensors are taken as they are.
    `category` is that of images that come without one.

    A data set's image that cannot be read raises ImageError, or is left out with a warning (`on_bad_image="skip"`).
    Raises FedpatchError for anything else.
    """
    for number, (value, own_category, path) in enumerate(_samples(images, on_bad_image)):
        yield _input_image(value, number, category if own_category is None else own_category, path, image_size)


def reading_of(images: Any) -> Reading:
    """How the files behind `images` became pixels, where a data set says it; else as earlier versions read them."""
    while not isinstance(found := getattr(images, "reading", None), Reading):
        images = getattr(images, "dataset", None)  # of a DataLoader or a subset
        if images is None:
            return Reading()
    return found


def iter_patches(
    extractor: FeatureExtractor, images: Iterable[InputImage], *, batch_size: int = 32
) -> Iterator[ImagePatches]:
    """Patch features of each image, in order.

    On the CPU images go through one at a time: the same bytes whatever else is in the batch. Raises DatasetError for
    features that are not finite.
    """
    step = 1 if extractor.device.type == "cpu" else batch_size
    batch: list[InputImage] = []
    for image in images:
        same_kind = not batch or (image.values.shape, image.values.dtype) == (
            batch[0].values.shape,
            batch[0].values.dtype,
        )
        if len(batch) == step or not same_kind:
            yield from _extract(extractor, batch)
            batch = []
        batch.append(image)
    if batch:
        yield from _extract(extractor, batch)


def _extract(extractor: FeatureExtractor, batch: list[InputImage]) -> Iterator[ImagePatches]:
    features, grid = extract_batch(extractor, torch.stack([image.values for image in batch]))
    for image, patches in zip(batch, features, strict=True):
        if not np.isfinite(patches).all():
            raise DatasetError(
                f"{image.info.image_id}: its features are not finite; check its values, mean, std and weights"
            )
        size = image.values.shape[:2] if image.values.dtype == torch.uint8 else image.values.shape[1:]
        yield ImagePatches(image.info, patches, grid, extractor.cells((size[0], size[1]), grid))


def _samples(images: Any, on_bad_image: str) -> Iterator[tuple[Any, str | None, str | None]]:
    """(image, category, path) of every single image in `images`."""
    match images:
        case dict():
            yield from _of_batch(images)
        case np.ndarray() | torch.Tensor() if images.ndim == 4:
            yield from ((image, None, None) for image in images)
        case np.ndarray() | torch.Tensor() | Image.Image():
            yield images, None, None
        case str() | bytes():
            raise FedpatchError(f"got {images!r} for images; open files first, as AutoVIDataset or load_image does")
        case Iterable():
            for part in images:
                yield from _samples(part, on_bad_image)
        case _ if hasattr(images, "__getitem__") and hasattr(images, "__len__"):
            for position in range(len(images)):
                try:
                    sample = images[position]
                except ImageError as error:
                    if on_bad_image == "fail":
                        raise
                    logger.warning("an image is left out: %s", error)
                    continue
                yield from _samples(sample, on_bad_image)
        case _:
            raise FedpatchError(
                f"got a {type(images).__name__} for images; accepted are a data set, a DataLoader, batches of its "
                "samples, uint8 pixels (image, height, width, 3), PIL images or normalized tensors"
            )


def _of_batch(batch: Mapping[str, Any]) -> Iterator[tuple[Any, str | None, str | None]]:
    if "image" not in batch:
        raise FedpatchError(f"a sample or batch needs the key image, this one has {', '.join(map(str, batch))}")
    image, categories, paths = batch["image"], batch.get("category"), batch.get("path")
    if (isinstance(image, np.ndarray | torch.Tensor) and image.ndim == 3) or isinstance(image, Image.Image):
        yield image, categories, paths
        return
    count = len(image)
    for name, values in (("category", categories), ("path", paths)):
        if values is not None and (isinstance(values, str) or len(values) != count):
            raise FedpatchError(f"a batch of {count} images needs as many values of {name}, got {values!r:.60}")
    for position in range(count):
        yield (
            image[position],
            None if categories is None else categories[position],
            None if paths is None else paths[position],
        )


def _input_image(
    value: Any, number: int, category: str | None, path: str | None, image_size: ImageSize | None
) -> InputImage:
    image_id = path or f"image {number}"
    if isinstance(value, torch.Tensor | np.ndarray) and value.ndim == 3:
        tensor = torch.as_tensor(value)
        if tensor.dtype == torch.uint8 and tensor.shape[2] == 3:
            return _resized(Image.fromarray(np.ascontiguousarray(tensor)), image_id, category, path, image_size)
        if tensor.is_floating_point() and tensor.shape[0] == 3:
            _, height, width = tensor.shape
            return InputImage(ImageInfo(image_id, height, width, category, path), tensor)
    if isinstance(value, Image.Image):
        return _resized(value.convert("RGB"), image_id, category, path, image_size)
    found = f"{value.dtype} of shape {tuple(value.shape)}" if hasattr(value, "shape") else type(value).__name__
    raise FedpatchError(
        f"{image_id} is {found}; an image is uint8 (height, width, 3), a PIL image, or a normalized float tensor "
        "(3, height, width)"
    )


def _resized(
    image: Image.Image, image_id: str, category: str | None, path: str | None, image_size: ImageSize | None
) -> InputImage:
    width, height = image.size
    to_width, to_height = _wanted_size(image_size, image_id, category) or image.size
    pixels = torch.from_numpy(preprocess_image(image, width=to_width, height=to_height))
    return InputImage(ImageInfo(image_id, height, width, category, path), pixels)


def _wanted_size(image_size: ImageSize | None, image_id: str, category: str | None) -> tuple[int, int] | None:
    if not isinstance(image_size, PreprocessingConfig):
        return image_size
    if category is None:
        raise FedpatchError(
            f"{image_id} comes without a category, which decides its size; give samples with their category, or one "
            "image_size (width, height) for all"
        )
    return image_size.size(category)
