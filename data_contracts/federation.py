"""What a federation came to: its rounds, and what its clients give beside uploads."""

from __future__ import annotations

from dataclasses import dataclass, field

from data_contracts.local import LocalClient
from data_contracts.manifests import BankManifest, ClientUploads, Manifest, UploadManifest
from data_contracts.quorum import listed
from data_contracts.rounds import FederationRound


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


def by_bank(clients: list[ClientUploads]) -> dict[str, list[UploadManifest]]:
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
