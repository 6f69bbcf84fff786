"""The contact sheet shows every category and outlines what the masks mark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data_contracts.errors import DatasetError
from data_contracts.settings import AS_EARLIER
from pipeline_lib.dataset.contact_sheet import GAP_PX, OUTLINE, contact_sheet, outlined
from pipeline_lib.dataset.index import index_dataset


def test_a_column_a_category(tiny_root: Path) -> None:
    sheet = contact_sheet(index_dataset(tiny_root), tiny_root, layout="autovi", cell_px=(64, 48))
    assert sheet.width == 2 * (64 + GAP_PX) + GAP_PX
    assert len(np.unique(np.array(sheet))) > 50


@pytest.mark.parametrize(("n_masked", "shown"), [(1, "dent"), (0, "crack")])
def test_an_image_without_annotation_is_no_example_of_a_defect(
    tiny_root: Path, n_masked: int, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = index_dataset(tiny_root)
    index = index[index.category == "pipe_clip"]
    defective = index[index.label_index == 1].head(1)
    rows = [("unannotated", 0)] * 6 + [("crack", 0)] + [("dent", 1)] * n_masked
    made = [defective.assign(label=label, n_mask_channels=n) for label, n in rows]
    chosen: list[str] = []
    monkeypatch.setattr(
        "pipeline_lib.dataset.contact_sheet.outlined",
        lambda row, *_, **__: chosen.append(str(row["label"])) or Image.new("RGB", (8, 8)),
    )
    good = index[index.label == "good"]
    contact_sheet(pd.concat([good, *made]), tiny_root, layout="autovi")
    contact_sheet(pd.concat([good, *made[:6]]), tiny_root, layout="autovi")
    assert chosen == [shown]


def test_outline_surrounds_the_mask_and_leaves_it_alone(tiny_root: Path) -> None:
    index = index_dataset(tiny_root)
    row = index[index.label == "scratch"].iloc[1].to_dict()
    pixels = np.array(outlined(row, tiny_root, AS_EARLIER, layout="autovi"))
    edge = (pixels == OUTLINE).all(axis=2)
    assert edge.any()
    assert (pixels[~edge] == 0).any()  # the defect itself is black and still there


def test_empty_index_is_refused(tiny_root: Path) -> None:
    with pytest.raises(DatasetError, match="no images"):
        contact_sheet(index_dataset(tiny_root).iloc[:0], tiny_root, layout="autovi")
