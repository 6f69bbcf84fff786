"""Near copies against a slow loop; parts in a fixture, light and constant images do not make any."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from pipeline_lib.dataset.groups.near_copies import NEAR, connected, near_copies
from pipeline_lib.dataset.groups.thumbnails import SIDE_PX, Thumbnails
from pipeline_lib.dataset.images import StoredImage, read_stored
from tests.dataset_fixtures import write_deep_png


def textures(n: int, seed: int = 0) -> np.ndarray:
    """float64 (image, SIDE_PX, SIDE_PX), smooth enough that a scene is more than noise."""
    noise = np.random.default_rng(seed).normal(size=(n, SIDE_PX, SIDE_PX))
    return np.asarray(100 + 300 * gaussian_filter(noise, (0, 1.5, 1.5)))


def as_pictures(images: np.ndarray) -> np.ndarray:
    return images.clip(0, 255).astype(np.uint8)


def test_exposures_of_one_scene_are_near_copies_and_other_scenes_are_not() -> None:
    scenes = textures(40)
    light = np.linspace(0, 60, SIDE_PX)
    images = np.concatenate([scenes, 0.6 * scenes[[3, 17]] + light])
    assert {pair[:2] for pair in near_copies(as_pictures(images))} == {(3, 40), (17, 41)}


def test_parts_in_a_fixture_look_alike_and_are_no_near_copies_unless_they_are() -> None:
    fixture = textures(1)[0]
    parts = fixture + 0.3 * (textures(60, seed=1) - 100)
    shifted = np.array([np.roll(part, shift, axis=1) for part, shift in zip(parts, np.arange(60) % 3, strict=True)])
    again = shifted[7] + np.random.default_rng(2).normal(size=fixture.shape)
    pairs = near_copies(as_pictures(np.concatenate([shifted, again[None]])))
    assert [pair[:2] for pair in pairs] == [(7, 60)]
    assert pairs[0].correlation > NEAR


def test_pairs_are_found_across_the_blocks_of_a_long_list_and_constant_images_have_none() -> None:
    images = textures(1100)
    images[1050] = images[2]
    images[[5, 6]] = 80
    assert {pair[:2] for pair in near_copies(as_pictures(images))} == {(2, 1050)}
    assert near_copies(as_pictures(images[:1])) == []
    assert near_copies(as_pictures(images[:0])) == []


def test_chains_are_numbered_and_an_image_without_a_copy_has_none() -> None:
    images = textures(30)
    images[[8, 20]] = images[1] + 5
    images[11] = images[4]
    chains = connected(30, near_copies(as_pictures(images)))
    assert chains[1] == chains[8] == chains[20] != chains[4] == chains[11]
    assert (np.delete(chains, [1, 8, 20, 4, 11]) == -1).all()
    assert (connected(3, []) == -1).all()


def test_a_thumbnail_is_upright_and_that_of_a_dark_deep_file_is_not_black(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 4095, 96).astype(np.uint16), (60, 1))
    deep = read_stored(write_deep_png(tmp_path / "x.png", ramp).read_bytes(), name="x")
    grey = Image.fromarray((ramp // 16).astype(np.uint8))
    turned = StoredImage("y", grey, None, 8, is_grey=True, is_min_white=False, orientation=3, pages=1)
    thumbnails = Thumbnails()
    thumbnails.add("b", turned)
    thumbnails.add("a", deep)
    arrays = thumbnails.to_arrays()
    assert arrays["image_ids"].tolist() == ["a", "b"]
    straight, upside_down = arrays["thumbnails"].astype(int)
    assert straight.shape == (SIDE_PX, SIDE_PX)
    assert straight[0, -1] > 240 > 20 > straight[0, 0]
    assert abs(upside_down[::-1, ::-1] - straight).max() <= 2
