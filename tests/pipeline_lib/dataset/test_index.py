"""The dataset index: layouts, order, unreadable files, errors and the fingerprint."""

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_contracts.errors import DatasetError
from data_contracts.tables import DATASET_INDEX
from pipeline_lib.dataset.index import dataset_fingerprint, index_dataset
from pipeline_lib.dataset.layout import category_directory, find_categories, natural_order
from tests.dataset_fixtures import (
    tiny_pixels,
    truncate,
    write_image,
    write_tiny_autovi,
    write_tiny_folder,
    write_tiny_mvtec,
)


def test_every_image_is_a_row_in_the_documented_order(tmp_path: Path) -> None:
    write_tiny_autovi(tmp_path, categories=("tank_screw", "pipe_clip"))
    index = index_dataset(tmp_path, layout="autovi")
    assert list(index.columns) == DATASET_INDEX.names
    assert pa.Table.from_pandas(index, schema=DATASET_INDEX, preserve_index=False).num_rows == 2 * (6 + 4 + 3 + 3)
    groups = list(dict.fromkeys(index[["category", "split", "label"]].itertuples(index=False, name=None)))
    of_one = [("train", "good"), ("test", "good"), ("test", "missing"), ("test", "scratch")]
    assert groups == [(category, *rest) for category in ("pipe_clip", "tank_screw") for rest in of_one]
    row = index.iloc[-3]
    content = (tmp_path / "tank_screw/test/scratch/0000.png").read_bytes()
    pixels = np.asarray(Image.open(tmp_path / "tank_screw/test/scratch/0000.png"))
    assert row.to_dict() == {
        "image_id": "tank_screw/test/scratch/0000",
        "category": "tank_screw",
        "split": "test",
        "label": "scratch",
        "label_index": 1,
        "path": "tank_screw/test/scratch/0000.png",
        "width": 64,
        "height": 48,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "n_mask_channels": 2,
        "problem": "",
        "bit_depth": 8,
        "max_value": pixels.max(),
        "is_constant": 0,
        "is_grey": 0,
        "orientation": 1,
        "pages": 1,
        "pixels_sha256": hashlib.sha256(b"(48, 64, 3) " + pixels.tobytes()).hexdigest(),
    }
    assert list(index.loc[index["label"] == "good", "label_index"].unique()) == [0]


def test_file_names_are_in_natural_order(tmp_path: Path) -> None:
    for name in ("img10.png", "img2.png", "IMG1.PNG", "img2b.png"):
        write_image(tmp_path / "c/train/good" / name, tiny_pixels(np.random.default_rng(0), (8, 8)))
    paths = index_dataset(tmp_path)["path"]
    assert [Path(path).name for path in paths] == ["IMG1.PNG", "img2.png", "img2b.png", "img10.png"]


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=8, unique=True))
def test_natural_order_is_the_order_of_numbers(numbers: list[int]) -> None:
    names = sorted((f"cam1_{number}.png" for number in numbers), key=natural_order)
    assert names == [f"cam1_{number}.png" for number in sorted(numbers)]


@given(st.lists(st.text(max_size=6), max_size=6))
def test_natural_order_compares_any_names(names: list[str]) -> None:
    in_order = sorted(names, key=natural_order)
    names.reverse()
    assert sorted(names, key=natural_order) == in_order


def test_the_same_rows_whatever_the_number_of_threads(tmp_path: Path) -> None:
    write_tiny_autovi(tmp_path, train=20)
    calls: list[tuple[int, int]] = []
    index = index_dataset(tmp_path, workers=1, progress=lambda done, total: calls.append((done, total)))
    assert index.equals(index_dataset(tmp_path, workers=8))
    assert calls == [(done, len(index)) for done in range(1, len(index) + 1)]


