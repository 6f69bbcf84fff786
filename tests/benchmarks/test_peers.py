"""The peers' written-out loops against obvious references, and against anomalib where it is installed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from benchmarks import metric_rows, peers
from pipeline_lib.dataset.ground_truth import DefectChannel
from tests.reference_coreset import slow_k_center
from tests.reference_spro import reference_area, reference_curve


def embedding(rows: int = 300, dim: int = 20) -> torch.Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(3))


def test_written_out_loop_is_greedy_k_center() -> None:
    torch.manual_seed(1)
    selector = peers.WrittenOutKCenterGreedy(embedding(), 40.5 / 300)
    selector.model = peers.Unprojected()
    indices = peers.select(selector)
    assert indices == slow_k_center(embedding().numpy(), 40, start=indices[0])


def test_written_out_projection_keeps_distances_about() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(400, 900)
    projected = peers.SparseRandomProjection(eps=0.9).fit(matrix).transform(matrix)
    assert projected.shape == (400, int(4 * np.log(400) / (0.9**2 / 2 - 0.9**3 / 3)))
    ratio = torch.cdist(projected[:50], projected[50:100]) / torch.cdist(matrix[:50], matrix[50:100])
    assert float(ratio.mean()) == pytest.approx(1, abs=0.05)


@pytest.mark.skipif(peers.KCenterGreedy is None, reason="anomalib is not installed (the extra bench)")
@pytest.mark.parametrize("projected", [False, True])
def test_written_out_loop_is_anomalibs(projected: bool) -> None:
    chosen = []
    for kind in (peers.KCenterGreedy, peers.WrittenOutKCenterGreedy):
        torch.manual_seed(5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            selector = kind(embedding(), 30.5 / 300)
        if not projected:
            selector.model = peers.Unprojected()
        else:  # the same projection on both sides; that each draws its own is tested above
            selector.model.fit = lambda matrix: None
            selector.model.transform = lambda matrix: matrix[:, ::2].contiguous()
        chosen.append(peers.select(selector))
    assert chosen[0] == chosen[1]


def test_plain_and_lean_evaluators_are_exact_with_ties() -> None:
    rng = np.random.default_rng(2)
    maps = []
    for number in range(5):
        score_map = rng.integers(0, 40, (24, 20)).astype(np.float32)
        channels = []
        for _ in range(number % 3):
            mask = rng.random((24, 20)) < 0.1
            score_map[mask] += 10
            channels.append(DefectChannel("d", mask, max(1, int(0.5 * mask.sum()))))
        maps.append(metric_rows.TestMap(score_map, channels))
    curve = reference_curve([m.score_map for m in maps], [m.channels for m in maps])
    for evaluate in (metric_rows.plain_auc_spro, metric_rows.lean_auc_spro):
        found = evaluate(maps)
        for limit in metric_rows.LIMITS:
            assert found[limit] == pytest.approx(reference_area(curve, limit), abs=1e-12)
