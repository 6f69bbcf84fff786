"""Which images show one part, one place or one tile: `dataset.group` applied to a data set index.

Groups are within a category. An image that the rule says nothing of is in no table and stands alone.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from data_contracts.config import GroupRule
from data_contracts.errors import DatasetError
from data_contracts.manifests import Manifest
from data_contracts.tables import IMAGE_GROUPS
from pipeline_lib.dataset.groups.near_copies import connected, near_copies
from pipeline_lib.storage.artifact_store import ArtifactStore

LARGE_SHARE = 0.1
"""Of a category's images: a larger group is said."""


def assign_groups(index: pd.DataFrame, rule: GroupRule, thumbnails: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """The groups of the readable images of a dataset index, in its order, in schema IMAGE_GROUPS.

    thumbnails: image_ids (image,) and thumbnails (image, height, width), from which near copies are found.
    Raises DatasetError where the rule fits no image, and for a file that does not say what it should.
    """
    readable = index[index["problem"] == ""]
    if rule == "found":
        names = _found(readable, thumbnails)
    elif "pattern" in rule:
        names = _by_pattern(readable, rule["pattern"])
    else:
        names = _by_file(readable, Path(rule["file"]))
    rows = [
        (image_id, f"{category}/{name}")
        for image_id, category, name in zip(readable["image_id"], readable["category"], names, strict=True)
        if name is not None
    ]
    return pd.DataFrame(rows, columns=IMAGE_GROUPS.names, dtype=str)


def named_groups(index: pd.DataFrame, rule: GroupRule | None) -> dict[str, str] | None:
    """image_id -> group as far as no pixels are needed, so of near copies nothing; None without a rule."""
    if rule is None or rule == "found":
        return None if rule is None else {}
    return group_by_image(assign_groups(index, rule, {}))


def group_by_image(table: pd.DataFrame) -> dict[str, str]:
    """image_id -> group of an IMAGE_GROUPS table; an image that is not in it stands alone."""
    return dict(zip(table["image_id"], table["group"], strict=True))


def stored_groups(store: ArtifactStore, table: Manifest | None) -> dict[str, str]:
    """The same of a table in the store; empty where there is none."""
    return {} if table is None else group_by_image(store.read_table(table))


def rule_fingerprint(rule: GroupRule | None) -> str | None:
    """SHA-256 (hex) of the file that a rule names, None for another rule. Raises DatasetError where it is not there."""
    if not isinstance(rule, dict) or "file" not in rule:
        return None
    return hashlib.sha256(_read(Path(rule["file"]))).hexdigest()


def large_groups(index: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """A sentence for each group that holds more than LARGE_SHARE of its category's readable images, largest first."""
    of_category = Counter(index.loc[index["problem"] == "", "category"])
    category_of = dict(zip(index["image_id"], index["category"], strict=True))
    sizes = Counter(table["group"])
    first = dict(zip(table["group"][::-1], table["image_id"][::-1], strict=True))
    sentences = []
    for group, size in sizes.most_common():
        category = category_of[first[group]]
        if size > LARGE_SHARE * of_category[category] and size > 1:
            sentences.append(
                f"group {group} holds {size} of the {of_category[category]} images of {category}, more than a tenth: "
                "what goes by group has few to go by"
            )
    return sentences


def category_thumbnails(image_ids: Iterable[str], thumbnails: Mapping[str, np.ndarray]) -> np.ndarray:
    """uint8 (image, height, width) of these images, in their order; thumbnails as in `assign_groups`."""
    position = {image_id: i for i, image_id in enumerate(thumbnails["image_ids"].tolist())}
    found: np.ndarray = thumbnails["thumbnails"][[position[image_id] for image_id in image_ids]]
    return found


def _by_pattern(readable: pd.DataFrame, pattern: str) -> list[str | None]:
    found = [re.search(pattern, str(path)) for path in readable["path"]]
    if len(found) and not any(found):
        raise DatasetError(
            f"dataset.group: the pattern {pattern!r} is found in no image's path, such as {readable['path'].iloc[0]}"
        )
    return [None if match is None else match[1 if match.re.groups else 0] for match in found]


def _by_file(readable: pd.DataFrame, file: Path) -> list[str | None]:
    given = _read_groups(file)
    names = [str(path).rsplit("/", 1)[-1] for path in readable["path"]]
    counts = Counter(names)
    if twice := sorted(name for name in given if "/" not in name and counts[name] > 1):
        raise DatasetError(
            f"dataset.group: {file} names {twice[0]}, which is the name of {counts[twice[0]]} images; give their paths "
            "below dataset.root"
        )
    found = [given.get(str(path), given.get(name)) for path, name in zip(readable["path"], names, strict=True)]
    if len(found) and all(group is None for group in found):
        raise DatasetError(
            f"dataset.group: {file} names none of the images; it holds {next(iter(given), 'nothing')}, and an image is "
            f"{readable['path'].iloc[0]} below dataset.root"
        )
    return found


def _read_groups(file: Path) -> dict[str, str]:
    """Path below the root, or file name -> group, as the file says."""
    content = _read(file).decode("utf-8-sig", errors="replace")
    wrong = DatasetError(
        f"dataset.group: {file} is neither JSON of {{image: group}} nor CSV with the columns image and group"
    )
    if file.suffix.lower() == ".json":
        try:
            values = json.loads(content)
        except ValueError as error:
            raise wrong from error
        if not isinstance(values, dict) or not all(isinstance(one, str | int) for one in values.values()):
            raise wrong
        return {name: str(group) for name, group in values.items()}
    reader = csv.DictReader(io.StringIO(content))
    if not {"image", "group"} <= set(reader.fieldnames or ()):
        raise wrong
    return {row["image"]: row["group"] for row in reader if row["group"]}


def _read(file: Path) -> bytes:
    try:
        return file.expanduser().read_bytes()
    except OSError as error:
        raise DatasetError(f"dataset.group: cannot read {file}: {error.strerror}") from error


def _found(readable: pd.DataFrame, thumbnails: Mapping[str, np.ndarray]) -> list[str | None]:
    names: dict[str, str] = {}
    for _, rows in readable.groupby("category", sort=True):
        ids = rows["image_id"].tolist()
        chains = connected(len(ids), near_copies(category_thumbnails(ids, thumbnails)))
        for chain in range(int(chains.max(initial=-1)) + 1):
            members = [ids[i] for i in np.flatnonzero(chains == chain)]
            names |= {image_id: f"like {members[0].split('/', 1)[1]}" for image_id in members}
    return [names.get(image_id) for image_id in readable["image_id"]]
