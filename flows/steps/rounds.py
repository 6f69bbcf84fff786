"""The federation's rounds: a task a client, the server's check of what they sent, a task a bank.

One round merges each client's coreset. In further rounds the clients get the banks and send what those do not cover;
what a client has already sent stays in the banks, also when it fails later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prefect.futures import PrefectFuture

from data_contracts.federation import (
    ClosedRound,
    Federation,
    Refusal,
    by_bank,
    close_round,
    quorum_out_of_reach,
    refuse_clients_without_region,
    refuse_rounds_without_cover,
    without_refused,
)
from data_contracts.manifests import BankManifest, ClientUploads, Manifest, Partition, PreparedDataset
from data_contracts.settings import (
    AggregationSettings,
    BackboneSettings,
    CoresetSettings,
    Reading,
    client_config_hash,
    sizes_of,
)
from flows.steps.run import Run
from flows.steps.running import failure_of, submit
from tasks.clients import extract_client_features, select_client_coreset
from tasks.server import aggregate_memory_bank, check_uploads
from tasks.stage import on_store


def train(run: Run, dataset: PreparedDataset, backbone: BackboneSettings) -> Federation:
    """All rounds; for clients that train alone one, without banks. Ends early, with `problem`, without a quorum."""
    config, partition, reading = run.config, dataset.partition, dataset.indexed.reading
    refuse_rounds_without_cover(config)
    refuse_clients_without_region(config, [client.client_id for client in partition.clients])
    num_rounds = config.federated.rounds
    federation = Federation()
    federation.problem = quorum_out_of_reach(
        min_clients=config.federated.quorum,
        n_clients=len(partition.clients),
        empty_clients=partition.skipped_clients,
    )
    if federation.problem:
        return federation
    with run.clock.stage("clients"):
        features = _features(run, partition, reading, backbone)
    for number in range(1, num_rounds + 1):
        with run.clock.stage("clients"):
            sent, failed = send_round(run, federation, features, number, num_rounds, reading, backbone)
        with run.clock.stage("aggregate"):
            closed = verdicts(
                run,
                number,
                sent,
                failed,
                config_hash=client_config_hash(config, backbone),
                n_clients=len(partition.clients),
            )
            federation.take(closed)
            if federation.problem:
                return federation
            is_alone = config.federated.mode == "local_only"
            banks = [] if is_alone else aggregate(run, federation.accepted, number, backbone)
        if num_rounds > 1:
            run.done(f"round {number} of {num_rounds}: {len(sent)} of {len(features)} clients")
        elif banks:
            run.done(f"memory banks: {len(banks)}")
        categories = {client.client_id: client.categories for client in partition.clients}
        federation.rounds.append(closed.state(banks, categories))
    federation.features = {client.client_id: features[client.client_id].result() for client in federation.uploads}
    return federation


def _features(
    run: Run, partition: Partition, reading: Reading, backbone: BackboneSettings
) -> dict[str, PrefectFuture[Manifest]]:
    """Every client's patch features, being computed."""
    return {
        client.client_id: submit(
            run.runner,
            on_store(extract_client_features, run.place),
            client=client,
            settings=backbone,
            sizes=sizes_of(run.config.preprocessing, client.categories),
            reading=reading,
            place=run.place,
        )
        for client in partition.clients
    }


def send_round(
    run: Run,
    federation: Federation,
    features: Mapping[str, PrefectFuture[Manifest]],
    number: int,
    num_rounds: int,
    reading: Reading,
    backbone: BackboneSettings,
) -> tuple[list[ClientUploads], dict[str, str]]:
    """What the clients send in one round, and the cause of each that failed."""
    coresets = {
        name: submit(
            run.runner,
            on_store(select_client_coreset, run.place),
            patch_features=future,
            client_id=name,
            config_hash=client_config_hash(run.config, backbone),
            reading=reading,
            settings=CoresetSettings.of(run.config, name, number),
            num_rounds=num_rounds,
            banks=federation.banks,
            sent=[one for one in federation.uploads if one.client_id == name],
            place=run.place,
        )
        for name, future in features.items()
    }
    if number == 1:
        extracted = sum(failure_of(future) is None for future in features.values())
        run.done(f"features: {extracted} of {len(features)} clients")
    causes = {name: failure_of(features[name]) or failure_of(coreset) for name, coreset in coresets.items()}
    failed = {name: cause for name, cause in causes.items() if cause}
    if num_rounds == 1:
        run.done(f"coresets: {len(features) - len(failed)} of {len(features)} clients")
    return [coreset.result() for name, coreset in coresets.items() if name not in failed], failed


def verdicts(
    run: Run,
    number: int,
    sent: Sequence[ClientUploads],
    failed: Mapping[str, str],
    *,
    config_hash: str,
    n_clients: int,
    unread: Sequence[Refusal] = (),
) -> ClosedRound:
    """What the server makes of a round; `unread`: what of `sent` could not be read, and why."""
    checks = {
        bank: submit(
            run.runner,
            check_uploads,
            uploads=uploads,
            bank=bank,
            config_hash=config_hash,
            round_number=number,
            place=run.place,
            with_counts=run.config.model.rows != "picks",
        )
        for bank, uploads in by_bank([without_refused(client, unread) for client in sent]).items()
    }
    refused = [
        Refusal(client, bank, reason) for bank, future in checks.items() for client, reason in future.result().items()
    ]
    return close_round(
        number,
        sent,
        failed,
        [*unread, *refused],
        min_clients=run.config.federated.quorum,
        n_clients=n_clients,
        num_rounds=run.config.federated.rounds,
    )


def aggregate(run: Run, accepted: list[ClientUploads], number: int, backbone: BackboneSettings) -> list[BankManifest]:
    """One bank for each category, or one for all, of everything that was accepted so far."""
    futures = [
        submit(
            run.runner,
            on_store(aggregate_memory_bank, run.place),
            uploads=uploads,
            bank=bank,
            config_hash=client_config_hash(run.config, backbone),
            settings=AggregationSettings.of(run.config),
            round_number=number,
            place=run.place,
        )
        for bank, uploads in by_bank(accepted).items()
    ]
    return [future.result() for future in futures]
