"""The coverage step: every client measures how far its own patches lie from the final banks, in parallel."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import get_run_logger

from data_contracts.federation import Federation
from data_contracts.manifests import GLOBAL_BANK, BankManifest, Manifest, Partition
from flows.steps.run import Run
from flows.steps.running import failure_of, submit
from tasks.clients import measure_bank_coverage
from tasks.stage import on_store


def measure_coverage(run: Run, partition: Partition, federation: Federation) -> dict[str, Manifest]:
    """Client -> its coverage, where `evaluation.coverage` asks for it; clients that train alone by their own banks.

    A client that fails here costs its figures, not the run: the log names it.
    """
    if not run.config.evaluation.coverage:
        return {}
    categories = {client.client_id: client.categories for client in partition.clients}
    alone = {client.client_id: client.banks for client in federation.alone}
    with run.clock.stage("coverage"):
        futures = {
            name: submit(
                run.runner,
                on_store(measure_bank_coverage, run.place),
                patch_features=features,
                banks=_own(alone.get(name, federation.banks), categories[name]),
                client_id=name,
                place=run.place,
            )
            for name, features in federation.features.items()
        }
        found = {}
        for name, future in futures.items():
            if cause := failure_of(future):
                get_run_logger().warning("client %s gives no coverage: %s", name, cause)
            else:
                found[name] = future.result()
    run.done(f"coverage: {len(found)} of {len(federation.features)} clients")
    return found


def _own(banks: Sequence[BankManifest], categories: Sequence[str]) -> list[BankManifest]:
    return [bank for bank in banks if bank.bank in (GLOBAL_BANK, *categories)]
