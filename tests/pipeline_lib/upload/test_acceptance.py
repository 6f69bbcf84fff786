"""Uploads whose images became pixels by another rule are refused, and the refusal names who has which."""

from __future__ import annotations

from data_contracts.manifests import GLOBAL_BANK, UploadManifest
from data_contracts.settings import Reading
from pipeline_lib.upload.acceptance import refuse_other_readings


def upload(client: str, value_range: int | None, *, bank: str = "tile", orientation: str = "applied") -> UploadManifest:
    reading = (
        {} if value_range is None else {"reading": {"orientation": orientation, "value_ranges": {"tile": value_range}}}
    )
    values = {
        "kind": "client_upload", "path": "a.npz", "sha256": "0" * 64, "size_bytes": 1, "rows": 1, "client_id": client,
        "category": bank, "round": 1, "config_hash": "h", "dim": 4, "n_images": 1, "n_patches": 1,
        "raw_image_bytes": 1, "covering_radius": 0.0,
    }  # fmt: skip
    return UploadManifest.model_validate({**values, **reading})


def test_equal_ranges_are_taken() -> None:
    assert refuse_other_readings([upload("a", 4095), upload("b", 4095)]) == {}
    assert refuse_other_readings([upload("a", None), upload("b", None)]) == {}, "both as earlier versions read them"
    assert refuse_other_readings([]) == {}


def test_the_one_that_differs_is_refused_by_name() -> None:
    refused = refuse_other_readings([upload("a", 4095), upload("b", 1023), upload("c", 4095)])
    assert list(refused) == ["b"]
    assert "upload of client b for tile refused: its images were read with value range 1023" in refused["b"]
    assert "those of a, c with value range 4095" in refused["b"]
    assert "give preprocessing.value_range one number for all" in refused["b"]


def test_of_two_the_higher_range_counts() -> None:
    assert list(refuse_other_readings([upload("a", 255), upload("b", 4095)])) == ["a"]


def test_an_upload_without_a_range_is_one_of_an_earlier_version() -> None:
    refused = refuse_other_readings([upload("a", 255), upload("b", 255), upload("old", None)])
    assert list(refused) == ["old"]
    assert "the range of their files' type (container)" in refused["old"]
    assert upload("old", None).reading == Reading()


def test_in_one_bank_for_all_each_category_is_compared() -> None:
    other_category = upload("c", 4095, bank=GLOBAL_BANK).model_copy(
        update={"reading": Reading(orientation="applied", value_ranges={"bolt": 255})}
    )
    banks = [upload("a", 4095, bank=GLOBAL_BANK), upload("b", 255, bank=GLOBAL_BANK), other_category]
    assert list(refuse_other_readings(banks)) == ["b"]
    assert list(
        refuse_other_readings(
            [*(upload(client, 4095, bank=GLOBAL_BANK) for client in "ab"), upload("old", None, bank=GLOBAL_BANK)]
        )
    ) == ["old"]
