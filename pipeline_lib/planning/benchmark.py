"""What a whole benchmark will make and need: its runs together, with the steps that they share counted once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_contracts.benchmark import Cell
from pipeline_lib.planning.experiment import ExperimentPlan
from pipeline_lib.planning.resources import disk_bytes, memory_bytes
from pipeline_lib.planning.shared_steps import Steps
from pipeline_lib.planning.stage_times import Probe, stage_seconds

ASSUMED = (
    "the machine is idle; what runs beside takes its share, also of the speed that was tried just now",
    "nothing is in the artifact store yet, no client fails, and all runs are on this machine, one after the other",
    "a step that runs share counts once, in the first of them: features by image, backbone and size; coresets by "
    "partition, seed and their settings; banks, scores and metrics by all that they depend on; of a run that shares "
    "one category alone, all categories count",
    "rounds after the first are not timed apart, nor is scoring the banks of earlier ones",
    "the start of Prefect's server is counted with each run, though it starts once",
    "the comparison with its intervals, clients.json, pictures and the page of the benchmark are not timed",
)


@dataclass(frozen=True)
class BenchmarkPlan:
    """The sums over a benchmark's runs."""

    seconds: dict[str, float]  # by stage
    seconds_alone: dict[str, float]  # by stage, if no run shared a step with another
    computing: dict[str, int]  # stage -> runs that take time for it
    disk_bytes: dict[str, int]  # by kind; of working arrays the largest run's
    memory_bytes: dict[str, int]  # by stage, the largest run's


def plan_benchmark(runs: Sequence[tuple[Cell, ExperimentPlan]], probe: Probe | None = None) -> BenchmarkPlan:
    """Add up the runs in their order; at least one."""
    probe = probe or Probe()
    timed, stored = Steps(), Steps()
    seconds = [stage_seconds(plan, probe, timed) for _, plan in runs]
    disk = [disk_bytes(plan, stored) for _, plan in runs]
    memory = [memory_bytes(plan) for _, plan in runs]
    total = _sums(disk) | {"working arrays": max(one["working arrays"] for one in disk)}
    return BenchmarkPlan(
        seconds=_sums(seconds),
        seconds_alone=_sums([stage_seconds(plan, probe) for _, plan in runs]),
        computing={stage: sum(one.get(stage, 0) > 0 for one in seconds) for stage in _sums(seconds)},
        disk_bytes={kind: round(size) for kind, size in total.items()},
        memory_bytes={stage: max(one.get(stage, 0) for one in memory) for stage in _sums(memory)},
    )


def _sums(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: sum(part.get(name, 0) for part in parts) for name in names}
