"""What a client sends, and what the server refuses of it, by name and without stopping for the others."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_contracts.config import ExperimentConfig
from data_contracts.errors import DatasetError, UploadError
from data_contracts.settings import CoresetSettings, client_config_hashes
from pipeline_lib.client.rounds import select_client_coreset
from pipeline_lib.configuration.files import parse_config
from pipeline_lib.coreset.subsampling import covering_radius
from pipeline_lib.dataset.autovi_dataset import AutoVIDataset
from pipeline_lib.dataset.index import index_dataset
from pipeline_lib.features.extraction import extract_features, image_rows
from pipeline_lib.features.extractor import FeatureExtractor
from pipeline_lib.models.client import PatchCoreClient
from pipeline_lib.models.server import FederatedServer
from pipeline_lib.storage.artifact_store import ArtifactStore
from pipeline_lib.upload.codec import decode_rows
from pipeline_lib.upload.package import ClientUpload, open_upload
from tests.dataset_fixtures import truncate, write_tiny_autovi

SIZES = {"pipe_clip": (64, 64), "tank_screw": (96, 64)}
ROWS = {"pipe_clip": 58, "tank_screw": 87}  # a tenth of 9 x 64 and of 9 x 96, rounded up


def config(**sections: Any) -> ExperimentConfig:
    values: dict[str, Any] = {
        "seed": 4,
        "model": {"backbone": "efficientnet_lite0", "coreset_percentage": 0.1, "rows": "picks"},
        "preprocessing": {"small_size": SIZES["pipe_clip"], "large_size": SIZES["tank_screw"]},
        "federated": {"mode": "federated", "num_clients": 3},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return parse_config(values)


def rows_of(upload: ClientUpload) -> np.ndarray:
    return decode_rows(open_upload(upload))


# --- the client ------------------------------------------------------------------------------------------------------


def test_an_upload_is_what_its_manifest_says(
    images: AutoVIDataset, extractor: FeatureExtractor, tiny_root: Path
) -> None:
    client = PatchCoreClient("client_1", extractor, config())
    uploads = client.extract_and_build_coreset(images)
    assert [upload.manifest.category for upload in uploads] == list(SIZES)
    for upload in uploads:
        manifest = upload.manifest
        assert manifest.sha256 == hashlib.sha256(upload.content).hexdigest()
        assert manifest.size_bytes == len(upload.content)
        assert manifest.rows == len(rows_of(upload)) == ROWS[manifest.category]
        assert (manifest.client_id, manifest.round, manifest.n_images) == ("client_1", 1, 9)
        files = (tiny_root / manifest.category / "train/good").iterdir()
        assert manifest.raw_image_bytes == sum(file.stat().st_size for file in files)
        with np.load(io.BytesIO(upload.content), allow_pickle=False) as content:
            assert set(content.files) == {"rows"}  # no word on images
        assert b".png" not in upload.content


@pytest.mark.parametrize("scope", ["per_category", "global"])
def test_the_same_upload_as_in_a_run(
    tiny_root: Path, tmp_path: Path, images: AutoVIDataset, extractor: FeatureExtractor, scope: Any
) -> None:
    chosen = config(aggregation={"bank_scope": scope}, upload={"codec": "float16", "noise_sigma": 0.01})
    store = ArtifactStore(tmp_path / "store")
    index = index_dataset(tiny_root)
    table = extract_features(image_rows(index[index.split == "train"], tiny_root), store, extractor, SIZES)
    expected = select_client_coreset(table, store, "client_1", CoresetSettings.of(chosen, "client_1"))
    uploads = PatchCoreClient("client_1", extractor, chosen).extract_and_build_coreset(images)
    assert [upload.manifest.category for upload in uploads] == [coreset.bank for coreset in expected]
    for upload, coreset in zip(uploads, expected, strict=True):
        assert np.array_equal(open_upload(upload)["rows"], coreset.arrays["rows"])
        assert upload.manifest.covering_radius == coreset.covering_radius
        assert upload.manifest.reconstruction_error == coreset.reconstruction_error


def test_a_client_may_have_a_ratio_of_its_own(images: AutoVIDataset, extractor: FeatureExtractor) -> None:
    chosen = config(federated={"coreset_percentage_by_client": {"client_1": 0.2}})
    rows = [
        PatchCoreClient(name, extractor, chosen).extract_and_build_coreset(images)[0].manifest.rows
        for name in ("client_0", "client_1")
    ]
    assert rows == [58, 116]


def test_a_later_round_sends_only_what_is_not_covered(images: AutoVIDataset, extractor: FeatureExtractor) -> None:
    client = PatchCoreClient("client_1", extractor, config(), num_rounds=2)
    first = client.extract_and_build_coreset(images)
    assert [upload.manifest.rows for upload in first] == [29, 44]
    client.receive_global_banks({"pipe_clip": rows_of(first[0])})
    second = client.extract_and_build_coreset(None, round_number=2)  # the patches are still there
    assert [upload.manifest.rows for upload in second] == [29, 43]
    for before, after in zip(first, second, strict=True):
        both = np.concatenate([rows_of(before), rows_of(after)])
        assert len(np.unique(both, axis=0)) == len(both)
        assert after.manifest.covering_radius < before.manifest.covering_radius
        nearest = [covering_radius(row[None], rows_of(before)) for row in rows_of(after)[:5]]
        assert nearest[0] == pytest.approx(before.manifest.covering_radius, rel=1e-5)  # the farthest patch comes first
    client.receive_global_banks({bank: local.patches for bank, local in client._local.items()})
    assert client.extract_and_build_coreset(None, round_number=2) == []  # everything is covered


def test_a_refused_upload_does_not_count_as_sent(images: AutoVIDataset, extractor: FeatureExtractor) -> None:
    client = PatchCoreClient("client_1", extractor, config(), num_rounds=2)
    first = client.extract_and_build_coreset(images)
    client.withdraw(1, "pipe_clip")
    second = client.extract_and_build_coreset(None, round_number=2)
    again = {row.tobytes() for row in rows_of(first[0])} & {row.tobytes() for row in rows_of(second[0])}
    assert again  # nothing else covers these places
    assert not {row.tobytes() for row in rows_of(first[1])} & {row.tobytes() for row in rows_of(second[1])}


def test_noise_is_not_taken_for_something_new(images: AutoVIDataset, extractor: FeatureExtractor) -> None:
    client = PatchCoreClient("c", extractor, config(upload={"noise_sigma": 5.0}), num_rounds=2)
    client.extract_and_build_coreset(images)
    client.extract_and_build_coreset(None, round_number=2)
    first, second = (client.provenance[number]["pipe_clip"] for number in (1, 2))
    pairs = [set(zip(p.patch_image.tolist(), p.patch_index.tolist(), strict=True)) for p in (first, second)]
    assert not pairs[0] & pairs[1]


def test_clients_without_readable_images_or_categories_say_so(
    tmp_path: Path, extractor: FeatureExtractor, caplog: pytest.LogCaptureFixture
) -> None:
    client = PatchCoreClient("client_1", extractor, config())
    with pytest.raises(DatasetError, match="client client_1 has no images that can be read"):
        client.extract_and_build_coreset([])
    dataset = AutoVIDataset(write_tiny_autovi(tmp_path, train=3))
    truncate(Path(dataset.samples[1][0]))
    with caplog.at_level(logging.WARNING):
        (upload,) = client.extract_and_build_coreset(dataset)
    assert upload.manifest.n_images == 2
    assert "0001.png" in caplog.text
    pixels = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    with pytest.raises(DatasetError, match=r"has no category|without a category"):
        client.extract_and_build_coreset([{"image": np.zeros((3, 64, 64), dtype=np.float32)}])
    every = PatchCoreClient("client_1", extractor, config(aggregation={"bank_scope": "global"}))
    (upload,) = every.extract_and_build_coreset({"image": pixels, "category": ["pipe_clip"]})
    assert upload.manifest.category == "all"


# --- the server ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uploads(images: AutoVIDataset, extractor: FeatureExtractor) -> list[ClientUpload]:
    """One upload for pipe_clip from each of three clients with three images each."""
    sent = []
    for number in range(3):
        client = PatchCoreClient(f"client_{number}", extractor, config())
        share = [images[position] for position in range(3 * number, 3 * number + 3)]
        sent += client.extract_and_build_coreset(share)
    return sent


def server(extractor: FeatureExtractor, **sections: Any) -> FederatedServer:
    return FederatedServer(config(**sections), extractor.settings)


def repacked(upload: ClientUpload, arrays: dict[str, np.ndarray], **manifest: Any) -> ClientUpload:
    """The upload with other arrays and a manifest that fits them."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    content = buffer.getvalue()
    values = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content), **manifest}
    return ClientUpload(upload.manifest.model_copy(update=values), content)


