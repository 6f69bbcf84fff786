"""The data set as a torch-style dataset: a thin view of the dataset index, for notebooks and for the guide's API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from data_contracts.config import Layout, PreprocessingConfig
from data_contracts.defects import DefectEntry
from data_contracts.errors import DatasetError
from data_contracts.settings import Reading
from pipeline_lib.dataset.ground_truth import DefectChannel, category_defects, read_mask_channels, union_mask
from pipeline_lib.dataset.images import load_image
from pipeline_lib.dataset.index import index_dataset
from pipeline_lib.dataset.layout import DEFECTS_CONFIG, GOOD, RULES, category_directory
from pipeline_lib.dataset.reading import decide_reading, without_brighter

Transform = Callable[[Any], Any]


class AutoVIDataset:
    """Images of one split, in the order of the dataset index; works as a map-style dataset of torch's DataLoader.

    `transform` is applied to each RGB image: one for all, or one a category (images of two categories differ in
    size). `include_good_only` leaves out the defective images of the test split. `samples` holds tuples
    (path, label, category, defect_type) with label 0 good, 1 defective, and defect_type "good" or the defect folder;
    `defects_config` the entries of each category that has a defects_config.json; `quarantined` the tuples
    (path, reason) of files that cannot be read and are left out. `reading` says how files become pixels; it is decided
    from the training images, as a run does it, unless given, such as that of a model.

    Raises DatasetError as `index_dataset` does.
    """

    def __init__(
        self,
        root_dir: Path | str,
        categories: Sequence[str] | None = None,
        split: Literal["train", "test"] = "train",
        transform: Transform | Mapping[str, Transform] | None = None,
        include_good_only: bool = False,
        layout: Layout = "autovi",
        reading: Reading | None = None,
    ) -> None:
        if split not in ("train", "test"):
            raise DatasetError(f"split is {split!r}; it must be train or test")
        self.root_dir = Path(root_dir)
        self.split = split
        self.layout = layout
        self.transform = transform
        orientation = reading.orientation if reading else "applied"
        index = index_dataset(
            self.root_dir, layout=layout, categories=categories, splits=(split,), orientation=orientation
        )
        self.reading = reading or self._decided_reading(index)
        index = without_brighter(index, self.reading.value_ranges)
        if include_good_only:
            index = index[index["label"] == GOOD]
        unreadable = index["problem"] != ""
        self.quarantined: list[tuple[str, str]] = [
            (str(self.root_dir / str(path)), str(problem))
            for path, problem in index.loc[unreadable, ["path", "problem"]].itertuples(index=False)
        ]
        self.index = index[~unreadable].reset_index(drop=True)
        self.categories = sorted(self.index["category"].unique())
        if isinstance(transform, Mapping) and (missing := [name for name in self.categories if name not in transform]):
            raise DatasetError(
                f"transform has none for {', '.join(missing)}; give one for each category, or one for all"
            )
        self.samples: list[tuple[str, int, str, str]] = [
            (str(self.root_dir / str(path)), int(label_index), str(category), str(label))
            for path, label_index, category, label in self.index[
                ["path", "label_index", "category", "label"]
            ].itertuples(index=False)
        ]
        self.defects_config: dict[str, list[DefectEntry]] = {
            category: category_defects(self.root_dir, category, layout=layout)
            for category in self.categories
            if RULES[layout].masks == "named" and (self._directory(category) / DEFECTS_CONFIG).is_file()
        }

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """image (RGB, transformed), label, category, defect_type and path. Raises ImageError."""
        path, label, category, defect_type = self.samples[index]
        image: Any = load_image(path, self.reading.of(category))
        transform = self.transform[category] if isinstance(self.transform, Mapping) else self.transform
        if transform is not None:
            image = transform(image)
        return {"image": image, "label": label, "category": category, "defect_type": defect_type, "path": path}

    def get_ground_truth(self, index: int) -> np.ndarray:
        """The union of all channels: uint8 (height, width) of the file's own size, 1 defective, 0 good."""
        row = self.index.iloc[index]
        return union_mask(self._channels(index), int(row["height"]), int(row["width"])).astype(np.uint8)

    def get_ground_truth_channels(self, index: int) -> dict[str, list[DefectChannel]]:
        """Defect name -> the image's channels of that defect; empty for a good image. Raises ImageError."""
        by_defect: dict[str, list[DefectChannel]] = {}
        for channel in self._channels(index):
            by_defect.setdefault(channel.defect_name, []).append(channel)
        return by_defect

    def get_statistics(self) -> dict[str, Any]:
        """Counts: in all, by category, by defect type, and (under `categories`) by both."""
        defect_types: dict[str, Counter[str]] = {category: Counter() for category in self.categories}
        for _, _, category, defect_type in self.samples:
            defect_types[category][defect_type] += 1
        defective = sum(label for _, label, _, _ in self.samples)
        return {
            "split": self.split,
            "total": len(self),
            "good": len(self) - defective,
            "defective": defective,
            "quarantined": len(self.quarantined),
            "by_category": {category: counts.total() for category, counts in defect_types.items()},
            "by_defect_type": dict(sum(defect_types.values(), Counter[str]())),
            "by_label": {"good": len(self) - defective, "defective": defective},
            "categories": {
                category: {
                    "total": counts.total(),
                    "good": counts[GOOD],
                    "defective": counts.total() - counts[GOOD],
                    "by_defect_type": dict(counts),
                }
                for category, counts in defect_types.items()
            },
        }

    def get_category_indices(self, category: str) -> list[int]:
        """Positions of the category's samples; empty for an unknown one."""
        return [position for position, sample in enumerate(self.samples) if sample[2] == category]

    def _decided_reading(self, index: pd.DataFrame) -> Reading:
        if self.split == "test" and (index["bit_depth"] > 8).any():  # which the training images give a range
            index = index_dataset(self.root_dir, layout=self.layout, categories=sorted(set(index["category"])))
        return decide_reading(index, PreprocessingConfig())

    def _directory(self, category: str) -> Path:
        return category_directory(self.root_dir, category, layout=self.layout)

    def _channels(self, index: int) -> list[DefectChannel]:
        row = self.index.iloc[index]
        if self.split == "train":
            return []
        return read_mask_channels(
            self.root_dir,
            row["category"],
            row["label"],
            Path(row["path"]).stem,
            layout=self.layout,
            width=int(row["width"]),
            height=int(row["height"]),
            orientation=int(row["orientation"]),
            defects=self.defects_config.get(row["category"], ()),
        )


class AutoVISubset:
    """Some samples of an AutoVIDataset, by their positions in it; copies nothing."""

    def __init__(self, dataset: AutoVIDataset, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = [int(index) for index in indices]
        if outside := [index for index in self.indices if not 0 <= index < len(dataset)]:
            raise DatasetError(f"subset index {outside[0]} is outside the data set's 0 to {len(dataset) - 1}")

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.dataset[self.indices[index]]

    @property
    def reading(self) -> Reading:
        """The data set's."""
        return self.dataset.reading

    @property
    def samples(self) -> list[tuple[str, int, str, str]]:
        """The subset's sample tuples, as in AutoVIDataset."""
        return [self.dataset.samples[index] for index in self.indices]

    def get_category_indices(self, category: str) -> list[int]:
        """Positions within the subset of the category's samples."""
        return [position for position, sample in enumerate(self.samples) if sample[2] == category]
