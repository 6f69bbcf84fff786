"""The record of decisions: nothing in it is ever written over, whatever happens to a session."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from data_contracts.errors import ArtifactError
from data_contracts.tables import DECISIONS
from pipeline_lib.inspection import record as record_module
from pipeline_lib.inspection.record import DECISION_COLUMNS, DecisionRecord

REGION = {"area_px": 12, "left": 1, "top": 2, "right": 5, "bottom": 5, "peak_x": 3, "peak_y": 4, "peak_score": 2.5}

NEAREST = {
    "center": [0.5, 0.25],
    "score": 2.5,
    "neighbors": [
        {"bank_row": 7, "distance": 2.5, "client": "a", "image_id": None},
        {"bank_row": 3, "distance": 3.5, "client": "b", "image_id": None},
    ],
}


def a_row(name: str, n_regions: int = 0) -> dict[str, object]:
    return {
        "path": name, "category": "clip", "score": 1.25, "threshold": 1.0, "decision": "defective", "reason": "",
        "note": 'with "quotes", and\nlines', "n_regions": n_regions, "area_px": 12 * n_regions,
        "regions": json.dumps([REGION] * n_regions), "nearest_normal": json.dumps([NEAREST] * n_regions),
        "picture": f"pictures/clip/{name}.jpg", "explained": "", "advice": "look again: defective",
    }  # fmt: skip


def write(out: Path, *rows: dict[str, object]) -> Path:
    record = DecisionRecord(out)
    for row in rows:
        record.add(row)
    record.close()
    return record.path


def test_a_second_session_adds_to_the_tables(tmp_path: Path) -> None:
    first = write(tmp_path, a_row("a.png", 2), a_row("b.png"))
    before = first.read_bytes()
    assert write(tmp_path, a_row("a.png"), a_row("c.png", 1)) == first == tmp_path / "decisions.csv"
    assert first.read_bytes().startswith(before)
    table = pd.read_csv(first)
    assert tuple(table.columns) == DECISION_COLUMNS
    assert table.path.tolist() == ["a.png", "b.png", "a.png", "c.png"]
    assert table.score.tolist() == [1.25] * 4
    assert table.note.tolist() == ['with "quotes", and\nlines'] * 4
    regions = pd.read_csv(tmp_path / "regions.csv")
    assert regions[["row", "path"]].to_numpy().tolist() == [[0, "a.png"], [0, "a.png"], [3, "c.png"]]
    assert regions.drop(columns=["row", "path"]).to_dict("records") == [REGION] * 3
    assert table.nearest_normal.fillna("").tolist() == ["a", "", "", "a"]
    nearest = pd.read_csv(tmp_path / "nearest_normal.csv")
    assert nearest[["row", "path", "patch", "rank", "client", "bank_row"]].to_numpy().tolist() == [
        [0, "a.png", 1, 1, "a", 7], [0, "a.png", 1, 2, "b", 3], [0, "a.png", 2, 1, "a", 7], [0, "a.png", 2, 2, "b", 3],
        [3, "c.png", 1, 1, "a", 7], [3, "c.png", 1, 2, "b", 3],
    ]  # fmt: skip
    assert nearest[["score", "center_x", "center_y", "distance"]].iloc[1].tolist() == [2.5, 0.5, 0.25, 3.5]
    parquet = pd.read_parquet(tmp_path / "decisions.parquet")
    assert json.loads(parquet.nearest_normal[0]) == [NEAREST] * 2
    assert parquet.columns.tolist() == DECISIONS.names
    assert parquet.path.tolist() == table.path.tolist()
    assert json.loads(parquet.regions[0]) == [REGION] * 2


@pytest.mark.parametrize(
    "content",
    [
        "path,category,score,threshold,decision,reason,note,n_regions,area_px,regions,nearest_normal,picture\na,,,,,,,,,,,\n",
        "path,category,score,threshold,decision,reason,note,n_regions,area_px,nearest_normal,picture\na,,,,,,,,,[],\n",
        ",".join(DECISION_COLUMNS) + "\na.png,clip,1.",  # a writer was killed
        ",".join(DECISION_COLUMNS) + '\na.png,clip,1.0,1.0,good,"not closed,,0,0,[],\n',
        ",".join(DECISION_COLUMNS) + "\na.png;clip;1.0\n",
        "a list of somebody\n",
        "\ufeff" + ",".join(DECISION_COLUMNS) + "\n",
    ],
    ids=[
        "earlier columns",
        "nearest normal patches as JSON",
        "torn",
        "open quote",
        "few cells",
        "foreign",
        "byte order mark",
    ],
)
def test_another_table_of_that_name_stays_as_it_is(tmp_path: Path, content: str) -> None:
    (tmp_path / "decisions.csv").write_text(content)
    path = write(tmp_path, a_row("b.png", 1))
    assert (tmp_path / "decisions.csv").read_text() == content
    assert path.name.startswith("decisions-20")
    suffix = path.stem.removeprefix("decisions")
    assert pd.read_csv(path).path.tolist() == ["b.png"]
    assert pd.read_csv(tmp_path / f"regions{suffix}.csv").path.tolist() == ["b.png"]
    assert pd.read_parquet(tmp_path / f"decisions{suffix}.parquet").path.tolist() == ["b.png"]
    assert pd.read_csv(tmp_path / f"nearest_normal{suffix}.csv").path.tolist() == ["b.png"] * 2
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("name", ["regions.csv", "nearest_normal.csv", "decisions.parquet"])
def test_the_tables_go_together(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("of somebody else\n")
    path = write(tmp_path, a_row("b.png"))
    assert path.name.startswith("decisions-20")
    assert (tmp_path / name).read_text() == "of somebody else\n"
    assert not (tmp_path / "decisions.csv").exists()


def test_two_sessions_at_once_write_two_tables(tmp_path: Path) -> None:
    first, second, third = (DecisionRecord(tmp_path) for _ in range(3))
    for record, name in ((first, "a"), (second, "b"), (third, "c")):
        record.add(a_row(name))
    for record in (first, second, third):
        record.close()
    assert len({first.path, second.path, third.path}) == 3
    assert [pd.read_csv(record.path).path.tolist() for record in (first, second, third)] == [["a"], ["b"], ["c"]]


def test_a_row_is_on_the_disk_when_it_is_added_and_few_are_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_module, "ROWS_IN_MEMORY", 3)
    record = DecisionRecord(tmp_path)
    for number in range(8):
        record.add(a_row(f"{number}.png", 1))
        assert pd.read_csv(record.path).path.tolist()[-1] == f"{number}.png"
        assert len(pd.read_csv(tmp_path / "regions.csv")) == number + 1
        assert len(record._rows) < 3
    assert len(pd.read_parquet(tmp_path / "decisions.parquet")) == 6
    record.close()
    assert pd.read_parquet(tmp_path / "decisions.parquet").path.tolist() == [f"{number}.png" for number in range(8)]


def test_a_session_killed_between_the_two_tables_leaves_no_regions_to_another_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = DecisionRecord(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(record._tables[1], "append", lambda rows: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            record.add(a_row("a.png", 1))
    record.close()
    write(tmp_path, a_row("b.png", 1))
    assert pd.read_csv(tmp_path / "decisions.csv").path.tolist() == ["a.png", "b.png"]
    assert pd.read_csv(tmp_path / "regions.csv")[["row", "path"]].to_numpy().tolist() == [[1, "b.png"]]
    assert pd.read_parquet(tmp_path / "decisions.parquet").path.tolist() == ["a.png", "b.png"]


def test_a_session_without_images_leaves_tables_that_can_be_read(tmp_path: Path) -> None:
    assert pd.read_csv(write(tmp_path / "out")).empty
    assert write(tmp_path / "out", a_row("a.png")) == tmp_path / "out" / "decisions.csv"


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ArtifactError, match=r"cannot write .*decisions\.csv"):
        DecisionRecord(tmp_path / "out")


def test_a_row_that_does_not_fit_on_the_disk_leaves_no_part_of_it(tmp_path: Path) -> None:
    import resource
    import signal

    record = DecisionRecord(tmp_path)
    record.add(a_row("a.png"))
    size = record.path.stat().st_size
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))
        with pytest.raises(ArtifactError, match=r"cannot write .*decisions\.csv \(\d+ bytes\)"):
            record.add(a_row("b.png"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert record.path.stat().st_size == size
    record.add(a_row("c.png"))
    record.close()
    assert pd.read_csv(record.path).path.tolist() == ["a.png", "c.png"]
