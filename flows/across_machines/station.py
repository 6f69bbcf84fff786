"""What a station does in its own run: select and publish its coreset of a round; count its figures of every round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from data_contracts.config import ExperimentConfig
from data_contracts.exchange import COORDINATOR, FiguresManifest, Publication, PublicationKind, Slot
from data_contracts.manifests import GLOBAL_BANK, BankManifest, ClientImages, ClientUploads, IndexedDataset, Manifest
from data_contracts.settings import (
    BackboneSettings,
    CalibrationSettings,
    CoresetSettings,
    EvaluationSettings,
    Place,
    ScoringSettings,
    client_config_hash,
    place_of,
    sizes_of,
)
from flows.across_machines.places import own_config, station_name
from tasks import stations as exchanged
from tasks.clients import calibrate_client, extract_client_features, select_client_coreset
from tasks.data import (
    fingerprint_dataset,
    fingerprint_groups,
    found_layout,
    group_images,
    index_dataset,
    resolve_backbone,
)
from tasks.evaluation import extract_test_features, score_category
from tasks.extensions import try_extensions
from tasks.resources import refuse_backbones
from tasks.stage import on_store


@dataclass
class StationRun:
    """One run at a station: its own data and store, and what the run so far refers to."""

    station: str
    run_id: str
    config: ExperimentConfig
    place: Place
    backbone: BackboneSettings
    config_hash: str
    indexed: IndexedDataset
    used: list[Manifest] = field(default_factory=list)

    def slot(self, kind: PublicationKind, number: int, config_hash: str | None = None) -> Slot:
        """Where a publication of a round belongs."""
        sender = COORDINATOR if kind == "banks" else self.station
        return Slot(
            run_id=self.run_id, round=number, kind=kind, sender=sender, config_hash=config_hash or self.config_hash
        )

    def sent_before(self, number: int) -> list[Slot]:
        """Its uploads of the rounds before."""
        return [self.slot("uploads", one) for one in range(1, number)]


def open_station(config: ExperimentConfig, run_id: str, ratios: Mapping[str, float]) -> StationRun:
    """The station of this machine, its images indexed; `ratios`: station -> coreset_percentage of its own."""
    station, config = station_name(), own_config(config)
    exchanged.require_exchange()  # before its images are read
    # set past the validation, which knows the clients of one machine alone
    federated = config.federated.model_copy(update={"coreset_percentage_by_client": dict(ratios)})
    config = config.model_copy(update={"federated": federated})
    place = place_of(config)
    config = found_layout(config, place)
    refuse_backbones([(config, place)])
    if config.extensions():
        try_extensions(config, place, keys=("model.backbone",))
    backbone = resolve_backbone(model=config.model, preprocessing=config.preprocessing, seed=config.seed)
    fingerprint = fingerprint_dataset(dataset=config.dataset, place=place)
    indexed = on_store(index_dataset, place)(
        fingerprint=fingerprint,
        dataset=config.dataset.model_copy(update={"group": None}),
        value_range=config.preprocessing.value_range,
        orientation=config.preprocessing.orientation,
        place=place,
    )
    if (rule := config.dataset.group) is not None and indexed.thumbnails is not None:
        named = fingerprint_groups(rule)
        groups = on_store(group_images, place)(
            index=indexed.index, thumbnails=indexed.thumbnails, rule=rule, fingerprint=named, place=place
        )
        indexed = indexed.model_copy(update={"groups": groups})
    config_hash = client_config_hash(config, backbone)
    used = [indexed.index, *indexed.test_images.values()]
    used += [own for own in (indexed.thumbnails, indexed.groups) if own is not None]
    return StationRun(station, run_id, config, place, backbone, config_hash, indexed, used)


def send_coreset(run: StationRun, number: int) -> None:
    """Publish what of the station's own images the banks do not cover yet."""
    client, features = _own_features(run)
    banks: list[BankManifest] = []
    sent: list[ClientUploads] = []
    if number > 1:
        wanted = (GLOBAL_BANK, *client.categories)
        published = exchanged.fetch(run.slot("banks", number - 1), run.place, banks=wanted)
        banks = [bank for bank in published.banks if bank.bank in wanted]
        sent = exchanged.accepted_uploads(run.sent_before(number), published.accepted, run.place)
    coreset: ClientUploads = on_store(select_client_coreset, run.place)(
        patch_features=features,
        client_id=run.station,
        config_hash=run.config_hash,
        reading=run.indexed.reading,
        settings=CoresetSettings.of(run.config, run.station, number),
        num_rounds=run.config.federated.num_rounds,
        banks=banks,
        sent=sent,
        place=run.place,
    )
    run.used += [*banks, *coreset.uploads, *coreset.provenance]
    exchanged.keep_sent(run.run_id, number, coreset, run.place)
    exchanged.publish(Publication(slot=run.slot("uploads", number), uploads=coreset.uploads), run.place)
    exchanged.say_sent(coreset)


