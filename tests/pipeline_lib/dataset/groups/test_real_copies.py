"""Near copies on the magnetic tiles, of which another measure has told which photographs show one tile."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.dataset.groups.assignment import category_thumbnails
from pipeline_lib.dataset.groups.near_copies import near_copies
from pipeline_lib.dataset.groups.thumbnails import Thumbnails
from pipeline_lib.dataset.index import index_dataset

pytestmark = pytest.mark.slow


def test_found_pairs_are_of_one_tile_and_a_split_by_file_is_seen_to_leak(real_data: Path) -> None:
    known_file = real_data.parent / "magnetic_tile_groups.json"
    if not known_file.is_file():
        pytest.skip(f"{known_file} is not there")
    known = json.loads(known_file.read_text())
    pictures = Thumbnails()
    index = index_dataset(real_data, categories=["magnetic_tile"], look=pictures.add)
    pairs = near_copies(category_thumbnails(index.image_id, pictures.to_arrays()))
    names = [Path(path).name for path in index.path]
    good = (index.label == "good").tolist()
    of_good = [pair for pair in pairs if good[pair.first] and good[pair.second]]
    same = [known[names[pair.first]] == known[names[pair.second]] for pair in of_good]
    assert np.mean(same) > 0.99
    sizes = Counter(known[name] for name, is_good in zip(names, good, strict=True) if is_good)
    with_sibling = {i for i, name in enumerate(names) if good[i] and sizes[known[name]] > 1}
    found = {i for pair in of_good for i in pair[:2]}
    assert len(found & with_sibling) / len(with_sibling) > 0.6
    split = index.split.tolist()
    assert not [pair for pair in of_good if split[pair.first] != split[pair.second]]  # by tile: nothing leaks
    by_file = np.random.default_rng(0).random(len(names)) < 0.75
    leaked = {i for a, b, _ in of_good for i, j in ((a, b), (b, a)) if not by_file[i] and by_file[j]}
    assert len(leaked) / sum(is_good and not train for is_good, train in zip(good, by_file, strict=True)) > 0.4
