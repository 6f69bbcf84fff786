"""What the clients send in one round: all at once or in a relay, by their images or by what their patches need."""

from __future__ import annotations

from typing import Any

from prefect.futures import PrefectFuture

from data_contracts.federation import Federation, by_bank, joined
from data_contracts.manifests import ClientUploads, CurveManifest, Manifest, UploadManifest
from data_contracts.rounds import RowGrant
from data_contracts.stages import AggregationSettings, BackboneSettings, CoresetSettings, client_config_hash
from flows.running import failure_of, submit
from flows.steps import Run
from tasks.clients import select_client_coreset
from tasks.rounds import grant_rows, measure_coverage_curves, select_round_coreset
from tasks.server import check_uploads
from tasks.stage import on_store

Features = dict[str, PrefectFuture[Manifest]]
Causes = dict[str, str]  # client -> why it failed


def is_in_rounds(run: Run, num_rounds: int) -> bool:
    """Whether what a client sends depends on more than its own images."""
    config = run.config
    is_plain = config.federated.turns == "parallel" and config.aggregation.budget == "images"
    return config.federated.mode == "federated" and (num_rounds > 1 or not is_plain)


def send_round(
    run: Run, federation: Federation, features: Features, number: int, num_rounds: int, backbone: BackboneSettings
) -> tuple[list[ClientUploads], Causes]:
    """What the clients send in one round, and the cause of each that failed."""
    common: dict[str, Any] = {"config_hash": client_config_hash(run.config, backbone), "place": run.place}
    if not is_in_rounds(run, num_rounds):
        coresets = {
            name: submit(
                run.runner,
                on_store(select_client_coreset, run.place),
                patch_features=future,
                client_id=name,
                settings=CoresetSettings.of(run.config, name, number),
                **common,
            )
            for name, future in features.items()
        }
        return _collect(features, coresets)
    failed: Causes = {}
    if run.config.aggregation.budget == "coverage":
        grants, failed = _grants(run, federation, features, number, num_rounds)
        common["grants"] = grants
    there = {name: future for name, future in features.items() if name not in failed}
    common |= {"num_rounds": num_rounds, "banks": federation.banks}
    if run.config.federated.turns == "parallel":
        rounds = {name: _submit(run, federation, name, future, number, common) for name, future in there.items()}
        sent, late = _collect(there, rounds)
    else:
        sent, late = _relay(run, federation, there, number, backbone, common)
    return sent, failed | late


def _submit(
    run: Run, federation: Federation, name: str, future: PrefectFuture[Manifest], number: int, common: dict[str, Any]
) -> PrefectFuture[ClientUploads]:
    return submit(
        run.runner,
        on_store(select_round_coreset, run.place),
        patch_features=future,
        client_id=name,
        settings=CoresetSettings.of(run.config, name, number),
        sent=_sent(federation, name),
        **common,
    )


def _sent(federation: Federation, name: str) -> list[ClientUploads]:
    return [client for client in federation.uploads if client.client_id == name]


def _relay(
    run: Run,
    federation: Federation,
    features: Features,
    number: int,
    backbone: BackboneSettings,
    common: dict[str, Any],
) -> tuple[list[ClientUploads], Causes]:
    """One client after the other, in order of name; the server passes on what it accepts of each."""
    sent: list[ClientUploads] = []
    failed: Causes = {}
    passed: list[UploadManifest] = []
    for name in sorted(features):
        coreset = _submit(run, federation, name, features[name], number, {**common, "passed": list(passed)})
        if cause := failure_of(features[name]) or failure_of(coreset):
            failed[name] = cause
            continue
        sent.append(coreset.result())
        accepted, _ = check_round(run, sent[-1:], number, backbone)
        passed += [upload for client in accepted for upload in client.uploads]
    return sent, failed


def _grants(
    run: Run, federation: Federation, features: Features, number: int, num_rounds: int
) -> tuple[dict[str, RowGrant], Causes]:
    """Bank -> what each client may send, from their coverage curves; and the cause of each that gave none."""
    held = {bank: sum(upload.rows for upload in sent) for bank, sent in by_bank(federation.uploads).items()}
    curves = {
        name: submit(
            run.runner,
            on_store(measure_coverage_curves, run.place),
            patch_features=future,
            client_id=name,
            settings=CoresetSettings.of(run.config, name, number),
            banks=federation.banks,
            sent=_sent(federation, name),
            left=1 / number,
            place=run.place,
        )
        for name, future in features.items()
    }
    found, failed = _collect(features, curves)
    by_name: dict[str, list[CurveManifest]] = {}
    for curve in (one for client in found for one in client):
        by_name.setdefault(curve.category, []).append(curve)
    grants = {
        bank: submit(
            run.runner,
            grant_rows,
            curves=sorted(there, key=lambda one: one.client_id),
            bank=bank,
            held=held.get(bank, 0),
            settings=AggregationSettings.of(run.config),
            oversample_factor=run.config.aggregation.oversample_factor,
            round_number=number,
            num_rounds=num_rounds,
            is_relay=run.config.federated.turns == "relay",
            place=run.place,
        )
        for bank, there in sorted(by_name.items())
    }
    return {bank: future.result() for bank, future in grants.items()}, failed


def _collect(features: Features, futures: dict[str, PrefectFuture[Any]]) -> tuple[list[Any], Causes]:
    """The results of the clients that have one, and why the others have none."""
    causes = {name: failure_of(features[name]) or failure_of(future) for name, future in futures.items()}
    failed = {name: cause for name, cause in causes.items() if cause}
    return [future.result() for name, future in futures.items() if name not in failed], failed


def check_round(
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
    return accepted, joined([result.refused for result in checked.values()])
