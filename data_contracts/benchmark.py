"""A benchmark: one base experiment, named variations of it, products of axes, and seeds."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from data_contracts.config import ExperimentConfig, Section

Changes = dict[str, Any]
MAIN_GROUP = "main"
TWIN_SUFFIX = "centralized"


class GroupConfig(Section):
    """Experiments that belong together: a setting, and every combination of the axes on top of it."""

    set: Changes = Field({}, description="keys that all experiments of the group have")
    axes: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        {}, description="key -> its values, such as {federated.num_clients: [3, 5, 10]}"
    )
    own_baseline: bool = Field(
        False,
        description="compare each experiment with its own centralized twin (same keys, federated.mode: centralized), "
        "for axes that change the baseline too, such as the backbone",
    )


@dataclass(frozen=True)
class Cell:
    """One experiment with one seed."""

    experiment: str
    seed: int
    config: ExperimentConfig

    @property
    def name(self) -> str:
        """For people and directories."""
        return f"{self.experiment}/seed_{self.seed}"


class BenchmarkConfig(Section):
    """The matrix: every experiment is the base with some keys set, written `section.key: value`."""

    name: str = Field(
        "benchmark", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$", description="for people and directories"
    )
    base: ExperimentConfig = Field(ExperimentConfig(), description="what all experiments share")
    experiments: dict[str, Changes] = Field(
        {}, description="experiment name -> keys that differ, such as {federated.num_clients: 5}"
    )
    groups: dict[str, GroupConfig] = Field({}, description="group name -> its experiments, named <group>-<values>")
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(
        (), description="every experiment runs with each of them; the base's seed alone unless given"
    )
    baseline: str = Field("centralized", description="the experiment that the others are compared with")
    compare: tuple[tuple[str, str], ...] = Field(
        (),
        description="further pairs, [experiment, reference], such as [[iid_5_rounds_2, iid_5]]; name them before "
        "seeing the figures, for the correction covers no pairs that were tried and left out",
    )
    resamples: int = Field(
        1000,
        ge=0,
        le=20_000,
        description="of the paired bootstrap; 0 for differences alone. For AUC-sPRO evaluation.bootstrap must not be 0",
    )
    history: Path | None = Field(
        None,
        description="directory of earlier results; each run is compared with the last good one of the same "
        "configuration. Not watched unless given",
    )
    out: Path | None = Field(None, description="runs/<name>-<timestamp> unless given; one run directory for each below")

    @model_validator(mode="after")
    def _every_experiment_is_valid(self) -> BenchmarkConfig:
        names = list(self.changes())
        if not names:
            raise ValueError("there is no experiment; give experiments, or groups with axes")
        if self.baseline not in names:
            raise ValueError(f"baseline is {self.baseline!r}, which is not among {', '.join(names)}")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("a seed is given twice")
        self._refuse_pairs(set(names))
        self.configs()
        return self

    def changes(self) -> dict[str, Changes]:
        """Experiment name -> the keys that differ from the base. Raises ValueError for a name given twice."""
        found = dict(self.experiments)
        for group, settings in self.groups.items():
            for name, changes in _cells_of(group, settings).items():
                if name in found:
                    raise ValueError(f"experiment {name} is there twice; rename group {group}")
                found[name] = changes
        return found

    def group_of(self) -> dict[str, str]:
        """Experiment name -> its group; `main` for the named ones."""
        named = dict.fromkeys(self.experiments, MAIN_GROUP)
        return named | {name: group for group, settings in self.groups.items() for name in _cells_of(group, settings)}

    def baselines(self) -> dict[str, str]:
        """Experiment name -> the experiment that it is compared with."""
        found = dict.fromkeys(self.changes(), self.baseline)
        for group, settings in self.groups.items():
            for name in _cells_of(group, settings) if settings.own_baseline else ():
                found[name] = name if name.endswith(f"-{TWIN_SUFFIX}") else f"{name}-{TWIN_SUFFIX}"
        return found

    def configs(self) -> dict[str, ExperimentConfig]:
        """Experiment name -> its configuration, with the first seed. Raises ValueError naming one that is not valid."""
        base = self.base.model_dump(mode="json")
        found = {}
        for name, changes in self.changes().items():
            try:
                values = {**merge_keys(base, changes), "name": name}
                found[name] = ExperimentConfig.model_validate({**values, "seed": self.all_seeds()[0]})
            except ValidationError as error:
                problem = error.errors(include_url=False)[0]
                key = ".".join(str(part) for part in problem["loc"])
                raise ValueError(f"experiment {name}: {key}: {problem['msg']}, got {problem['input']!r}") from error
        return found

    def all_seeds(self) -> tuple[int, ...]:
        """Those that every experiment runs with."""
        return self.seeds or (self.base.seed,)

    def described(self) -> str:
        """What it runs, in a line."""
        n, seeds = len(self.changes()), self.all_seeds()
        experiments = f"{n} {'experiment' if n == 1 else 'experiments'}"
        if len(seeds) == 1:
            return f"{experiments} with seed {seeds[0]} alone"
        return f"{experiments} with {len(seeds)} seeds ({', '.join(map(str, seeds))}), {n * len(seeds)} runs"

    def cells(self) -> list[Cell]:
        """Every experiment with every seed: all experiments of a seed before those of the next."""
        configs = self.configs()
        return [
            Cell(name, seed, config.model_copy(update={"seed": seed}))
            for seed in self.all_seeds()
            for name, config in configs.items()
        ]

    def directory(self, cell: Cell) -> Path:
        """Where a cell's run directory lies, below the benchmark's own."""
        return Path(cell.experiment) / f"seed_{cell.seed}" if len(self.all_seeds()) > 1 else Path(cell.experiment)

    def _refuse_pairs(self, names: set[str]) -> None:
        """Raises ValueError for a pair in `compare` that names no experiment, or is tested already."""
        tested = {frozenset(pair) for pair in self.baselines().items()}
        for pair in self.compare:
            text = f"compare: [{', '.join(pair)}]"
            for name in pair:
                if name not in names:
                    raise ValueError(f"{text}: {name!r} is not among {', '.join(sorted(names))}")
            if pair[0] == pair[1]:
                raise ValueError(f"{text}: an experiment and itself")
            if frozenset(pair) in tested:
                raise ValueError(f"{text}: these two are compared already; each pair is tested once")
            tested.add(frozenset(pair))


def _cells_of(group: str, settings: GroupConfig) -> dict[str, Changes]:
    """Experiment name -> changes, for every combination of a group's axes, with the twins where it has them."""
    found: dict[str, Changes] = {}
    for values in itertools.product(*settings.axes.values()):
        parts = [_label(value, settings.axes[key]) for key, value in zip(settings.axes, values, strict=True)]
        name = "-".join([group, *parts])
        if name in found:
            raise ValueError(f"group {group} has two experiments named {name}; an axis holds a value twice")
        changes = {**settings.set, **dict(zip(settings.axes, values, strict=True))}
        found[name] = changes
        if settings.own_baseline:
            found[f"{name}-{TWIN_SUFFIX}"] = {**changes, "federated.mode": "centralized"}
    return found


def _label(value: Any, values: list[Any]) -> str:
    """A value as part of a name: itself where it is a short word or number, else its place on the axis, from 1."""
    parts = value if isinstance(value, list) else [value]
    text = re.sub(r"[^A-Za-z0-9._]+", "_", "_".join(str(part) for part in parts)).strip("_")
    return text if text and len(text) <= 32 and not isinstance(value, dict) else str(1 + values.index(value))


def merge_keys(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested `values`, which stay as they are, with each `a.b: value` of `changes` set.

    Raises ValueError where a key leads through something that is no section.
    """
    merged = dict(values)
    for key, value in changes.items():
        target = merged
        *sections, last = key.split(".")
        for section in sections:
            inner = target.get(section, {})
            if not isinstance(inner, dict):
                raise ValueError(f"{key}: {section} is not a section, but {inner!r}")
            target[section] = dict(inner)
            target = target[section]
        target[last] = value
    return merged
