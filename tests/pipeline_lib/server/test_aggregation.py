"""The server's side: which uploads are refused, what share each client gets, and what the merged bank holds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.errors import UploadError
from data_contracts.manifests import UploadManifest
from data_contracts.settings import AggregationSettings
from pipeline_lib.configuration.seeding import stage_rng
from pipeline_lib.coreset.kcenter import greedy_coreset_selection
from pipeline_lib.coreset.subsampling import covering_radius
from pipeline_lib.server.aggregation import aggregate_uploads
from pipeline_lib.server.quotas import client_quotas
from pipeline_lib.upload import acceptance
from pipeline_lib.upload.acceptance import Upload, accept_uploads, check_upload, join_rounds

HASH = "0123456789abcdef"


def upload(client_id: str, rows: np.ndarray, *, n_images: int = 10, n_patches: int | None = None) -> Upload:
    return Upload(client_id, rows.astype(np.float32), n_images, n_patches or 10 * len(rows))


def settings(**values: Any) -> AggregationSettings:
    defaults: dict[str, Any] = {
        "seed": 3,
        "strategy": "federated_coreset",
        "target_rows": 60,
        "coreset_percentage": 0.1,
        "weight_by_samples": True,
    }
    return AggregationSettings(**{**defaults, **values})


def manifest(**values: Any) -> UploadManifest:
    defaults: dict[str, Any] = {
        "kind": "client_upload",
        "path": "upload.npz",
        "sha256": "0" * 64,
        "size_bytes": 100,
        "rows": 4,
        "client_id": "client_1",
        "category": "pipe_clip",
        "round": 1,
        "config_hash": HASH,
        "dim": 3,
        "n_images": 2,
        "n_patches": 40,
        "raw_image_bytes": 1000,
        "covering_radius": 1.0,
    }
    return UploadManifest(**{**defaults, **values})


@pytest.fixture(scope="module")
def uploads() -> list[Upload]:
    """Three clients in clusters of their own that overlap a little, 40 to 80 rows of 8 dimensions."""
    rng = np.random.default_rng(0)
    return [
        upload("c", rng.normal(0.0, 1, (80, 8)), n_images=30),
        upload("a", rng.normal(1.5, 1, (60, 8)), n_images=20),
        upload("b", rng.normal(3.0, 1, (40, 8)), n_images=10),
    ]


# --- refusals --------------------------------------------------------------------------------------------------------


def quotas_of(uploads: list[Upload], target: int, *, weight_by_samples: bool) -> np.ndarray:
    weights = [one.n_images if weight_by_samples else 1 for one in uploads]
    return client_quotas([len(one.rows) for one in uploads], weights, target)


def check(arrays: Mapping[str, np.ndarray], *, dim: int | None = 3, **values: Any) -> Upload:
    return check_upload(manifest(**values), arrays, dim=dim, config_hash=HASH, round_number=1)


def test_a_good_upload_passes_with_its_counts() -> None:
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    passed = check({"rows": rows})
    assert (passed.client_id, passed.n_images, passed.n_patches) == ("client_1", 2, 40)
    assert np.array_equal(passed.rows, rows)


@pytest.mark.parametrize(
    ("rows", "values", "reason"),
    [
        (np.zeros((4, 3)), {"config_hash": "f" * 16}, "made with configuration ffffffffffffffff, this run has 01234"),
        (np.zeros((4, 3)), {"round": 2}, "belongs to round 2, this is round 1"),
        (np.zeros((4, 3)), {"n_patches": 3}, "4 rows, but the client names only 3 patches"),
        (np.zeros((4, 3)), {"rows": 5}, "4 rows, its manifest says 5"),
        (np.zeros((4, 2)), {}, "2 dimensions, expected 3"),
        (np.zeros((0, 3)), {"rows": 0}, "it is empty"),
        (np.zeros((4, 0)), {}, "it is empty"),
        (np.zeros(4), {}, r"shape \(4,\)"),
        (np.full((4, 3), np.nan), {}, "not finite"),
        (np.array([[0, 0, 0]] * 3 + [[0, np.inf, 0]]), {}, "not finite"),
    ],
)
def test_what_cannot_be_right_is_refused_by_name(rows: np.ndarray, values: dict[str, Any], reason: str) -> None:
    with pytest.raises(UploadError, match=rf"^upload of client client_1 for pipe_clip refused: .*{reason}"):
        check({"rows": rows.astype(np.float32)}, **values)


def test_an_unknown_encoding_is_refused_by_name() -> None:
    with pytest.raises(UploadError, match=r"client_1 for pipe_clip refused: .*no known encoding"):
        check({"pickles": np.zeros(3)})


def test_an_oversized_upload_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptance, "MAX_UPLOAD_ROWS", 3)
    monkeypatch.setattr(acceptance, "decode_rows", lambda _arrays: pytest.fail("was decoded"))
    with pytest.raises(UploadError, match="4 rows, at most 3 are accepted"):
        check({"rows": np.zeros((4, 3), dtype=np.float32)})


def test_without_a_given_dimension_the_manifests_counts() -> None:
    with pytest.raises(UploadError, match="2 dimensions, expected 3"):
        check({"rows": np.zeros((4, 2), dtype=np.float32)}, dim=None)


def test_one_bad_upload_is_named_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    good = np.ones((4, 3), dtype=np.float32)
    received = [
        (manifest(client_id="client_0", dim=2), {"rows": np.zeros((4, 2), dtype=np.float32)}),
        (manifest(client_id="client_1"), {"rows": good}),
        (manifest(client_id="client_2"), {"rows": np.where(np.eye(4, 3) > 0, np.nan, good).astype(np.float32)}),
        (manifest(client_id="client_3"), {"rows": good}),
    ]
    with caplog.at_level(logging.WARNING):
        accepted, refused = accept_uploads(received, dim=None, config_hash=HASH, round_number=1)
    assert [one.client_id for one in accepted] == ["client_1", "client_3"]
    assert set(refused) == {"client_0", "client_2"}
    assert "2 dimensions, expected 3" in refused["client_0"]
    assert "not finite" in refused["client_2"]
    assert len(caplog.records) == 2
    assert accept_uploads([], dim=None, config_hash=HASH, round_number=1) == ([], {})


# --- quotas ----------------------------------------------------------------------------------------------------------


@given(
    clients=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 50)), min_size=1, max_size=6),
    target=st.integers(1, 200),
    weighted=st.booleans(),
)
def test_quotas_add_up_and_never_exceed_what_was_sent(
    clients: list[tuple[int, int]], target: int, weighted: bool
) -> None:
    sent = [upload(f"c{i}", np.zeros((rows, 1)), n_images=images) for i, (rows, images) in enumerate(clients)]
    quotas = quotas_of(sent, target, weight_by_samples=weighted)
    available = np.array([rows for rows, _ in clients])
    assert quotas.sum() == min(target, available.sum())
    assert (quotas >= 0).all()
    assert (quotas <= available).all()
    weights = np.array([images if weighted else 1 for _, images in clients], dtype=float)
    for i in np.flatnonzero((quotas < available) & (weights > 0)):  # i could have given more
        for j in np.flatnonzero(weights > 0):  # so j got no more than in proportion to i, to within rounding
            assert (quotas[j] - 1) / weights[j] < (quotas[i] + 1) / weights[i] + 1e-9
        assert (quotas[weights == 0] == 0).all()


def test_quotas_follow_the_images() -> None:
    sent = [upload("a", np.zeros((500, 1)), n_images=1000), upload("b", np.zeros((500, 1)), n_images=500)]
    assert quotas_of(sent, 300, weight_by_samples=True).tolist() == [200, 100]
    assert quotas_of(sent, 300, weight_by_samples=False).tolist() == [150, 150]


def test_what_a_client_cannot_fill_goes_to_the_others() -> None:
    sent = [upload(name, np.zeros((rows, 1)), n_images=10) for name, rows in (("a", 5), ("b", 100), ("c", 100))]
    assert quotas_of(sent, 65, weight_by_samples=True).tolist() == [5, 30, 30]
    empty = [upload("a", np.zeros((5, 1)), n_images=0), upload("b", np.zeros((5, 1)), n_images=1)]
    assert quotas_of(empty, 8, weight_by_samples=True).tolist() == [3, 5]  # only once b has given all


def test_largest_remainders_get_the_rows_left_over() -> None:
    sent = [upload(name, np.zeros((99, 1)), n_images=images) for name, images in (("a", 1), ("b", 3), ("c", 3))]
    assert quotas_of(sent, 10, weight_by_samples=True).tolist() == [2, 4, 4]  # 1.43, 4.29, 4.29


# --- merging ---------------------------------------------------------------------------------------------------------


def quota_k_center(rows: np.ndarray, groups: np.ndarray, quotas: dict[int, int], start: int) -> list[int]:
    """Farthest first with quotas, in float64 and without any cleverness."""
    left = dict(quotas)
    picked: list[int] = [start]
    left[int(groups[start])] -= 1
    while sum(left.values()):
        distances = np.linalg.norm(rows[:, None].astype(np.float64) - rows[picked].astype(np.float64), axis=2)
        nearest = distances.min(axis=1)
        nearest[[left[int(group)] == 0 for group in groups]] = -1
        nearest[picked] = -1
        picked.append(int(nearest.argmax()))
        left[int(groups[picked[-1]])] -= 1
    return picked


def test_federated_coreset_is_farthest_first_within_quotas(uploads: list[Upload]) -> None:
    bank = aggregate_uploads(uploads, settings(), bank="pipe_clip")
    assert bank.client_ids == ["a", "b", "c"]
    assert np.bincount(bank.row_client).tolist() == [20, 10, 30]  # 20 : 10 : 30 images
    ordered = sorted(uploads, key=lambda one: one.client_id)
    rows = np.concatenate([one.rows for one in ordered])
    groups = np.repeat(np.arange(3), [len(one.rows) for one in ordered])
    start = int(np.flatnonzero((rows == bank.rows[0]).all(axis=1))[0])
    expected = quota_k_center(rows, groups, {0: 20, 1: 10, 2: 30}, start)
    assert np.array_equal(bank.rows, rows[expected])


def test_diversity_preserving_is_farthest_first_over_all(uploads: list[Upload]) -> None:
    bank = aggregate_uploads(uploads, settings(strategy="diversity_preserving"), bank="pipe_clip")
    rows = np.concatenate([one.rows for one in sorted(uploads, key=lambda one: one.client_id)])
    expected = greedy_coreset_selection(rows, 60, rng=stage_rng(3, "aggregate", "pipe_clip")).indices
    assert np.array_equal(bank.rows, rows[expected])
    assert np.bincount(bank.row_client).tolist() != [20, 10, 30]
    quotas = aggregate_uploads(uploads, settings(), bank="pipe_clip")
    assert covering_radius(rows, bank.rows) < covering_radius(rows, quotas.rows)


def test_simple_concatenate_keeps_all_unless_the_bank_is_smaller(uploads: list[Upload]) -> None:
    everything = aggregate_uploads(uploads, settings(strategy="simple_concatenate", target_rows=None), bank="x")
    rows = np.concatenate([one.rows for one in sorted(uploads, key=lambda one: one.client_id)])
    assert np.array_equal(everything.rows, rows)
    drawn = aggregate_uploads(uploads, settings(strategy="simple_concatenate"), bank="x")
    assert len(drawn.rows) == len(np.unique(drawn.rows, axis=0)) == 60
    other = aggregate_uploads(uploads, settings(strategy="simple_concatenate"), bank="y")
    assert not np.array_equal(drawn.rows, other.rows)  # a generator of its own for each bank


@pytest.mark.parametrize("strategy", ["federated_coreset", "diversity_preserving", "simple_concatenate"])
def test_rows_keep_their_client_and_the_order_of_arrival_does_not_matter(uploads: list[Upload], strategy: Any) -> None:
    bank = aggregate_uploads(uploads, settings(strategy=strategy), bank="x")
    for client, name in enumerate(bank.client_ids):
        sent = {row.tobytes() for row in next(one.rows for one in uploads if one.client_id == name)}
        assert all(row.tobytes() in sent for row in bank.rows[bank.row_client == client])
    again = aggregate_uploads(uploads[::-1], settings(strategy=strategy), bank="x")
    assert np.array_equal(bank.rows, again.rows)
    assert np.array_equal(bank.row_client, again.row_client)


def test_match_centralized_keeps_the_baselines_share_of_all_patches(uploads: list[Upload]) -> None:
    bank = aggregate_uploads(uploads, settings(target_rows=None, coreset_percentage=0.05), bank="x")
    assert len(bank.rows) == round(0.05 * sum(one.n_patches for one in uploads)) == 90
    larger = aggregate_uploads(uploads, settings(target_rows=None, coreset_percentage=0.5), bank="x")
    assert len(larger.rows) == 180  # all that was sent


def test_a_few_rows_too_many_are_the_clients_last_picks() -> None:
    """Clients round up; what is then left out must be the rows that matter least, not any row."""
    rng = np.random.default_rng(1)
    sent = [upload(name, rng.normal(size=(11, 4))) for name in "abc"]
    bank = aggregate_uploads(sent, settings(target_rows=30), bank="x")
    assert np.array_equal(bank.rows, np.concatenate([one.rows[:10] for one in sent]))


def test_coresets_compose_within_the_sum_of_the_radii() -> None:
    """Covering radius of the bank <= largest client radius + server radius, over all patches of all clients."""
    rng = np.random.default_rng(5)
    patches = [rng.normal(center, 1, (700, 6)).astype(np.float32) for center in (0, 1, 4)]
    chosen = [greedy_coreset_selection(rows, 70, rng=rng) for rows in patches]
    sent = [upload(f"c{i}", rows[c.indices]) for i, (rows, c) in enumerate(zip(patches, chosen, strict=True))]
    bank = aggregate_uploads(sent, settings(), bank="x")
    server_radius = covering_radius(np.concatenate([one.rows for one in sent]), bank.rows)
    client_radius = max(c.covering_radius for c in chosen)
    assert 0 < covering_radius(np.concatenate(patches), bank.rows) <= (client_radius + server_radius) * (1 + 1e-6)


def test_rounds_of_a_client_are_joined_in_order() -> None:
    first, second = (upload("a", np.full((2, 1), value), n_images=7, n_patches=90) for value in (1.0, 2.0))
    joined = join_rounds([first, second])
    assert joined.rows[:, 0].tolist() == [1, 1, 2, 2]
    assert (joined.client_id, joined.n_images, joined.n_patches) == ("a", 7, 90)


def test_what_cannot_be_merged_is_an_error_with_the_clients_names(uploads: list[Upload]) -> None:
    with pytest.raises(UploadError, match="no upload for the bank pipe_clip"):
        aggregate_uploads([], settings(), bank="pipe_clip")
    with pytest.raises(UploadError, match=r"different dimensions \(a: 8, b: 8, c: 8, d: 2\)"):
        aggregate_uploads([*uploads, upload("d", np.zeros((3, 2)))], settings(), bank="x")
    with pytest.raises(UploadError, match="more than one upload of a"):
        aggregate_uploads([*uploads, uploads[1]], settings(), bank="x")
