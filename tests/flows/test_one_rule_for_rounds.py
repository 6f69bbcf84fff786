"""The same uploads have the same verdicts in a flow, across machines and in the library form."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from data_contracts.config import ExperimentConfig
from data_contracts.errors import QuorumError
from data_contracts.exchange import Publication
from data_contracts.federation import ClosedRound, joined
from data_contracts.manifests import ClientUploads, UploadManifest
from data_contracts.settings import BackboneSettings, Place, client_config_hash
from flows.across_machines.coordinator import Coordination, verdicts_on_stations
from flows.steps.rounds import verdicts
from flows.steps.run import Run
from pipeline_lib.models.federated_patchcore import FederatedPatchCore
from pipeline_lib.stations.exchange import Exchange
from pipeline_lib.storage.artifact_store import ArtifactStore
from pipeline_lib.upload.package import ClientUpload

pytestmark = pytest.mark.usefixtures("prefect_server")
CLIENTS, BANKS = ("a", "b", "c"), ("bolt", "clip")
BACKBONE = BackboneSettings(
    backbone="efficientnet_lite0", layers=("blocks.2",), weights_source="random", weights_sha256="0" * 64,
    weights_path=None, seed=0, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), neighborhood_size=3,
)  # fmt: skip
CONFIG = ExperimentConfig.model_validate(
    {
        "model": {"rows": "picks"},
        "federated": {"mode": "federated", "num_clients": 3, "min_clients": 2},
    }
)
HASH = client_config_hash(CONFIG, BACKBONE)
NOT_FINITE = "refused: it contains values that are not finite (NaN or infinity)"


@dataclass(frozen=True)
class Sent:
    """One round: what each client sent by bank, and the cause of each that failed."""

    uploads: Mapping[str, Mapping[str, tuple[UploadManifest, dict[str, np.ndarray]]]]
    failed: Mapping[str, str]


@dataclass(frozen=True)
class Verdict:
    """What a round came to."""

    banks: Mapping[str, list[str]]  # bank -> clients whose rows are in it
    delivered: list[str]
    failed: Mapping[str, str]
    refused: Mapping[str, str]
    problem: str | None


def upload(client: str, bank: str, *, value: float = 1.0, number: int = 1) -> tuple[UploadManifest, dict[str, Any]]:
    rows = {"rows": np.full((4, 3), value, dtype=np.float32)}
    manifest = UploadManifest(
        kind="client_upload", path="x", sha256="0" * 64, size_bytes=1, rows=4, client_id=client, category=bank,
        round=number, config_hash=HASH, dim=3, n_images=2, n_patches=20, raw_image_bytes=100, covering_radius=1.0,
    )  # fmt: skip
    return manifest, rows


def sent(failed: Mapping[str, str] | None = None, **wrong: Mapping[str, Any]) -> Sent:
    """All clients with both banks, but those that failed; `wrong`: client_bank -> what is wrong with its upload."""
    there = [client for client in CLIENTS if client not in (failed or {})]
    return Sent({c: {b: upload(c, b, **wrong.get(f"{c}_{b}", {})) for b in BANKS} for c in there}, failed or {})


NAN, LATE = {"value": np.nan}, {"number": 2}
REFUSED = {
    "nan": {(c, b): f"upload of client {c} for {b} {NOT_FINITE}" for c in CLIENTS for b in BANKS},
    "late": "upload of client c for {} refused: it belongs to round 2, this is round 1",
}
ALL = ["a", "b", "c"]
CASES = {
    "a bad upload for one bank": (
        sent(b_bolt=NAN),
        Verdict({"bolt": ["a", "c"], "clip": ALL}, ALL, {}, {"b": REFUSED["nan"]["b", "bolt"]}, None),
    ),
    "a client that fails": (
        sent({"b": "OSError: disk"}),
        Verdict({"bolt": ["a", "c"], "clip": ["a", "c"]}, ["a", "c"], {"b": "OSError: disk"}, {}, None),
    ),
    "no quorum": (
        sent({"b": "OSError: disk"}, c_bolt=NAN, c_clip=NAN),
        Verdict(
            {},
            ["a"],
            {"b": "OSError: disk"},
            {"c": "; ".join(REFUSED["nan"]["c", bank] for bank in BANKS)},
            "quorum not met, 1 of 3 clients delivered and 2 are needed: b: OSError: disk; c: "
            + "; ".join(REFUSED["nan"]["c", bank] for bank in BANKS),
        ),
    ),
    "an upload of another round": (
        sent(c_bolt=LATE, c_clip=LATE),
        Verdict(
            {"bolt": ["a", "b"], "clip": ["a", "b"]},
            ["a", "b"],
            {},
            {"c": "; ".join(REFUSED["late"].format(bank) for bank in BANKS)},
            None,
        ),
    ),
}


def of(closed: ClosedRound) -> Verdict:
    taken: dict[str, list[str]] = {}
    for client in closed.delivered:
        for one in client.uploads:
            taken.setdefault(one.category, []).append(client.client_id)
    return Verdict(
        {} if closed.problem else taken,
        [client.client_id for client in closed.delivered],
        closed.failed,
        closed.refused,
        closed.problem,
    )


def stored(store: ArtifactStore, client: str, uploads: Mapping[str, Any]) -> ClientUploads:
    manifests = []
    for manifest, arrays in uploads.values():
        written = store.write_arrays("client_upload", arrays, rows=4)
        manifests.append(manifest.model_copy(update=written.model_dump()))
    return ClientUploads(client_id=client, uploads=tuple(manifests), provenance=())


def run_at(directory: Path) -> Run:
    place = Place(store=directory, data_root=directory, device="cpu", threads=1, deterministic=True)
    return Run(CONFIG, place, ThreadPoolTaskRunner(max_workers=1))


def in_a_flow(round_: Sent, tmp_path: Path, _: pytest.MonkeyPatch) -> Verdict:
    run = run_at(tmp_path / "store")
    uploads = [stored(ArtifactStore(run.place.store), c, own) for c, own in round_.uploads.items()]

    @flow
    def one_round() -> Verdict:
        with run.runner:
            return of(verdicts(run, 1, uploads, round_.failed, config_hash=HASH, n_clients=3))

    return one_round()


def across_machines(round_: Sent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Verdict:
    monkeypatch.setenv("FEDPATCH_EXCHANGE", str(tmp_path / "shared"))
    c = Coordination(run_at(tmp_path / "coordinator"), "run-1", CLIENTS, BACKBONE, HASH, False, 1.0, {})
    for station, own in round_.uploads.items():
        store = ArtifactStore(tmp_path / station)
        publication = Publication(slot=c.slot("uploads", station, 1), uploads=stored(store, station, own).uploads)
        Exchange(str(tmp_path / "shared")).publish(publication, store)

    @flow
    def one_round() -> Verdict:
        with c.run.runner:
            return of(verdicts_on_stations(c, {s: round_.failed.get(s) for s in CLIENTS}, 1))

    return one_round()


class StandIn:
    """A client of the library form that sends what it is given."""

    def __init__(self, uploads: Mapping[str, Any] | None) -> None:
        self.uploads, self.provenance = uploads, {}

    def extract_and_build_coreset(self, _: Any, *, round_number: int) -> list[ClientUpload]:
        if self.uploads is None:
            raise OSError("disk")
        found = []
        for manifest, arrays in self.uploads.values():
            buffer = io.BytesIO()
            np.savez(buffer, **arrays)
            sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
            found.append(ClientUpload(manifest.model_copy(update={"sha256": sha256}), buffer.getvalue()))
        return found

    def withdraw(self, number: int, bank: str) -> None: ...

    def receive_global_banks(self, banks: Any) -> None: ...


def in_the_library_form(round_: Sent, _: Path, __: pytest.MonkeyPatch) -> Verdict:
    made = FederatedPatchCore(CONFIG, extractor=SimpleNamespace(settings=BACKBONE))  # type: ignore[arg-type]
    made.clients = {client: StandIn(round_.uploads.get(client)) for client in CLIENTS}  # type: ignore[misc]
    made._images = {c: SimpleNamespace(samples=[("", 0, b, "") for b in BANKS]) for c in CLIENTS}  # type: ignore[misc]
    try:
        made._train_single_round(1, 1)
    except QuorumError as error:
        refused = joined([{client: reason} for (_, client, _), reason in made.server.refused.items()])
        left = [c for c in round_.uploads if c not in refused]
        return Verdict({}, left, round_.failed, refused, str(error))
    (summary,) = made.history
    banks = {bank: merged.client_ids for bank, merged in made.server.banks.items()}
    return Verdict(banks, summary.delivered, summary.failed, summary.refused, None)


@pytest.mark.parametrize("form", [in_a_flow, across_machines, in_the_library_form])
@pytest.mark.parametrize("case", CASES)
def test_the_same_uploads_have_the_same_verdicts(
    form: Callable[..., Verdict], case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    round_, expected = CASES[case]
    assert form(round_, tmp_path, monkeypatch) == expected