def test_unreadable_images_stay_as_rows(tmp_path: Path) -> None:
    write_tiny_autovi(tmp_path)
    truncate(tmp_path / "pipe_clip/train/good/0001.png")
    (tmp_path / "pipe_clip/test/good/0002.png").write_bytes(b"")
    (tmp_path / "pipe_clip/test/good/0003.png").unlink()
    (tmp_path / "pipe_clip/test/good/0003.png").symlink_to(tmp_path / "nowhere.png")
    index = index_dataset(tmp_path).set_index("path")
    bad = index[index["problem"] != ""]
    assert list(bad.index) == [
        f"pipe_clip/{name}.png" for name in ("train/good/0001", "test/good/0002", "test/good/0003")
    ]
    assert bad[["width", "height"]].to_numpy().sum() == 0
    assert "truncated" in bad["problem"].iloc[0]
    assert bad["sha256"].iloc[0] != ""
    assert "empty" in bad["problem"].iloc[1]
    assert "No such file" in bad["problem"].iloc[2]
    assert dataset_fingerprint(tmp_path)


def test_hidden_and_other_files_are_ignored(tmp_path: Path) -> None:
    write_tiny_autovi(tmp_path)
    before = index_dataset(tmp_path)
    fingerprint = dataset_fingerprint(tmp_path)
    for name in (".hidden.png", "._0001.png", "notes.txt", "Thumbs.db"):
        (tmp_path / "pipe_clip/train/good" / name).write_bytes(b"x")
    write_image(tmp_path / ".cache/train/good/a.png", np.zeros((4, 4), np.uint8))
    write_image(tmp_path / "__MACOSX/pipe_clip/train/good/a.png", np.zeros((4, 4), np.uint8))
    assert index_dataset(tmp_path).equals(before)
    assert dataset_fingerprint(tmp_path) == fingerprint


def test_what_is_left_out_is_said_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_tiny_autovi(tmp_path)
    index_dataset(tmp_path)
    assert not caplog.records
    pixels = tiny_pixels(np.random.default_rng(0), (64, 48))
    for name in ("train/good/deeper/a.png", "train/good/deeper/b/c.png", "train/good/.snapshot/d.png",
                 "train/good/@eaDir/e.png", "train/f.png", "train/bad/g.png", "test/h.png"):  # fmt: skip
        write_image(tmp_path / "pipe_clip" / name, pixels)
    (tmp_path / "pipe_clip/train/good/i.jfif").write_bytes(b"x")
    (tmp_path / "pipe_clip/test/scratch/linked").symlink_to(tmp_path / "pipe_clip/test/good")
    assert len(index_dataset(tmp_path)) == 16
    assert len(caplog.messages) == 1
    assert {*caplog.messages[0].removeprefix(f"{tmp_path}: left out: ").split(", ")} == {
        "2 hidden or recycled", "1 unsupported ending (.jfif)", "2 in a deeper directory",
        "3 outside the folders of the layout", "1 symlinked directory",
    }  # fmt: skip


def test_webp_images_are_indexed(tmp_path: Path) -> None:
    write_tiny_autovi(tmp_path)
    write_image(tmp_path / "pipe_clip/train/good/a.WEBP", tiny_pixels(np.random.default_rng(0), (64, 48)))
    row = index_dataset(tmp_path).set_index("image_id").loc["pipe_clip/train/good/a"]
    assert (row.width, row.height, row.problem) == (64, 48, "")


def test_two_files_of_one_stem_are_refused_or_listed_under_ids_of_their_own(tmp_path: Path) -> None:
    for name in ("train/good/a.png", "train/good/a.bmp", "train/good/b.png", "test/good/a.png"):
        write_image(tmp_path / "c" / name, np.zeros((4, 4), np.uint8))
    with pytest.raises(DatasetError, match=r"1 names in one folder.*good/a\.bmp and .*good/a\.png; masks and maps"):
        index_dataset(tmp_path, max_images=1)
    ids = list(index_dataset(tmp_path, equal_stems="kept")["image_id"])
    assert ids == ["c/train/good/a.bmp", "c/train/good/a.png", "c/train/good/b", "c/test/good/a"]


