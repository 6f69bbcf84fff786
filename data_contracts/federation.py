"""What passes between the steps of a federation's rounds, what they come to, and the rules that refuse."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from data_contracts.config import ExperimentConfig
from data_contracts.errors import ConfigError
from data_contracts.manifests import GLOBAL_BANK, BankManifest, ClientUploads, LocalClient, Manifest, UploadManifest

LISTED_NAMES = 20


class FederationRound(BaseModel):
    """The state after one round, by manifests: what was accepted, what was not, and the banks so far."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    round: int = Field(ge=1)
    uploads: tuple[ClientUploads, ...] = Field(description="accepted ones alone; empty for a client with nothing new")
    failed: dict[str, str] = Field({}, description="client -> cause")
    refused: dict[str, str] = Field({}, description="client -> reason, over its banks")
    banks: tuple[BankManifest, ...]
    upload_rows: int = Field(ge=0, description="of all uploads, refused ones too: they were sent")
    upload_bytes: int = Field(ge=0)
    bytes_left: dict[str, dict[str, int]] = Field(
        {}, description="client -> coresets, refused_coresets and manifests -> bytes; empty in earlier versions"
    )
    download_bytes: int = Field(ge=0, description="the banks, float32, sent to each client that has a part in them")
    covering_radius: dict[str, float] = Field(
        description="client -> largest distance of an own patch to what it sent and, with picks, what the banks covered"
    )


def download_bytes(banks: Iterable[BankManifest], categories: Iterable[str]) -> int:
    """Bytes of the banks that a client with these categories gets back: its own, or the global one; float32."""
    wanted = {*categories, GLOBAL_BANK}
    return sum(4 * bank.rows * bank.dim for bank in banks if bank.bank in wanted)


@dataclass(frozen=True)
class Refusal:
    """Why the server does not take an upload; without a bank nothing that the client sent could be read."""

    client_id: str
    bank: str | None
    reason: str


@dataclass(frozen=True)
class ClosedRound:
    """What a round came to: the verdicts, before banks are made of what was taken."""

    number: int
    sent: Sequence[ClientUploads]  # with what was refused
    delivered: list[ClientUploads]  # what was taken; of a client with nothing new to send, nothing
    failed: dict[str, str]  # client -> cause
    refused: dict[str, str]  # client -> reasons, over its banks
    problem: str | None  # why the federation cannot go on: no quorum

    @property
    def causes(self) -> dict[str, str]:
        """Client -> why nothing that it sent in this round counts."""
        delivered = {client.client_id for client in self.delivered}
        return {**self.failed, **{c: reason for c, reason in self.refused.items() if c not in delivered}}

    def state(self, banks: Sequence[BankManifest], categories: Mapping[str, Sequence[str]]) -> FederationRound:
        """The state after the round; `categories`: of each client that gets the banks."""
        uploads = [upload for client in self.sent for upload in client.uploads]
        return FederationRound(
            round=self.number,
            uploads=tuple(self.delivered),
            failed=self.failed,
            refused=self.refused,
            banks=tuple(banks),
            upload_rows=sum(upload.rows for upload in uploads),
            upload_bytes=sum(upload.size_bytes for upload in uploads),
            bytes_left=self._bytes_left(),
            download_bytes=sum(download_bytes(banks, own) for own in categories.values()),
            covering_radius=covering_radii(self.sent),
        )

    def _bytes_left(self) -> dict[str, dict[str, int]]:
        taken = {(client.client_id, upload.sha256) for client in self.delivered for upload in client.uploads}
        found = {}
        for client in self.sent:
            sizes = {True: 0, False: 0}
            for upload in client.uploads:
                sizes[(client.client_id, upload.sha256) in taken] += upload.size_bytes
            manifests = sum(len(upload.model_dump_json()) for upload in client.uploads)
            found[client.client_id] = {
                "coresets": sizes[True],
                "refused_coresets": sizes[False],
                "manifests": client.manifest_bytes or manifests,
            }
        return found


def close_round(
    number: int,
    sent: Sequence[ClientUploads],
    failed: Mapping[str, str],
    refusals: Sequence[Refusal],
    *,
    min_clients: int | Literal["all"],
    n_clients: int,
    num_rounds: int,
) -> ClosedRound:
    """The one rule for a round, wherever its clients are.

    A refused upload costs its bank, not its client; a client of which nothing is left does not count for the quorum,
    one that had nothing new to send does. `sent`: of the clients that did not fail; `n_clients`: all that have images.
    """
    refused = joined([{one.client_id: one.reason} for one in refusals])
    taken = [without_refused(client, refusals) for client in sent]
    delivered = [client for client in taken if client.uploads or client.client_id not in refused]
    closed = ClosedRound(number, sent, delivered, dict(failed), refused, None)
    problem = quorum_problem(
        min_clients=min_clients,
        n_clients=n_clients,
        n_delivered=len(delivered),
        causes=closed.causes,
        round_number=number if num_rounds > 1 else None,
    )
    return replace(closed, problem=problem)


