"""A federation across machines: `station-client` at each camera, `station-coordinator` beside the server.

A station knows its own data directory and its own store, from its worker's environment, and the shared place. It is
told nothing but the configuration; where data lie is never the coordinator's to say. See docs/stations.md.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Failed
from pydantic import Field

from data_contracts.config import ExperimentConfig
from data_contracts.errors import ConfigError
from data_contracts.federation import (
    listed,
    quorum_out_of_reach,
    refuse_clients_without_region,
    refuse_rounds_without_cover,
)
from data_contracts.forms import FEDERATED_FORM
from data_contracts.settings import client_config_hash
from flows.across_machines.coordinator import Coordination, collect_figures, federate
from flows.across_machines.places import coordinator_place, own_config
from flows.across_machines.station import open_station, send_coreset, send_figures
from flows.steps.ends_with_worker import end_with_worker
from flows.steps.run import Run
from flows.steps.run_pages import coordinator_title, show_failure, station_title
from flows.steps.running import partial_state, task_runner
from tasks.data import resolve_backbone
from tasks.extensions import try_extensions
from tasks.reporting import publish_results
from tasks.stations import finish_stations, register_part, show_stations

Phase = Literal["coreset", "figures"]
Ratios = dict[str, Annotated[float, Field(gt=0, le=1)]]


@flow(
    name="station-client",
    flow_run_name=station_title,
    on_running=[end_with_worker],
    on_failure=[show_failure],
)
def station_client(
    config: ExperimentConfig,
    run_id: str,
    phase: Phase = "coreset",
    round_number: int = 1,
    coreset_percentage_by_station: Ratios | None = None,
) -> None:
    """At a station: publish the coreset of its own images; later fetch the banks and publish its counts of test."""
    run = open_station(config, run_id, coreset_percentage_by_station or {})
    if phase == "coreset":
        send_coreset(run, round_number)
    else:
        send_figures(run)
    register_part(run_id, f"{phase}-{round_number}", run.used, run.place)


@flow(
    name="station-coordinator",
    flow_run_name=coordinator_title,
    on_running=[end_with_worker],
    on_failure=[show_failure],
)
def station_coordinator(
    config: Annotated[ExperimentConfig, FEDERATED_FORM],
    stations: list[str],
    deadline_s: float = 3600.0,
    coreset_percentage_by_station: Ratios | None = None,
) -> Any:
    """Call the stations, check and merge what they publish, publish the banks, pool what the stations count.

    In every round `federated.min_clients` of the stations (all: each that is named) must deliver within `deadline_s`
    seconds; the figures have as long again. A retry takes up what was published and runs failed stations again.
    `coreset_percentage_by_station` takes the place of `model.coreset_percentage` at the stations that it names.
    Returns the result as JSON.
    """
    if not stations or len(set(stations)) != len(stations):
        raise ConfigError(f"stations: expected different names, at least one, got {stations}")
    ratios = coreset_percentage_by_station or {}
    if unknown := sorted(set(ratios) - set(stations)):
        raise ConfigError(
            f"coreset_percentage_by_station names {', '.join(unknown)}, but the stations are {', '.join(stations)}"
        )
    config = config.as_mode("federated")  # whatever it says: stations are never one place
    own = own_config(config)
    if problem := quorum_out_of_reach(min_clients=own.federated.min_clients, n_clients=len(stations)):
        raise ConfigError(problem)
    refuse_rounds_without_cover(own)
    refuse_clients_without_region(own, stations)
    place = coordinator_place(own)
    if own.extensions():
        try_extensions(own, place, keys=("model.backbone", "aggregation.strategy"))
    backbone = resolve_backbone(model=own.model, preprocessing=own.preprocessing, seed=own.seed)
    with task_runner(own.runtime) as runner:
        coordination = Coordination(
            run=Run(own, place, runner),
            run_id=str(flow_run.id),
            stations=tuple(stations),
            backbone=backbone,
            config_hash=client_config_hash(own, backbone),
            is_retry=int(flow_run.run_count or 1) > 1,
            deadline_s=deadline_s,
            ratios=ratios,
        )
        federation = federate(coordination)
        if federation.problem:
            show_stations(stations, federation.uploads, federation.causes)
            return Failed(message=federation.problem)
        results, uncounted = collect_figures(coordination, federation)
    missing = {**federation.failed, **uncounted}
    result = finish_stations(
        config,
        backbone,
        federation,
        results,
        uncounted,
        coordination.run_id,
        coordination.run.clock.timings_s,
        place,
    )
    show_stations(stations, federation.uploads, missing)
    publish_results(result, place)
    text = result.model_dump_json()
    left_out = "; ".join(part for part in (listed(missing), *federation.incidents) if part)
    if left_out:
        return partial_state(f"without {left_out}", text)
    return text
