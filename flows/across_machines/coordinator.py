"""The coordinator's rounds: call the stations, verify what they publish, merge it, publish the banks, fetch figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prefect import get_run_logger

from data_contracts.errors import UploadError
from data_contracts.exchange import COORDINATOR, Publication, PublicationKind, Slot, StationResults
from data_contracts.federation import ClosedRound, Federation, FederationRound
from data_contracts.settings import BackboneSettings
from flows.across_machines.calls import call_stations
from flows.steps.rounds import aggregate, verdicts
from flows.steps.run import Run
from tasks import stations as exchanged


@dataclass(frozen=True)
class Coordination:
    """One run of the coordinator."""

    run: Run
    run_id: str
    stations: tuple[str, ...]
    backbone: BackboneSettings
    config_hash: str
    is_retry: bool
    deadline_s: float
    ratios: Mapping[str, float]  # station -> coreset_percentage of its own

    @property
    def num_rounds(self) -> int:
        return self.run.config.federated.num_rounds

    def slot(self, kind: PublicationKind, sender: str, number: int, config_hash: str | None = None) -> Slot:
        """Where a publication of a round belongs."""
        return Slot(
            run_id=self.run_id, round=number, kind=kind, sender=sender, config_hash=config_hash or self.config_hash
        )

    def call(self, stations: list[str], phase: str, number: int, key: str) -> dict[str, str | None]:
        """Have the stations do one phase; station -> why it did not deliver, or None."""
        return call_stations(
            stations,
            {
                "config": self.run.config.model_dump(mode="json"),
                "run_id": self.run_id,
                "phase": phase,
                "round_number": number,
                "coreset_percentage_by_station": dict(self.ratios),
            },
            key=f"{self.run_id}:{key}",
            is_retry=self.is_retry,
            deadline_s=self.deadline_s,
        )


def federate(c: Coordination) -> Federation:
    """All rounds. Ends early, with `problem`, without a quorum; the round is open then.

    A retry takes up the rounds that later ones were built on as they were, and goes on with the one after.
    """
    federation = Federation()
    for number in range(1, c.num_rounds + 1):
        kept = exchanged.kept_round(c.run_id, number, c.run.place) if c.is_retry and number < c.num_rounds else None
        if kept is not None:
            federation.accepted += kept.uploads
            federation.causes |= {**kept.failed, **kept.refused}
            federation.rounds.append(kept)
            continue
        state = _round(c, federation, number)
        if state is None:
            return federation
        federation.rounds.append(state)
        slot = c.slot("banks", COORDINATOR, number)
        accepted = tuple(sorted(upload.sha256 for sent in federation.accepted for upload in sent.uploads))
        exchanged.publish(Publication(slot=slot, banks=state.banks, accepted=accepted), c.run.place)
        exchanged.keep_round(c.run_id, state, c.run.place)
    return federation


def _round(c: Coordination, federation: Federation, number: int) -> FederationRound | None:
    """One round: its state, or None with the federation's `problem` set."""
    run = c.run
    exchanged.open_round(c.run_id, number)
    with run.clock.stage("clients"):
        answers = c.call(list(c.stations), "coreset", number, f"coreset:{number}")
    called = [station for station, cause in answers.items() if not cause]
    exchanged.close_round(c.run_id, number, f"{len(called)} of {len(c.stations)} stations had delivered")
    with run.clock.stage("aggregate"):
        closed = verdicts_on_stations(c, answers, number)
        federation.take(closed)
        if federation.problem:
            exchanged.open_round(c.run_id, number)  # a station that is mended and retried by itself can still publish
            return None
        banks = aggregate(run, federation.accepted, number, c.backbone)
    categories = {one.client_id: tuple(upload.category for upload in one.uploads) for one in federation.uploads}
    return closed.state(banks, categories)


def verdicts_on_stations(c: Coordination, answers: Mapping[str, str | None], number: int) -> ClosedRound:
    """What the coordinator makes of a round; answers: station -> why it did not deliver, or None."""
    failed = {station: cause for station, cause in answers.items() if cause}
    called = sorted(set(answers) - set(failed))
    fetched = [exchanged.fetch_uploads(c.slot("uploads", station, number), c.run.place) for station in called]
    return verdicts(
        c.run,
        number,
        [sent for sent, _ in fetched],
        failed,
        config_hash=c.config_hash,
        n_clients=len(c.stations),
        unread=[refusal for _, refusals in fetched for refusal in refusals],
    )


def collect_figures(c: Coordination, federation: Federation) -> tuple[list[dict[str, StationResults]], dict[str, str]]:
    """For each round what the stations counted of its banks; station -> why it is not in the figures."""
    hashes = [exchanged.figures_hash(c.config_hash, one.banks) for one in federation.rounds]
    stations = [client.client_id for client in federation.uploads]
    with c.run.clock.stage("figures"):
        answers = c.call(stations, "figures", c.num_rounds, f"figures:{hashes[-1]}")
    results: list[dict[str, StationResults]] = [{} for _ in hashes]
    missing: dict[str, str] = {}
    for station, cause in answers.items():
        try:
            if cause:
                raise UploadError(cause)
            fetched = [
                exchanged.fetch(c.slot("figures", station, number, counted), c.run.place)
                for number, counted in enumerate(hashes, start=1)
            ]
        except UploadError as error:
            missing[station] = f"not in the figures: {error}"
            get_run_logger().warning("station %s is %s", station, missing[station])
            continue
        for one, publication in zip(results, fetched, strict=True):
            one[station] = StationResults(
                figures=publication.figures,
                calibration=publication.calibration,
                manifest_bytes=len(publication.file_content()),
            )
    return results, missing
