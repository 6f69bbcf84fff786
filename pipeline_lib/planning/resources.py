"""Disk and memory that a planned experiment may need: upper bounds, part by part, and what does not fit.

They add up what the stages' own documentation says that they hold, at the largest number of tasks at a time.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import psutil

from pipeline_lib.coreset.cell_means import BLOCK_ROWS
from pipeline_lib.coreset.shards import shard_count
from pipeline_lib.planning.experiment import ExperimentPlan, PlannedClient
from pipeline_lib.planning.shared_steps import Steps, bank_key, coreset_key, feature_key, score_key
from pipeline_lib.server.regions import REGION_OVERSAMPLING, region_members

MIB = 2**20
PROCESS_BYTES = 1300 * MIB  # Python, Prefect's server, torch and their allocators
FILE_BYTES = 8192  # of each image's features: the record, and what the file system rounds up to
REPORT_BYTES = 24 * MIB  # of each category: heat maps and galleries, in the report and in the UI
IN_MEMORY_BYTES = 64 * MIB  # larger working arrays of a selection lie on disk (pipeline_lib.storage.scratch)
MAPS_OF_A_FORWARD_PASS = 40  # float32 values of intermediate maps for each input value, at most
MARKED_SHARE = 0.1  # of the pixels of defective images; data sets mark less
CGROUP = Path("/sys/fs/cgroup")


def disk_bytes(plan: ExperimentPlan, steps: Steps | None = None) -> dict[str, int]:
    """What the artifact store and the run directory take at most, by kind, beside what `steps` has seen already."""
    steps = steps or Steps()
    images = sum(part.images for part in [*plan.train.values(), *plan.test.values()])
    rows = sum(sum(client.coreset_rows.values()) for client in plan.clients)
    largest = sorted((max(client.patches_by_bank.values()) for client in plan.clients), reverse=True)
    at_a_time = sum(largest[: tasks_at_a_time(plan)])
    scorings = len(plan.clients) if plan.config.federated.mode == "local_only" else 1
    maps = scorings * sum(part.patches * 4 + part.images * 400 for part in plan.test.values())
    saved = 0
    if plan.config.evaluation.save_maps != "none":
        saved = sum(part.images * (part.native_px[0] * part.native_px[1] * 4 + 4096) for part in plan.test.values())
    splits = {"train": plan.train, "test": plan.test}
    extracted = [
        part
        for split, parts in splits.items()
        for category, part in parts.items()
        if steps.is_new("features", feature_key(plan, split, category))
    ]
    uploads = sum(client.upload_bytes for client in plan.clients) + rows * 8 + images * 400
    moved = 0
    if plan.config.model.rows == "cell_means":  # the cell of each patch; what each row of a bank is made of
        uploads += (sum(client.patches for client in plan.clients) * 4 + images * 8) * plan.config.federated.rounds
        moved = sum(plan.bank_rows.values()) * 12 + rows * 4 + len(plan.clients) * 8 * len(plan.bank_rows)
    values = plan.dim * 2 if plan.config.runtime.keep_features else 0
    copies = 2 if steps.is_new("banks", bank_key(plan)) else 1  # in the store, and in the run directory
    return {
        "patch features": sum(part.patches * values + part.images * FILE_BYTES for part in extracted),
        "uploads": uploads if steps.is_new("coresets", coreset_key(plan)) else 0,
        "memory banks": (sum(plan.bank_rows.values()) * (plan.dim * 4 + 4) + moved) * copies
        + 4096 * len(plan.bank_rows),
        "anomaly maps": maps if steps.is_new("score", score_key(plan)) else 0,
        "saved maps": saved,
        "report and tables": REPORT_BYTES * max(1, len(plan.test)) + images * 2000,
        "working arrays": at_a_time * plan.dim * 4,
    }


def memory_bytes(plan: ExperimentPlan) -> dict[str, int]:
    """Peak memory of each stage at most, with the process itself."""
    config, dim, means = plan.config, plan.dim, plan.config.model.rows == "cell_means"
    workers = tasks_at_a_time(plan)
    parts = [*plan.train.values(), *plan.test.values()]
    resized = max((part.resized_px[0] * part.resized_px[1] for part in parts), default=0)
    native = max((part.native_px[0] * part.native_px[1] for part in parts), default=0)
    ahead = 2 * max(2, config.training.num_workers)
    extraction = resized * 3 * 4 * MAPS_OF_A_FORWARD_PASS + ahead * resized * 3
    extraction += max(1, config.training.num_workers) * native * 3 * 3

    def selection(patches: int, all_rows: int) -> int:
        shards = shard_count(patches, config.model.shard_patches)
        rows, whole = -(-all_rows // shards), 0 if shards == 1 else all_rows * dim * 8 + patches // shards * dim * 2
        arrays = 2 * min(patches * (dim + 4) * 2, IN_MEMORY_BYTES) + whole
        selecting = patches * 32 + (rows + 512) * dim * 14
        averaging = patches * 12 + averaged(rows) if means else 0
        return max(selecting, averaging) + arrays + (70 + 10 * config.runtime.threads) * MIB

    def client_selection(client: PlannedClient) -> int:
        """One bank after the other; what is sent for those before stays until all are written."""
        largest = max(selection(n, client.coreset_rows[bank]) for bank, n in client.patches_by_bank.items())
        return largest + (sum(client.coreset_rows.values()) - max(client.coreset_rows.values())) * dim * 4

    def merge(bank: str) -> int:
        """Where no more is sent than is kept, rows are only put together and written."""
        sent, kept = rows_merged_at_a_time(plan, bank), plan.bank_rows[bank]
        together = sent * dim * 4 * 4 + 70 * MIB
        if sent <= kept:
            return together
        return together + sent * (20 + dim * 12) + (averaged(kept) if means else 0)

    def averaged(rows: int) -> int:
        """Search among the rows, sums and means of them, a block of what is added up."""
        return rows * (dim * 28 + 2400) + BLOCK_ROWS * dim * 14 + 10 * config.runtime.threads * MIB

    clients = sorted(map(client_selection, plan.clients), reverse=True)
    merges = sorted(map(merge, plan.bank_rows), reverse=True)
    rows, forms = max(plan.bank_rows.values(), default=0), 260 * 4 + (321 * 4 if dim >= 512 else 0) + 16
    bank = rows * (dim * 4 * 2 + forms)
    again = 0 if config.runtime.keep_features else resized * 3 * 4 * MAPS_OF_A_FORWARD_PASS + native * 9
    scoring = again + bank + 32_768 * dim * 4 * 4 + 20 * MIB * config.runtime.threads
    measuring = max(
        (_measuring_bytes(part.images, part.defective, part.native_px) for part in plan.test.values()), default=0
    )
    clients_at_once = min(workers, len(plan.clients))
    found = {
        "extract": PROCESS_BYTES + workers * extraction,
        "select coresets": PROCESS_BYTES + sum(clients[:workers]) + clients_at_once * again,
        "aggregate": PROCESS_BYTES + sum(merges[:workers]),
        "score": PROCESS_BYTES + min(workers, max(1, len(plan.test))) * scoring,
        "measure": PROCESS_BYTES + min(workers, max(1, len(plan.test))) * measuring,
    }
    if config.decision.blocks:  # a bank, and its rows without those of a block; of means, what a block put into them
        revised = rows * (dim * 4 + forms)
        own = max((n for client in plan.clients for n in client.coreset_rows.values()), default=0) * dim * 16
        found["calibrate"] = PROCESS_BYTES + clients_at_once * (scoring + revised + (own if means else 0))
    if config.evaluation.coverage:
        banks = 1 if config.aggregation.bank_scope == "global" else len(plan.bank_rows)  # a client opens all of its own
        largest = max((client.patches for client in plan.clients), default=0)
        found["coverage"] = PROCESS_BYTES + clients_at_once * (scoring + (banks - 1) * bank + largest * 4)
    return found


def rows_merged_at_a_time(plan: ExperimentPlan, bank: str) -> int:
    """All that is sent for a bank; with regions those of the largest region, and what all regions keep."""
    aggregation = plan.config.aggregation
    sent = {client.client_id: client.coreset_rows.get(bank, 0) for client in plan.clients}
    if aggregation.regions is None or plan.config.federated.mode != "federated":
        return sum(sent.values())
    regions = region_members(sent, aggregation.regions)
    largest = max(sum(sent[client] for client in region) for region in regions)
    return min(sum(sent.values()), largest + REGION_OVERSAMPLING * plan.bank_rows[bank])


def tasks_at_a_time(plan: ExperimentPlan) -> int:
    """As many as there are cores unless `runtime.workers` is given."""
    runtime = plan.config.runtime
    return runtime.workers or max(1, (os.cpu_count() or 1) // runtime.threads)


def shortages(plan: ExperimentPlan, directories: list[Path]) -> list[str]:
    """What does not fit on this machine, a sentence each; empty where all does."""
    found = []
    stage, needed = max(memory_bytes(plan).items(), key=lambda item: item[1])
    if needed > (there := available_memory_bytes()):
        found.append(
            f"the stage {stage!r} may need {_amount(needed)} of memory, {_amount(there)} are available: "
            "fewer runtime.workers or a lower model.coreset_percentage need less"
        )
    parts = disk_bytes(plan)
    on_disk, features = sum(parts.values()), parts["patch features"]
    kept = plan.config.runtime.keep_features
    less = f", on the CPU runtime.keep_features: false needs {_amount(features)} less" if kept else ""
    for directory in directories:
        if on_disk > (free := free_disk_bytes(directory)):
            found.append(
                f"it may write {_amount(on_disk)}, {_amount(free)} are free in {directory}: "
                f"`fedpatch store prune` frees space, runtime.store names another place{less}"
            )
    return found


def _amount(size: int) -> str:
    """Bytes for people: MB below 1 GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def available_memory_bytes() -> int:
    """What the system can give, or what is left of the container's limit where that is less."""
    available = int(psutil.virtual_memory().available)
    try:
        limit, used = (CGROUP / "memory.max").read_text().strip(), (CGROUP / "memory.current").read_text()
    except OSError:
        return available
    return available if limit == "max" else min(available, int(limit) - int(used))


def free_disk_bytes(directory: Path) -> int:
    """Free space where `directory` is, or will be made."""
    there = next(place for place in [directory, *directory.parents] if place.exists())
    return shutil.disk_usage(there).free


def _measuring_bytes(images: int, defective: int, native_px: tuple[int, int]) -> int:
    """Kept maps and masks, kept scores, a batch, and some 50 bytes a marked pixel."""
    pixels = native_px[0] * native_px[1]
    kept = min(256 * MIB, defective * pixels * 4) + min(256 * MIB, (images * 4 + defective) * pixels)
    return int(kept + 80 * MIB + pixels * 40 + defective * pixels * MARKED_SHARE * 50 + images * 20_000)
