"""What rounds come to: who is in the banks, who failed, what is said of a run that went on without someone."""

from __future__ import annotations

from typing import Any

import pytest

from data_contracts.config import ExperimentConfig
from data_contracts.errors import ConfigError
from data_contracts.federation import (
    ClosedRound,
    Federation,
    FederationRound,
    Refusal,
    by_bank,
    close_round,
    joined,
    refuse_clients_without_region,
    refuse_rounds_without_cover,
)
from data_contracts.manifests import BankManifest, ClientUploads, Manifest, UploadManifest


def upload(client: str, bank: str, *, number: int = 1, rows: int = 4, radius: float = 1.0) -> UploadManifest:
    return UploadManifest(
        kind="client_upload", path=f"{client}-{bank}-{number}", sha256="0" * 64, size_bytes=100, rows=rows,
        client_id=client, category=bank, round=number, config_hash="0" * 16, dim=3, n_images=2, n_patches=20,
        raw_image_bytes=1000, covering_radius=radius,
    )  # fmt: skip


def sent(client: str, *banks: str, number: int = 1, **values: Any) -> ClientUploads:
    uploads = tuple(upload(client, bank, number=number, **values) for bank in banks)
    origins = tuple(Manifest(kind="client_provenance", path=u.path, sha256="1" * 64, size_bytes=1, rows=u.rows)
                    for u in uploads)  # fmt: skip
    return ClientUploads(client_id=client, uploads=uploads, provenance=origins)


def bank(name: str, rows: int = 10) -> BankManifest:
    return BankManifest(kind="memory_bank", path=name, sha256="2" * 64, size_bytes=1, rows=rows, bank=name, dim=3)


def state(number: int, **values: Any) -> FederationRound:
    empty: dict[str, Any] = {"uploads": (), "banks": (bank(f"of round {number}"),), "covering_radius": {}}
    return FederationRound(
        round=number, **{**empty, "upload_rows": 0, "upload_bytes": 0, "download_bytes": 0, **values}
    )


# --- the whole -------------------------------------------------------------------------------------------------------


def test_a_client_keeps_what_it_sent_in_every_round() -> None:
    first, second = sent("a", "clip", "screw"), sent("a", "clip", number=2)
    made = Federation(accepted=[first, sent("b"), second])
    (a,) = made.uploads  # b sent nothing that was accepted
    assert a.uploads == (*first.uploads, *second.uploads)
    assert a.provenance == (*first.provenance, *second.provenance)
    assert (Federation().banks, Federation().uploads, Federation().partial) == ([], [], None)


def test_the_banks_are_those_of_the_last_round() -> None:
    assert [b.bank for b in Federation(rounds=[state(1), state(2)]).banks] == ["of round 2"]


def test_who_failed_late_is_an_incident_and_who_is_in_no_bank_has_failed() -> None:
    causes = {"b": "OSError: disk", "c": "upload of client c for clip refused"}
    rounds = [state(1, failed={"c": "late"}), state(2, failed={"b": "OSError: disk"})]
    made = Federation(rounds=rounds, accepted=[sent("a", "clip"), sent("b", "clip")], causes=causes)
    assert made.failed == {"c": causes["c"]}
    assert made.incidents == ["client b failed in round 2: OSError: disk"]
    assert made.partial == "c: upload of client c for clip refused; client b failed in round 2: OSError: disk"


def test_a_refused_upload_of_a_client_that_is_in_other_banks_is_an_incident() -> None:
    rounds = [state(1, refused={"a": "clip: NaN"}), state(2, refused={"a": "screw: NaN", "b": "clip: NaN"})]
    made = Federation(rounds=rounds, accepted=[sent("a", "bolt")], causes={"b": "clip: NaN"})
    assert made.refused == {"a": "clip: NaN; screw: NaN", "b": "clip: NaN"}
    assert made.incidents == ["clip: NaN; screw: NaN"]
    assert made.failed == {"b": "clip: NaN"}


def test_nothing_went_wrong_is_not_partial() -> None:
    assert Federation(rounds=[state(1)], accepted=[sent("a", "clip")]).partial is None


# --- parts -----------------------------------------------------------------------------------------------------------