def test_a_category_unzipped_twice_deep_and_a_root_that_is_one(tmp_path: Path) -> None:
    plain = index_dataset(write_tiny_autovi(tmp_path / "plain"))
    twice = tmp_path / "twice" / "pipe_clip"
    twice.mkdir(parents=True)
    shutil.copytree(tmp_path / "plain/pipe_clip", twice / "pipe_clip")
    for index, prefix in (
        (index_dataset(tmp_path / "twice"), "pipe_clip/pipe_clip/"),
        (index_dataset(tmp_path / "plain/pipe_clip"), ""),
    ):
        assert index.drop(columns="path").equals(plain.drop(columns="path"))
        assert list(index["path"]) == [prefix + path.removeprefix("pipe_clip/") for path in plain["path"]]
    assert category_directory(tmp_path / "twice", "pipe_clip") == twice / "pipe_clip"
    assert category_directory(tmp_path / "plain/pipe_clip", "pipe_clip") == tmp_path / "plain/pipe_clip"
    shutil.copytree(tmp_path / "plain/pipe_clip", tmp_path / "plain/pipe_clip/pipe_clip")
    assert index_dataset(tmp_path / "plain", categories=["pipe_clip"]).equals(plain), (
        "a copy inside is not taken instead"
    )
    with pytest.raises(DatasetError, match="no category bolt"):
        category_directory(tmp_path / "plain", "bolt")


def test_mvtec_layout(tmp_path: Path) -> None:
    index = index_dataset(write_tiny_mvtec(tmp_path), layout="mvtec")
    assert list(index["label"].unique()) == ["good", "broken"]
    assert list(index.loc[index["label"] == "broken", "n_mask_channels"]) == [1, 1, 1]


def test_folder_layout_keeps_the_last_fifth_of_the_good_images_for_testing(tmp_path: Path) -> None:
    write_tiny_folder(tmp_path / "station", good=14, defective=2)
    for root in (tmp_path, tmp_path / "station"):
        index = index_dataset(root, layout="folder")
        names = (
            index.assign(name=[Path(path).name for path in index["path"]]).groupby(["split", "label"])["name"].agg(list)
        )
        assert names["train", "good"] == [f"img{number}.png" for number in range(1, 13)]
        assert names["test", "good"] == ["img13.png", "img14.png"]
        assert names["test", "defective"] == ["img1.png", "img2.png"]
        assert list(index["category"].unique()) == ["station"]
        assert index["n_mask_channels"].sum() == 0


def test_folder_layout_uses_train_and_test_where_they_exist(tmp_path: Path) -> None:
    write_tiny_autovi(tmp_path)
    as_autovi, as_folder = index_dataset(tmp_path), index_dataset(tmp_path, layout="folder")
    assert as_folder.drop(columns="n_mask_channels").equals(as_autovi.drop(columns="n_mask_channels"))


def test_max_images_are_evenly_spaced_in_each_folder(tmp_path: Path) -> None:
    write_tiny_autovi(tmp_path, train=9, good=2, defective=1)
    index = index_dataset(tmp_path, max_images=3)
    counts = index.groupby(["split", "label"]).size().to_dict()
    assert counts == {("train", "good"): 3, ("test", "good"): 2, ("test", "missing"): 1, ("test", "scratch"): 1}
    assert [Path(path).stem for path in index["path"][:3]] == ["0000", "0004", "0008"]
    assert index.equals(index_dataset(tmp_path, max_images=3))


def test_categories_and_splits_narrow_the_index(tmp_path: Path) -> None:
    write_tiny_autovi(tmp_path, categories=("pipe_clip", "pipe_staple"))
    index = index_dataset(tmp_path, categories=["pipe_staple"], splits=("test",))
    assert set(index["category"]) == {"pipe_staple"}
    assert set(index["split"]) == {"test"}


