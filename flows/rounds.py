"""The federation's rounds: a task a client, the server's check of what they sent, a task a bank.

One round merges each client's coreset. In further rounds the clients get the banks and send what those do not cover;
what a client has already sent stays in the banks, also when it fails later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefect.futures import PrefectFuture

from data_contracts.config import ExperimentConfig
from data_contracts.errors import ConfigError
from data_contracts.manifests import BankManifest, ClientUploads, Manifest, Partition, UploadManifest
from data_contracts.quorum import listed, quorum_problem
from data_contracts.rounds import FederationRound, download_bytes
from data_contracts.stages import AggregationSettings, BackboneSettings, CoresetSettings, client_config_hash, sizes_of
from flows.running import failure_of, submit
from flows.steps import Run
from tasks.clients import extract_client_features, select_client_coreset
from tasks.rounds import aggregate_round, select_round_coreset
from tasks.server import aggregate_memory_bank, check_uploads
from tasks.stage import on_store


@dataclass
class Federation:
    """What the rounds came to. `problem` says why they ended early."""

    rounds: list[FederationRound] = field(default_factory=list)
    accepted: list[ClientUploads] = field(default_factory=list)  # by round, then client
    causes: dict[str, str] = field(default_factory=dict)  # client -> what went wrong last
    problem: str | None = None

    @property
    def banks(self) -> list[BankManifest]:
        return list(self.rounds[-1].banks) if self.rounds else []

    @property
    def uploads(self) -> list[ClientUploads]:
        """What each client sent that was accepted, over all rounds; clients without any are left out."""
        by_client: dict[str, list[ClientUploads]] = {}
        for client in self.accepted:
            by_client.setdefault(client.client_id, []).append(client)
        merged = [
            ClientUploads(
                client_id=name,
                uploads=tuple(upload for one in sent for upload in one.uploads),
                provenance=tuple(origin for one in sent for origin in one.provenance),
            )
            for name, sent in by_client.items()
        ]
        return [client for client in merged if client.uploads]

    @property
    def failed(self) -> dict[str, str]:
        """Client -> why nothing of it is in the banks."""
        there = {client.client_id for client in self.uploads}
        return {client: cause for client, cause in self.causes.items() if client not in there}

    @property
    def refused(self) -> dict[str, str]:
        """Client -> why the server refused an upload of it, over all rounds."""
        return _joined([one.refused for one in self.rounds])

    @property
    def incidents(self) -> list[str]:
        """What went wrong for clients that are in the banks nevertheless."""
        failed = self.failed
        late = [
            f"client {client} failed in round {one.round}: {cause}"
            for one in self.rounds
            for client, cause in one.failed.items()
            if client not in failed
        ]
        return late + [reason for client, reason in self.refused.items() if client not in failed]

    @property
    def partial(self) -> str | None:
        """What the run went on without, in one line, or None."""
        missing = [listed(self.failed)] if self.failed else []
        return "; ".join([*missing, *self.incidents]) or None


def refuse_rounds_without_cover(config: ExperimentConfig) -> None:
    """Raise ConfigError for several rounds with a selection that cannot take into account what is covered."""
    if (
        config.federated.mode == "federated"
        and config.federated.num_rounds > 1
        and config.model.subsampling != "kcenter"
    ):
        raise ConfigError(
            f"federated.num_rounds is {config.federated.num_rounds}, but model.subsampling {config.model.subsampling} "
            "cannot select what is not covered yet; set it to kcenter, or num_rounds to 1"
        )


def train(run: Run, partition: Partition, backbone: BackboneSettings) -> Federation:
    """All rounds; for clients that train alone one, without banks. Ends early, with `problem`, without a quorum."""
    refuse_rounds_without_cover(run.config)
    config = run.config
    num_rounds = config.federated.num_rounds if config.federated.mode == "federated" else 1
    federation = Federation()
    with run.clock.stage("clients"):
        features = _features(run, partition, backbone)
    for number in range(1, num_rounds + 1):
        with run.clock.stage("clients"):
            sent, failed = _select(run, federation, features, number, num_rounds, backbone)
        with run.clock.stage("aggregate"):
            accepted, refused = _check(run, sent, number, backbone)
            delivered = [client for client in accepted if client.uploads or client.client_id not in refused]
            federation.accepted += delivered
            gone = {client.client_id for client in accepted} - {client.client_id for client in delivered}
            causes = {**failed, **{client: refused[client] for client in sorted(gone)}}
            federation.causes |= causes
            federation.problem = quorum_problem(
                min_clients=1 if config.federated.mode == "centralized" else config.federated.min_clients,
                n_clients=len(partition.clients),
                n_delivered=len(delivered),
                causes=causes,
                round_number=number if num_rounds > 1 else None,
            )
            if federation.problem:
                return federation
            is_alone = config.federated.mode == "local_only"
            banks = [] if is_alone else aggregate(run, federation.accepted, number, num_rounds, backbone)
        categories = {client.client_id: client.categories for client in partition.clients}
        federation.rounds.append(round_state(number, categories, sent, delivered, failed, refused, banks))
    run.features += [features[client.client_id].result() for client in federation.uploads]
    return federation


def _features(run: Run, partition: Partition, backbone: BackboneSettings) -> dict[str, PrefectFuture[Manifest]]:
    """Every client's patch features, being computed."""
    return {
        client.client_id: submit(
            run.runner,
            on_store(extract_client_features, run.place),
            client=client,
            settings=backbone,
            sizes=sizes_of(run.config.preprocessing, client.categories),
            place=run.place,
        )
        for client in partition.clients
    }