def test_uploads_by_bank_are_in_order_of_bank_and_then_of_arrival() -> None:
    found = by_bank([sent("b", "screw", "clip"), sent("a", "clip")])
    assert [(name, [u.client_id for u in uploads]) for name, uploads in found.items()] == [
        ("clip", ["b", "a"]),
        ("screw", ["b"]),
    ]


def test_reasons_of_a_client_come_one_after_the_other() -> None:
    assert joined([{"a": "x"}, {"b": "y"}, {"a": "z"}]) == {"a": "x; z", "b": "y"}


def closed(
    number: int, sent: list[ClientUploads], failed: dict[str, str], refusals: list[Refusal], **quorum: Any
) -> ClosedRound:
    values: dict[str, Any] = {"min_clients": 1, "n_clients": 3, "num_rounds": 2, **quorum}
    return close_round(number, sent, failed, refusals, **values)


def test_a_refused_upload_costs_its_bank_and_not_its_client() -> None:
    refusals = [Refusal("a", "screw", "screw: NaN"), Refusal("b", "clip", "clip: NaN"), Refusal("b", "nut", "nut: NaN")]
    made = closed(1, [sent("a", "clip", "screw"), sent("b", "clip", "nut"), sent("c")], {}, refusals, min_clients="all")
    a, c = made.delivered  # c had nothing new to send
    assert a == sent("a", "clip")
    assert c == sent("c")
    assert made.refused == {"a": "screw: NaN", "b": "clip: NaN; nut: NaN"}
    assert made.causes == {"b": "clip: NaN; nut: NaN"}
    assert made.problem == (
        "quorum not met in round 1, 2 of 3 clients delivered and 3 are needed: b: clip: NaN; nut: NaN"
    )


def test_a_client_of_which_nothing_could_be_read_did_not_deliver() -> None:
    made = closed(1, [sent("a", "clip"), sent("b")], {"c": "off"}, [Refusal("b", None, "a replay")], num_rounds=1)
    assert [client.client_id for client in made.delivered] == ["a"]
    assert (made.causes, made.problem) == ({"c": "off", "b": "a replay"}, None)


def test_a_round_counts_what_was_sent_refused_or_not_and_what_goes_back() -> None:
    both = [sent("a", "clip", "screw", radius=2.0), sent("b", "clip", rows=5, radius=9.0)]
    categories = {"a": ("clip", "screw"), "b": ("clip",), "c": ("screw",)}
    one = closed(2, both, {"c": "off"}, [Refusal("b", "clip", "NaN")])
    made = one.state([bank("clip", 10), bank("screw", 7)], categories)
    assert (made.round, made.failed, made.refused) == (2, {"c": "off"}, {"b": "NaN"})
    assert made.uploads == (both[0],)
    assert (made.upload_rows, made.upload_bytes) == (4 + 4 + 5, 300)
    assert made.download_bytes == 4 * 3 * ((10 + 7) + 10 + 7)
    assert made.covering_radius == {"a": 2.0, "b": 9.0}
    assert closed(1, [], {}, []).state([bank("all")], {"a": ("clip",)}).download_bytes == 4 * 3 * 10


# --- what is refused -------------------------------------------------------------------------------------------------


def test_rounds_need_a_selection_that_knows_what_is_covered() -> None:
    def config(mode: str, subsampling: str) -> ExperimentConfig:
        federated = {"num_rounds": 2, "mode": mode}
        return ExperimentConfig.model_validate({"federated": federated, "model": {"subsampling": subsampling}})

    with pytest.raises(ConfigError, match=r"federated\.num_rounds is 2, but model\.subsampling random cannot"):
        refuse_rounds_without_cover(config("federated", "random"))
    refuse_rounds_without_cover(config("federated", "kcenter"))
    refuse_rounds_without_cover(config("centralized", "random"))


def test_every_client_needs_a_region_where_regions_are_named() -> None:
    def config(mode: str, regions: Any) -> ExperimentConfig:
        return ExperimentConfig.model_validate({"federated": {"mode": mode}, "aggregation": {"regions": regions}})

    named = {"north": ["a"], "south": ["b"]}
    with pytest.raises(ConfigError, match="gives no region to c, d; every client needs one"):
        refuse_clients_without_region(config("federated", named), ["a", "c", "b", "d"])
    refuse_clients_without_region(config("federated", named), ["a", "b"])
    refuse_clients_without_region(config("federated", 2), ["c"])
    refuse_clients_without_region(config("local_only", named), ["c"])
