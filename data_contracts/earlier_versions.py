"""Configurations of earlier versions: which keys came and went since, and what those versions hashed.

A stored `config_hash` may be of any version: `hashed_values` gives what each of them would have written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ADDED_KEYS = {
    ("aggregation", "regions"): None,
    ("preprocessing", "value_range"): "container",
    ("preprocessing", "orientation"): "stored",
    ("dataset", "group"): None,
    ("federated", "partition_groups"): False,
    ("decision", "promise"): "rate",
    ("model", "alignment"): "corners_as_patchcore",
    ("model", "rows"): "picks",
    ("model", "lloyd_steps"): 1,
    ("model", "shard_patches"): None,
    ("inference", "top_share"): 0.01,
}
"""Keys that earlier versions did not have -> the value that means what those did; at it a key is not hashed."""
READ = {("preprocessing", "value_range"): "auto", ("preprocessing", "orientation"): "applied"}
ALIGNED = {("model", "alignment"): "centers"}
MEANS = {("model", "rows"): "cell_means", ("decision", "promise"): "interpolated"}
SAID_SINCE = {**READ, **ALIGNED, **MEANS}
"""What a configuration that says nothing of these keys means since; hashes of earlier versions have no such key."""
REMOVED_KEYS = {("federated", "turns"): "parallel", ("aggregation", "budget"): "images"}
"""Keys that earlier versions had -> the value that is still done: at it a key is dropped, and hashed as it was."""
MEANT_V2 = frozenset(
    ["resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2"]
)
"""torchvision's ResNets with two trainings: a name alone meant IMAGENET1K_V2 in earlier versions, V1 since."""
HASHED_TRAINING = {"batch_size": 32, "num_workers": 4}
"""Changes no figure, and is hashed as if it were this: earlier versions hashed what was there, mostly this."""


def hashed_values(values: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """What is hashed of a configuration's values by section, without those that no hash covers.

    As it is now, before rows were means, before `model` had an alignment, before `preprocessing` had its keys of
    SAID_SINCE, and in the versions before that.
    """
    sections: dict[str, Any] = {name: dict(one) if isinstance(one, dict) else one for name, one in values.items()}
    if sections["dataset"]["layout"] == "auto":  # what was meant before there was a choice; a run says what it found
        sections["dataset"]["layout"] = "autovi"
    stem = sections["model"]["backbone"].removesuffix(".v2")
    sections["model"]["backbone"] = stem if stem in MEANT_V2 else sections["model"]["backbone"]
    for (section, key), still_done in REMOVED_KEYS.items():
        sections[section][key] = still_done
    for (section, key), unchanged in ADDED_KEYS.items():
        if sections[section][key] == unchanged:
            del sections[section][key]
    now, before = sections, _unsaid(sections, SAID_SINCE)
    federated = sections["federated"]
    if federated["min_clients"] == "all":  # one client was enough where nothing was said
        one = {"federated": {**federated, "min_clients": 1}}
        now = now | one if federated["mode"] == "centralized" else now  # without clients both say the same
        before = before | one
    since = [_unsaid(now, said) for said in (MEANS, {**ALIGNED, **MEANS}, SAID_SINCE)]
    return *(one | {"training": HASHED_TRAINING} for one in (now, *since)), before


def with_version(model: Mapping[str, Any], meant: str, *, default: str) -> dict[str, Any]:
    """The section `model` with the version (`.v1`, `.v2`) of a ResNet of MEANT_V2 in its backbone's name.

    A name alone gets `meant`; where no published weights are loaded there is none.
    """
    name = str(model.get("backbone", default))
    stem, dot, version = name.rpartition(".")
    stem = stem if dot and version in ("v1", "v2") else name
    if stem not in MEANT_V2:
        return dict(model)
    published = model.get("weights", "pretrained") == "pretrained" and model.get("weights_path") is None
    return {**model, "backbone": (f"{stem}.{meant}" if stem == name else name) if published else stem}


def _unsaid(sections: Mapping[str, Any], said: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    """The values without the keys of `said` that have its value."""
    return {
        name: {key: value for key, value in one.items() if said.get((name, key), ...) != value}
        if isinstance(one, dict)
        else one
        for name, one in sections.items()
    }
