"""A federation across machines: `station-client` at each camera, `station-coordinator` beside the server.

A station knows its own data directory and its own store, from its worker's environment, and the shared place. It is
told nothing but the configuration; where data lie is never the coordinator's to say. See docs/stations.md.
"""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from data_contracts.config import ExperimentConfig
from data_contracts.errors import ConfigError, UploadError
from data_contracts.exchange import COORDINATOR, Publication, Slot
from data_contracts.manifests import BankManifest, UploadManifest
from data_contracts.quorum import listed, quorum_problem
from data_contracts.rounds import GLOBAL_BANK
from data_contracts.stages import (
    AggregationSettings,
    BackboneSettings,
    CoresetSettings,
    EvaluationSettings,
    Place,
    ScoringSettings,
    client_config_hash,
    sizes_of,
)
from flows.running import place_of
from flows.station_places import coordinator_place, own_config, station_name
from flows.station_runs import call_stations
from tasks import stations as exchanged
from tasks.clients import extract_client_features, select_client_coreset
from tasks.data import fingerprint_dataset, index_dataset, resolve_backbone
from tasks.evaluation import extract_test_features, score_category
from tasks.server import aggregate_memory_bank, check_uploads
from tasks.stage import on_store

Phase = Literal["coreset", "figures"]


@flow(name="station-client")
def station_client(config: ExperimentConfig, run_id: str, phase: Phase = "coreset") -> None:
    """At a station: publish the coreset of its own images; later fetch the banks and publish its counts of test."""
    station, config = station_name(), own_config(config)
    place = place_of(config)
    backbone = resolve_backbone(model=config.model, preprocessing=config.preprocessing, seed=config.seed)
    slot = Slot(run_id=run_id, kind="uploads", sender=station, config_hash=client_config_hash(config, backbone))
    fingerprint = fingerprint_dataset(dataset=config.dataset, place=place)
    indexed = on_store(index_dataset, place)(fingerprint=fingerprint, dataset=config.dataset, place=place)
    if phase == "coreset":
        client = on_store(exchanged.take_own_images, place)(index=indexed.index, station=station, place=place)
        features = on_store(extract_client_features, place)(
            client=client, settings=backbone, sizes=sizes_of(config.preprocessing, client.categories), place=place
        )
        coreset = on_store(select_client_coreset, place)(
            patch_features=features,
            client_id=station,
            config_hash=slot.config_hash,
            settings=CoresetSettings.of(config, station),
            place=place,
        )
        exchanged.publish(Publication(slot=slot, uploads=coreset.uploads), place)
        return
    bank_slot = slot.model_copy(update={"kind": "banks", "sender": COORDINATOR})
    published = exchanged.fetch(bank_slot, place, banks=tuple(indexed.test_images)).banks
    figures = [
        _count(config, backbone, category, indexed.test_images[category], indexed.truth_sha256[category], bank, place)
        for category in indexed.test_images
        for bank in published
        if bank.bank in (category, GLOBAL_BANK)
    ]
    counted = slot.model_copy(
        update={"kind": "figures", "config_hash": exchanged.figures_hash(slot.config_hash, published)}
    )
    exchanged.publish(Publication(slot=counted, figures=tuple(figures)), place)


def _count(
    config: ExperimentConfig,
    backbone: BackboneSettings,
    category: str,
    test_images: Any,
    truth_sha256: str,
    bank: BankManifest,
    place: Place,
) -> Any:
    """Score the station's test images of one category, and count."""
    features = on_store(extract_test_features, place)(
        test_images=test_images,
        category=category,
        settings=backbone,
        size=config.preprocessing.size(category),
        place=place,
    )
    scored = on_store(score_category, place)(
        test_images=test_images,
        patch_features=features,
        bank=bank,
        category=category,
        settings=ScoringSettings.of(config),
        place=place,
    )
    return on_store(exchanged.count_figures, place)(
        test_images=test_images,
        truth_sha256=truth_sha256,
        scored=scored,
        category=category,
        settings=EvaluationSettings.of(config),
        on_bad_image=config.dataset.on_bad_image,
        place=place,
    )