def test_errors_say_what_was_looked_for_and_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere does not exist.*dataset\.root"):
        index_dataset(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DatasetError, match=r"notes\.txt is not a directory"):
        index_dataset(tmp_path / "notes.txt")
    with pytest.raises(DatasetError, match=r"no category found.*train/good.*it holds notes\.txt"):
        index_dataset(tmp_path)
    write_tiny_autovi(tmp_path, categories=("pipe_clip", "pipe_staple"))
    with pytest.raises(DatasetError, match=r"no category tank_screw in .*; there are pipe_clip, pipe_staple"):
        index_dataset(tmp_path, categories=("pipe_clip", "tank_screw"))
    shutil.rmtree(tmp_path / "pipe_clip/train/good")
    with pytest.raises(DatasetError, match=r"pipe_clip has no good training images.*train/good.*train holds nothing"):
        index_dataset(tmp_path)
    (tmp_path / "pipe_clip/train/Good").mkdir()
    with pytest.raises(DatasetError, match=r"looked for .* in .*train/good; .*train holds Good/"):
        index_dataset(tmp_path)
    assert len(index_dataset(tmp_path, require_train="none")) == 10 + 16
    assert len(index_dataset(tmp_path, require_train="any")) == 10 + 16
    shutil.rmtree(tmp_path / "pipe_staple/train/good")
    with pytest.raises(DatasetError, match="pipe_clip has no good training images"):
        index_dataset(tmp_path, require_train="any")
    assert list(find_categories(tmp_path)) == ["pipe_clip", "pipe_staple"]


def test_the_fingerprint_changes_with_any_file_and_with_nothing_else(tmp_path: Path) -> None:
    write_tiny_autovi(tmp_path, categories=("pipe_clip", "pipe_staple"))
    seen = {dataset_fingerprint(tmp_path)}

    def changed() -> bool:
        value = dataset_fingerprint(tmp_path)
        assert value == dataset_fingerprint(tmp_path)
        is_new = value not in seen
        seen.add(value)
        return is_new

    assert not changed()
    index_dataset(tmp_path)
    assert not changed(), "reading changes nothing"
    image = tmp_path / "pipe_clip/train/good/0000.png"
    mask = tmp_path / "pipe_clip/ground_truth/scratch/0000/0001.png"
    for path in (image, mask, tmp_path / "pipe_staple/defects_config.json"):
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        assert changed(), f"touched {path.name}"
        path.write_bytes(path.read_bytes() + b" ")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert changed(), f"grew {path.name}"
    image.rename(image.with_name("9999.png"))
    assert changed()
    mask.unlink()
    assert changed()
    one = dataset_fingerprint(tmp_path, categories=["pipe_clip"])
    (tmp_path / "pipe_staple/test/good/0000.png").unlink()
    assert changed()
    assert dataset_fingerprint(tmp_path, categories=["pipe_clip"]) == one
    assert dataset_fingerprint(tmp_path, layout="mvtec") not in seen


@pytest.mark.parametrize("how", ["written over", "replaced"])
def test_the_fingerprint_sees_a_file_of_the_same_size_and_time(tmp_path: Path, how: str) -> None:
    image = tmp_path / "c/train/good/a.bmp"
    write_image(image, np.zeros((4, 4), np.uint8))
    before, status = dataset_fingerprint(tmp_path), image.stat()
    target = image if how == "written over" else tmp_path / "restored.bmp"
    write_image(target, np.full((4, 4), 200, np.uint8))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    target.replace(image)
    assert (image.stat().st_size, image.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert dataset_fingerprint(tmp_path) != before


def test_the_fingerprint_opens_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_autovi(tmp_path)

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a file was opened")

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("io.open", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    assert len(dataset_fingerprint(tmp_path)) == 64


def test_real_data(real_data: Path) -> None:
    index = index_dataset(real_data, max_images=5)
    assert set(index["problem"]) == {""}
    assert list(index["category"].unique()) == ["ballscrew", "cookie", "magnetic_tile"]
    assert (index.loc[index["label_index"] == 1, "n_mask_channels"] > 0).all()


@pytest.fixture
def real_data() -> Path:
    default = Path(__file__).resolve().parents[3] / "../shared/datasets/real3"
    root = Path(os.environ.get("FEDPATCH_REAL_DATA", default))
    if not root.is_dir():
        pytest.skip(f"no real data at {root} (set FEDPATCH_REAL_DATA)")
    return root