def send_figures(run: StationRun) -> None:
    """Score and count the station's test images by the banks of every round; by the last also its normal images."""
    num_rounds = run.config.federated.num_rounds
    for number in range(1, num_rounds + 1):
        published = exchanged.fetch(run.slot("banks", number), run.place, banks=_categories(run))
        banks = [bank for bank in published.banks if bank.bank in _categories(run)]
        figures = [
            _count(run, category, bank)
            for category in run.indexed.test_images
            for bank in banks
            if bank.bank in (category, GLOBAL_BANK)
        ]
        calibration = _calibrate(run, banks, published.accepted) if number == num_rounds else None
        counted = exchanged.figures_hash(run.config_hash, published.banks)
        slot = run.slot("figures", number, counted)
        exchanged.publish(Publication(slot=slot, figures=tuple(figures), calibration=calibration), run.place)
        run.used += [*banks, *figures, *([calibration] if calibration else [])]


def _own_features(run: StationRun) -> tuple[ClientImages, Manifest]:
    client = on_store(exchanged.take_own_images, run.place)(
        index=run.indexed.index, station=run.station, place=run.place
    )
    features = on_store(extract_client_features, run.place)(
        client=client,
        settings=run.backbone,
        sizes=sizes_of(run.config.preprocessing, client.categories),
        reading=run.indexed.reading,
        place=run.place,
    )
    run.used += [client.images, features]
    return client, features


def _categories(run: StationRun) -> tuple[str, ...]:
    return (GLOBAL_BANK, *run.indexed.categories)


def _calibrate(run: StationRun, banks: list[BankManifest], accepted: tuple[str, ...]) -> Manifest | None:
    """Out-of-fold scores of the station's own normal images; None where decisions are not asked for."""
    sent = exchanged.accepted_uploads(run.sent_before(run.config.federated.num_rounds + 1), accepted, run.place)
    if run.config.decision.blocks == 0 or not sent:
        return None
    _, features = _own_features(run)
    scores = on_store(calibrate_client, run.place)(
        patch_features=features,
        uploads=sent[0],
        banks=[bank for bank in banks if bank.bank in {upload.category for upload in sent[0].uploads}],
        settings=CalibrationSettings.of(run.config),
        groups=run.indexed.groups,
        place=run.place,
    )
    run.used.append(scores)
    return on_store(exchanged.pack_calibration, run.place)(scores=scores, place=run.place)


def _count(run: StationRun, category: str, bank: BankManifest) -> FiguresManifest:
    """Score the station's test images of one category, and count."""
    config, place = run.config, run.place
    test_images = run.indexed.test_images[category]
    features = on_store(extract_test_features, place)(
        test_images=test_images,
        category=category,
        settings=run.backbone,
        size=config.preprocessing.size(category),
        reading=run.indexed.reading.only([category]),
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
    run.used += [features, scored.maps, scored.scores]
    return on_store(exchanged.count_figures, place)(
        test_images=test_images,
        truth_sha256=run.indexed.truth_sha256[category],
        scored=scored,
        category=category,
        settings=EvaluationSettings.of(config),
        on_bad_image=config.dataset.on_bad_image,
        place=place,
    )