def compressed(upload: ClientUpload) -> ClientUpload:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **open_upload(upload))
    content = buffer.getvalue()
    values = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    return ClientUpload(upload.manifest.model_copy(update=values), content)


def with_nan(upload: ClientUpload) -> ClientUpload:
    rows = rows_of(upload).copy()
    rows[3, 7] = np.nan
    return repacked(upload, {"rows": rows})


def changed(upload: ClientUpload, **manifest: Any) -> ClientUpload:
    return ClientUpload(upload.manifest.model_copy(update=manifest), upload.content)


def garbage(upload: ClientUpload) -> ClientUpload:
    content = b"not an archive"
    return ClientUpload(upload.manifest.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()}), content)


BROKEN = {
    "SHA-256 does not match its manifest": lambda u: dataclasses.replace(u, content=u.content[:-1]),
    "be read as npz": garbage,
    "it is compressed": compressed,
    "not finite": with_nan,
    "151 dimensions, expected 152": lambda u: repacked(u, {"rows": rows_of(u)[:, :-1]}),
    "it is empty": lambda u: repacked(u, {"rows": rows_of(u)[:0]}, rows=0),
    "no known encoding": lambda u: repacked(u, {"images": rows_of(u)}),
    "names only 5 patches": lambda u: changed(u, n_patches=5),
    "its manifest says 19": lambda u: changed(u, rows=19),
    "belongs to round 2": lambda u: changed(u, round=2),
    "made with configuration": lambda u: changed(u, config_hash="f" * 16),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_bad_upload_is_refused_by_name_and_the_bank_is_that_of_the_others(
    uploads: list[ClientUpload], extractor: FeatureExtractor, caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    others = server(extractor)
    others.receive_client_coresets([uploads[0], uploads[2]])
    central = server(extractor)
    with caplog.at_level(logging.WARNING):
        refused = central.receive_client_coresets([uploads[0], BROKEN[reason](uploads[1]), uploads[2]])
    assert list(refused) == ["client_1"]
    assert refused["client_1"].startswith("upload of client client_1 for pipe_clip refused: ")
    assert reason in refused["client_1"]
    assert central.refused == {(1, "client_1", "pipe_clip"): refused["client_1"]}
    assert any(refused["client_1"] in record.getMessage() for record in caplog.records)
    bank, expected = central.aggregate()["pipe_clip"], others.aggregate()["pipe_clip"]
    assert bank.client_ids == ["client_0", "client_2"]
    assert np.array_equal(bank.rows, expected.rows)


def test_a_client_with_another_backbone_is_refused(
    uploads: list[ClientUpload], images: AutoVIDataset, extractor: FeatureExtractor
) -> None:
    other = FeatureExtractor("efficientnet_lite0", neighborhood_size=1)
    (foreign,) = PatchCoreClient("client_9", other, config()).extract_and_build_coreset([images[0]])
    refused = server(extractor).receive_client_coresets([*uploads, foreign])
    assert "made with configuration" in refused["client_9"]
    assert len(refused) == 1


def test_only_of_random_weights_does_the_seed_make_another_backbone(
    images: AutoVIDataset, extractor: FeatureExtractor
) -> None:
    def upload(client_id: str, own: FeatureExtractor) -> ClientUpload:
        return PatchCoreClient(client_id, own, config()).extract_and_build_coreset([images[0]])[0]

    plain, reseeded = upload("client_0", extractor), upload("client_1", FeatureExtractor("efficientnet_lite0", seed=9))
    earlier = changed(upload("client_2", extractor), config_hash=client_config_hashes(config(), extractor.settings)[1])
    assert len({one.manifest.config_hash for one in (plain, reseeded, earlier)}) == 2
    central = server(extractor)
    assert central.receive_client_coresets([plain, reseeded, earlier]) == {}
    assert central.aggregate()["pipe_clip"].client_ids == ["client_0", "client_1", "client_2"]
    random = [FeatureExtractor("efficientnet_lite0", weights="random", seed=seed) for seed in (0, 9)]
    assert list(server(random[0]).receive_client_coresets([upload("client_9", random[1])])) == ["client_9"]


def test_pickles_are_not_opened(uploads: list[ClientUpload]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, rows=np.array([{"a": 1}], dtype=object))
    content = buffer.getvalue()
    sent = changed(uploads[0], sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(UploadError, match="cannot be read as npz"):
        open_upload(ClientUpload(sent.manifest, content))


def test_who_sends_nothing_is_named(
    uploads: list[ClientUpload], extractor: FeatureExtractor, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert (
            server(extractor).receive_client_coresets(
                uploads, expected_clients=["client_0", "client_1", "client_2", "client_3", "client_4"]
            )
            == {}
        )
    assert "no coreset from client_3, client_4; going on" in caplog.text
    with pytest.raises(UploadError, match="no upload to merge"):
        server(extractor).aggregate()


def test_an_upload_that_comes_again_replaces_the_first(
    uploads: list[ClientUpload], extractor: FeatureExtractor
) -> None:
    central = server(extractor)
    half = repacked(uploads[0], {"rows": rows_of(uploads[0])[:5]}, rows=5)
    central.receive_client_coresets([half, *uploads[1:]])
    central.receive_client_coresets([uploads[0]])
    expected = server(extractor)
    expected.receive_client_coresets(uploads)
    assert np.array_equal(central.aggregate()["pipe_clip"].rows, expected.aggregate()["pipe_clip"].rows)
    twice = server(extractor)
    twice.receive_client_coresets([half, *uploads])
    assert np.array_equal(twice.aggregate()["pipe_clip"].rows, expected.banks["pipe_clip"].rows)


def test_clients_get_the_banks_that_they_have_a_part_in(
    uploads: list[ClientUpload], extractor: FeatureExtractor
) -> None:
    central = server(extractor)
    central.receive_client_coresets(uploads)
    central.aggregate()
    sent = central.broadcast(["pipe_clip", "not_there_yet"])
    assert list(sent) == ["pipe_clip"]
    assert np.array_equal(sent["pipe_clip"], central.banks["pipe_clip"].rows)
    assert list(central.broadcast()) == ["pipe_clip"]


@pytest.mark.parametrize(
    ("aggregation", "rows"),
    [
        ({}, 58),
        ({"strategy": "diversity_preserving"}, 58),
        ({"strategy": "simple_concatenate"}, 60),
        ({"global_bank_size": 12}, 12),
        ({"global_bank_size": 12, "strategy": "simple_concatenate"}, 12),
        ({"global_bank_size": 500}, 60),
        ({"global_bank_size": 12, "regions": 2}, 12),
    ],
)
def test_bank_sizes(
    uploads: list[ClientUpload], extractor: FeatureExtractor, aggregation: dict[str, Any], rows: int
) -> None:
    central = server(extractor, aggregation=aggregation)
    central.receive_client_coresets(uploads)
    assert len(central.aggregate()["pipe_clip"].rows) == rows
    assert {bank: merge.regions for bank, merge in central.regional.items()} == (
        {"pipe_clip": 2} if "regions" in aggregation else {}
    )