@flow(name="station-coordinator")
def station_coordinator(config: ExperimentConfig, stations: list[str], deadline_s: float = 3600.0) -> Any:
    """Call the stations, check and merge what they publish, publish the banks, pool what the stations count.

    `federated.min_clients` stations must deliver within `deadline_s` seconds, which holds for each of the two calls.
    A retry takes up what was published and runs failed stations again. Returns the run directory.
    """
    if config.federated.num_rounds > 1:
        raise ConfigError("federated.num_rounds: stations federate in one round; set it to 1")
    if not stations or len(set(stations)) != len(stations):
        raise ConfigError(f"stations: expected different names, at least one, got {stations}")
    own = own_config(config)
    place = coordinator_place(own)
    run_id, is_retry = str(flow_run.id), int(flow_run.run_count or 1) > 1
    backbone = resolve_backbone(model=own.model, preprocessing=own.preprocessing, seed=own.seed)
    config_hash = client_config_hash(own, backbone)
    slot = Slot(run_id=run_id, kind="uploads", sender=COORDINATOR, config_hash=config_hash)
    parameters = {"config": own.model_dump(mode="json"), "run_id": run_id}

    exchanged.open_round(run_id)
    answers = call_stations(
        stations, {**parameters, "phase": "coreset"}, key=f"{run_id}:coreset", is_retry=is_retry, deadline_s=deadline_s
    )
    failed = {station: cause for station, cause in answers.items() if cause}
    delivered = [station for station in stations if station not in failed]
    exchanged.close_round(run_id, f"{len(delivered)} of {len(stations)} stations had delivered")
    uploads, refused = _uploads(slot, delivered, place)
    accepted = [station for station in delivered if station not in refused]
    missing = {**failed, **refused}
    problem = quorum_problem(
        min_clients=own.federated.min_clients, n_clients=len(stations), n_delivered=len(accepted), causes=missing
    )
    if problem:
        exchanged.open_round(run_id)  # a station that is mended and retried by itself can still publish
        return Failed(message=problem)
    banks = [
        on_store(aggregate_memory_bank, place)(
            uploads=sent,
            bank=bank,
            config_hash=config_hash,
            settings=AggregationSettings.of(own),
            round_number=1,
            place=place,
        )
        for bank, sent in sorted(uploads.items())
    ]
    exchanged.publish(Publication(slot=slot.model_copy(update={"kind": "banks"}), banks=tuple(banks)), place)

    counted = exchanged.figures_hash(config_hash, tuple(banks))
    answers = call_stations(
        accepted,
        {**parameters, "phase": "figures"},
        key=f"{run_id}:figures:{counted}",
        is_retry=is_retry,
        deadline_s=deadline_s,
    )
    figures = {}
    for station, cause in answers.items():
        try:
            if cause:
                raise UploadError(cause)
            at = slot.model_copy(update={"kind": "figures", "sender": station, "config_hash": counted})
            figures[station] = exchanged.fetch(at, place).figures
        except UploadError as error:
            missing[station] = f"not in the figures: {error}"
            get_run_logger().warning("station %s is %s", station, missing[station])
    uncounted = [f"station {station} is {missing[station]}" for station in accepted if station in missing]
    directory = exchanged.pool_figures(config, figures, banks, failed, refused, uncounted, place)
    _show(stations, uploads, missing)
    if missing:
        return Completed(name="CompletedPartial", message=f"without {listed(missing)}", data=directory)
    return directory


def _uploads(slot: Slot, stations: list[str], place: Place) -> tuple[dict[str, list[UploadManifest]], dict[str, str]]:
    """Bank -> the uploads that are taken; station -> why something of it is refused, and then all of it is."""
    sent: dict[str, tuple[UploadManifest, ...]] = {}
    refused: dict[str, str] = {}
    for station in stations:
        try:
            sent[station] = exchanged.fetch(slot.model_copy(update={"sender": station}), place).uploads
        except UploadError as error:
            refused[station] = str(error)
    by_bank: dict[str, list[UploadManifest]] = {}
    for station in sorted(sent):
        for upload in sent[station]:
            by_bank.setdefault(upload.category, []).append(upload)
    for bank, uploads in by_bank.items():
        checked = check_uploads(
            uploads=uploads, bank=bank, config_hash=slot.config_hash, round_number=slot.round, place=place
        )
        refused |= checked.refused
    taken = {bank: [u for u in uploads if u.client_id not in refused] for bank, uploads in by_bank.items()}
    return {bank: uploads for bank, uploads in taken.items() if uploads}, refused


def _show(stations: list[str], uploads: dict[str, list[UploadManifest]], missing: dict[str, str]) -> None:
    rows: list[dict[str, str | int]] = []
    for station in stations:
        own = [upload for sent in uploads.values() for upload in sent if upload.client_id == station]
        rows.append(
            {
                "station": station,
                "training images": sum(upload.n_images for upload in own),
                "rows sent": sum(upload.rows for upload in own),
                "bytes sent": sum(upload.size_bytes for upload in own),
                "missing": missing.get(station, ""),
            }
        )
    exchanged.show_stations(rows)
