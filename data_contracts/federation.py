"""What a federation came to: its rounds, and what its clients give beside uploads."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from data_contracts.local import LocalClient
from data_contracts.manifests import BankManifest, ClientUploads, Manifest, UploadManifest
from data_contracts.quorum import listed, quorum_problem
from data_contracts.rounds import FederationRound, download_bytes


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
            download_bytes=sum(download_bytes(banks, own) for own in categories.values()),
            covering_radius=covering_radii(self.sent),
        )


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