def _select(
    run: Run,
    federation: Federation,
    features: dict[str, PrefectFuture[Manifest]],
    number: int,
    num_rounds: int,
    backbone: BackboneSettings,
) -> tuple[list[ClientUploads], dict[str, str]]:
    """What the clients send in one round, in parallel, and the cause of each that failed."""
    sent = {client.client_id: client for client in federation.uploads}
    coresets: dict[str, PrefectFuture[ClientUploads]] = {}
    for name, future in features.items():
        parameters: dict[str, Any] = {
            "patch_features": future,
            "client_id": name,
            "config_hash": client_config_hash(run.config, backbone),
            "settings": CoresetSettings.of(run.config, name, number),
            "place": run.place,
        }
        if num_rounds == 1:
            coresets[name] = submit(run.runner, on_store(select_client_coreset, run.place), **parameters)
            continue
        parameters |= {
            "num_rounds": num_rounds,
            "banks": federation.banks,
            "sent": [sent[name]] if name in sent else [],
        }
        coresets[name] = submit(run.runner, on_store(select_round_coreset, run.place), **parameters)
    causes = {name: failure_of(features[name]) or failure_of(coreset) for name, coreset in coresets.items()}
    failed = {name: cause for name, cause in causes.items() if cause}
    return [coreset.result() for name, coreset in coresets.items() if name not in failed], failed


def _check(
    run: Run, sent: list[ClientUploads], number: int, backbone: BackboneSettings
) -> tuple[list[ClientUploads], dict[str, str]]:
    """What the server takes of it, and why it refused the rest, by client."""
    checks = {
        bank: submit(
            run.runner,
            check_uploads,
            uploads=uploads,
            bank=bank,
            config_hash=client_config_hash(run.config, backbone),
            round_number=number,
            place=run.place,
        )
        for bank, uploads in by_bank(sent).items()
    }
    checked = {bank: future.result() for bank, future in checks.items()}
    accepted = []
    for client in sent:
        taken = [client.client_id not in checked[upload.category].refused for upload in client.uploads]
        accepted.append(
            ClientUploads(
                client_id=client.client_id,
                uploads=tuple(u for u, ok in zip(client.uploads, taken, strict=True) if ok),
                provenance=tuple(p for p, ok in zip(client.provenance, taken, strict=True) if ok),
            )
        )
    return accepted, _joined([result.refused for result in checked.values()])


def aggregate(
    run: Run, accepted: list[ClientUploads], number: int, num_rounds: int, backbone: BackboneSettings
) -> list[BankManifest]:
    """One bank for each category, or one for all, of everything that was accepted so far."""
    task = aggregate_memory_bank if num_rounds == 1 else aggregate_round
    futures = [
        submit(
            run.runner,
            on_store(task, run.place),
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


def by_bank(clients: list[ClientUploads]) -> dict[str, list[UploadManifest]]:
    """Bank -> uploads, both in order of name."""
    uploads: dict[str, list[UploadManifest]] = {}
    for client in clients:
        for upload in client.uploads:
            uploads.setdefault(upload.category, []).append(upload)
    return {bank: uploads[bank] for bank in sorted(uploads)}


def _joined(reasons: list[dict[str, str]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for one in reasons:
        for client, reason in one.items():
            joined[client] = f"{joined[client]}; {reason}" if client in joined else reason
    return joined


def round_state(
    number: int,
    categories: Mapping[str, Sequence[str]],
    sent: list[ClientUploads],
    delivered: list[ClientUploads],
    failed: dict[str, str],
    refused: dict[str, str],
    banks: list[BankManifest],
) -> FederationRound:
    """The state after a round; `sent` holds what was refused, too.

    `categories` are those of each client that gets the banks.
    """
    uploads = [upload for client in sent for upload in client.uploads]
    return FederationRound(
        round=number,
        uploads=tuple(delivered),
        failed=failed,
        refused=refused,
        banks=tuple(banks),
        upload_rows=sum(upload.rows for upload in uploads),
        upload_bytes=sum(upload.size_bytes for upload in uploads),
        download_bytes=sum(download_bytes(banks, own) for own in categories.values()),
        covering_radius={
            client.client_id: max(upload.covering_radius for upload in client.uploads)
            for client in sent
            if client.uploads
        },
    )