def without_refused(client: ClientUploads, refusals: Sequence[Refusal]) -> ClientUploads:
    """What is left of a client's uploads, and of their provenance where that is at hand."""
    refused = {one.bank for one in refusals if one.client_id == client.client_id}
    kept = [upload.category not in refused for upload in client.uploads]
    return client.model_copy(
        update={
            "uploads": tuple(itertools.compress(client.uploads, kept)),
            "provenance": tuple(itertools.compress(client.provenance, kept)),
        }
    )


def covering_radii(sent: Sequence[ClientUploads]) -> dict[str, float]:
    """Client -> the largest covering radius that it names for a bank."""
    return {
        client.client_id: max(upload.covering_radius for upload in client.uploads) for client in sent if client.uploads
    }


@dataclass
class Federation:
    """What the rounds came to, and what the clients made of the banks. `problem` says why the rounds ended early."""

    rounds: list[FederationRound] = field(default_factory=list)
    accepted: list[ClientUploads] = field(default_factory=list)  # by round, then client
    causes: dict[str, str] = field(default_factory=dict)  # client -> what went wrong last
    problem: str | None = None
    features: dict[str, Manifest] = field(default_factory=dict)  # client -> PATCH_FEATURES, unless it is a station
    calibration: list[Manifest] = field(default_factory=list)  # CALIBRATION_SCORES of a client each
    coverage: dict[str, Manifest] = field(default_factory=dict)  # client -> how far its patches lie from the banks
    alone: list[LocalClient] = field(default_factory=list)  # local_only: what each client has in place of `banks`

    def take(self, closed: ClosedRound) -> None:
        """Add a round's verdicts."""
        self.accepted += closed.delivered
        self.causes |= closed.causes
        self.problem = closed.problem

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
        return joined([one.refused for one in self.rounds])

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


def by_bank(clients: Sequence[ClientUploads]) -> dict[str, list[UploadManifest]]:
    """Bank -> uploads, both in order of name."""
    uploads: dict[str, list[UploadManifest]] = {}
    for client in clients:
        for upload in client.uploads:
            uploads.setdefault(upload.category, []).append(upload)
    return {bank: uploads[bank] for bank in sorted(uploads)}


def joined(reasons: list[dict[str, str]]) -> dict[str, str]:
    """Client -> its reasons, one after the other."""
    joined: dict[str, str] = {}
    for one in reasons:
        for client, reason in one.items():
            joined[client] = f"{joined[client]}; {reason}" if client in joined else reason
    return joined


def refuse_rounds_without_cover(config: ExperimentConfig) -> None:
    """Raise ConfigError where clients would have to know what is covered, with a selection that cannot."""
    rounds = config.federated.num_rounds
    if config.federated.mode == "federated" and rounds > 1 and config.model.subsampling != "kcenter":
        raise ConfigError(
            f"federated.num_rounds is {rounds}, but model.subsampling {config.model.subsampling} cannot select what is "
            "not covered yet; set it to kcenter, or federated.num_rounds to 1"
        )


def refuse_clients_without_region(config: ExperimentConfig, clients: Sequence[str]) -> None:
    """Raise ConfigError where `aggregation.regions` names regions, but none for some of the clients."""
    regions = config.aggregation.regions
    if config.federated.mode != "federated" or not isinstance(regions, dict):
        return
    named = {client for own in regions.values() for client in own}
    if missing := [client for client in clients if client not in named]:
        raise ConfigError(f"aggregation.regions gives no region to {', '.join(missing)}; every client needs one")


def quorum_problem(
    *,
    min_clients: int | Literal["all"],
    n_clients: int,
    n_delivered: int,
    causes: Mapping[str, str],
    round_number: int | None = None,
) -> str | None:
    """Why too few clients delivered, or None.

    n_clients: clients that have images, which `all` asks for; never less than one is. `causes` names what kept the
    others; `round_number` is said where there is more than one round.
    """
    needed = max(1, n_clients if min_clients == "all" else min_clients)
    if n_delivered >= needed:
        return None
    where = "" if round_number is None else f" in round {round_number}"
    return (
        f"quorum not met{where}, {n_delivered} of {n_clients} clients delivered and {needed} are needed: "
        f"{listed(causes)}"
    )


def quorum_out_of_reach(
    *, min_clients: int | Literal["all"], n_clients: int, empty_clients: Sequence[str] = ()
) -> str | None:
    """Why the quorum cannot be met whatever the clients do, which the partition alone tells; or None.

    n_clients: clients that have images; `empty_clients`: those that have none.
    """
    if n_clients and (min_clients == "all" or min_clients <= n_clients):
        return None
    asked = f"quorum out of reach, federated.min_clients is {min_clients}, clients with images: {n_clients}"
    lower = ", or set federated.min_clients to all or a lower number" if n_clients else ""
    return "; ".join(
        [
            asked if n_clients else "no client has any image",
            *([without_images(empty_clients)] if empty_clients else []),
            f"look for a disk that is not mounted{lower}",
        ]
    )


def without_images(clients: Sequence[str]) -> str:
    """Clients that were skipped, in one line; the first of very many."""
    left = len(clients) - LISTED_NAMES
    names = ", ".join(clients[:LISTED_NAMES])
    return f"without images: {names}" + (f" and {left} more" if left > 0 else "")


def listed(causes: Mapping[str, str]) -> str:
    """Clients and their causes in one line."""
    return "; ".join(f"{client}: {cause}" for client, cause in causes.items())
