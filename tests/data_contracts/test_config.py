"""The configuration: defaults, bounds, the guide's two files, hashes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from data_contracts.config import ExperimentConfig, canonical_json
from data_contracts.defects import DefectEntry
from data_contracts.settings import BackboneSettings, CoresetSettings, client_config_hash, client_config_hashes
from tests.conftest import ROOT

GUIDE_BASELINE = """
model: {backbone: wide_resnet50_2, layers: [layer2, layer3], coreset_percentage: 0.1, neighborhood_size: 3,
        use_faiss: true}
preprocessing: {small_size: [400, 400], large_size: [1000, 750], mean: [0.485, 0.456, 0.406],
                std: [0.229, 0.224, 0.225]}
training: {batch_size: 32, num_workers: 4}
inference: {num_neighbors: 1}
seed: 42
"""
GUIDE_FEDERATED = (
    GUIDE_BASELINE
    + """
federated:
  num_clients: 5
  partitioning: category
  num_rounds: 1
  qc_sample_ratio: 0.1
  client_assignments:
    0: [engine_wiring]
    1: [underbody_pipes, underbody_screw]
    2: [tank_screw, pipe_staple]
    3: [pipe_clip]
    4: all
aggregation: {strategy: federated_coreset, global_bank_size: 10000, weight_by_samples: true, oversample_factor: 2.0}
"""
)

AS_EARLIER = {
    "preprocessing": {"value_range": "container", "orientation": "stored"},
    "model": {"alignment": "corners_as_patchcore", "rows": "picks", "backbone": "wide_resnet50_2.v2"},
    "decision": {"promise": "rate"},
}
"""What earlier versions did."""


def test_the_guides_baseline_file_loads_as_centralized() -> None:
    config = ExperimentConfig.model_validate(yaml.safe_load(GUIDE_BASELINE))
    assert config.federated.mode == "centralized"
    assert config.preprocessing.size("tank_screw") == (1000, 750)
    assert config.preprocessing.size("pipe_clip") == (400, 400)


def test_the_guides_federated_file_loads_as_federated() -> None:
    config = ExperimentConfig.model_validate(yaml.safe_load(GUIDE_FEDERATED))
    assert config.federated.mode == "federated"
    assert config.federated.client_assignments["client_4"] == ("all",)
    assert config.aggregation.global_bank_size == 10000


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("preprocessing", {"mean": ["X", 0.5, 0.5], "std": [1.0, 1.0, 1.0]}),
        ("preprocessing", {"mean": [0.5, 0.5, 0.5], "std": [1.0, "X", 1.0]}),
        ("model", {"coreset_percentage": "X"}),
        ("inference", {"smoothing_sigma": "X"}),
        ("federated", {"alpha": "X"}),
        ("federated", {"qc_sample_ratio": "X"}),
        ("federated", {"coreset_percentage_by_client": {"client_0": "X"}}),
        ("upload", {"clip_norm": "X"}),
        ("upload", {"noise_sigma": "X"}),
        ("aggregation", {"oversample_factor": "X"}),
        ("evaluation", {"fpr_limits": ["X"]}),
        ("evaluation", {"defect_weights": {"dent": "X"}}),
        ("decision", {"target_false_alarm_rate": "X"}),
    ],
)
def test_a_number_that_is_not_finite_is_refused(section: str, values: dict[str, object], number: str) -> None:
    given = yaml.safe_load(yaml.safe_dump({section: values}).replace("X", f".{number}".replace(".-", "-.")))
    with pytest.raises(ValidationError, match=section):
        ExperimentConfig.model_validate(given)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_is_valid_yaml_for_its_model(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if "experiments:" not in text:
        ExperimentConfig.model_validate(yaml.safe_load(text))


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"modle": {}}, "modle"),
        ({"model": {"coreset_percentage": 0}}, "coreset_percentage"),
        ({"model": {"coreset_percentage": 1.5}}, "coreset_percentage"),
        ({"model": {"neighborhood_size": 2}}, "neighborhood_size"),
        ({"preprocessing": {"mean": [0.5, 0.5, 0.5]}}, "go together"),
        ({"preprocessing": {"small_size": [4, 400]}}, "32 to 8192"),
        ({"preprocessing": {"value_range": "full"}}, "'auto' or 'container'"),
        ({"preprocessing": {"value_range": 0}}, "greater than or equal to 1"),
        ({"preprocessing": {"value_range": 65536}}, "less than or equal to 65535"),
        ({"preprocessing": {"orientation": "ignored"}}, "'applied' or 'stored'"),
        ({"federated": {"partitioning": "category"}}, "client_assignments"),
        ({"federated": {"num_clients": 3, "min_clients": 4}}, "only 3 clients"),
        ({"inference": {"image_score": "reweighted"}}, "num_neighbors"),
        ({"aggregation": {"global_bank_size": "most"}}, "global_bank_size"),
        ({"evaluation": {"fpr_limits": [0.05, 1.5]}}, "fpr_limits"),
        ({"aggregation": {"regions": 0}}, "regions"),
        ({"aggregation": {"regions": {}}}, "regions"),
        ({"aggregation": {"regions": {"north": []}}}, "regions"),
        ({"aggregation": {"regions": {"north": ["a", "b"], "south": ["b"]}}}, "names b more than once"),
        ({"aggregation": {"regions": 5, "strategy": "simple_concatenate"}}, "reduced by k-center"),
        ({"aggregation": {"regions": 5, "strategy": "mine:select"}}, "which strategy: mine:select is not"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, object], part: str) -> None:
    with pytest.raises(ValidationError, match=part):
        ExperimentConfig.model_validate(values)


def test_keys_that_are_gone_are_dropped_at_what_is_still_done_and_refused_by_name_else() -> None:
    earlier = {
        "model": {"backbone": "wide_resnet50_2.v2"},
        "federated": {"turns": "parallel", "num_clients": 3},
        "aggregation": {"budget": "images", "oversample_factor": 2.0},
    }
    config = ExperimentConfig.model_validate(earlier)
    assert config.config_hashes()[2:] == (
        "9e1ac5ec1a15b5b4",
        "64c5754db7de5263",
        "3d5b337303f46887",
    )  # as versions with these keys had them
    assert not {"turns", "budget"} & {*config.federated.model_dump(), *config.aggregation.model_dump()}
    for section, key, value in (("federated", "turns", "relay"), ("aggregation", "budget", "coverage")):
        with pytest.raises(
            ValidationError, match=rf"{section}\.{key}: {value} is gone.*docs/federation\.md.*leave the"
        ):
            ExperimentConfig.model_validate({section: {key: value}})


def test_hash_covers_what_changes_results_and_nothing_else() -> None:
    base = ExperimentConfig()
    same = ExperimentConfig.model_validate({"name": "other", "dataset": {"root": "/x"}, "runtime": {"workers": 3}})
    other = ExperimentConfig.model_validate({"seed": 43})
    assert base.config_hash() == same.config_hash() != other.config_hash()
    earlier = ExperimentConfig.model_validate(AS_EARLIER)
    assert earlier.config_hash() == "e417b30b9a8e857e"  # a new key that is off leaves the hash of earlier runs alone
    assert earlier.config_hashes() == (earlier.config_hash(),)
    v2 = {"backbone": "wide_resnet50_2.v2"}
    picks = {"model": {"rows": "picks", **v2}, "decision": {"promise": "rate"}}
    picked = ExperimentConfig.model_validate(picks)
    unaligned = ExperimentConfig.model_validate({**picks, "model": AS_EARLIER["model"]})
    second = ExperimentConfig.model_validate({"model": v2})
    assert second.config_hashes() == tuple(
        one.config_hash() for one in (second, picked, unaligned, earlier)
    )  # what was written where nothing was said, the last version first
    assert len(set(second.config_hashes())) == 4
    assert unaligned.config_hash() == "82bcc2ceb1f764ab"
    assert not set(base.config_hashes()) & set(second.config_hashes())
    for written in ({"weights": "random"}, {"weights_path": "w.pth"}):  # which no name changes
        names = [{"backbone": f"wide_resnet50_2{version}", **written} for version in ("", ".v1", ".v2")]
        configs = [ExperimentConfig.model_validate({"model": one}) for one in names]
        assert {one.model.backbone for one in configs} == {"wide_resnet50_2"}
        assert len({one.config_hash() for one in configs}) == 1
    for section, changed in AS_EARLIER.items():
        for key, value in changed.items():
            half = ExperimentConfig.model_validate({section: {key: value}})
            assert half.config_hash() not in (base.config_hash(), earlier.config_hash())
    number = ExperimentConfig.model_validate({"preprocessing": {"value_range": 4095}})
    assert earlier.config_hash() not in number.config_hashes()
    one = ExperimentConfig.model_validate({"federated": {"min_clients": 1}, **AS_EARLIER})
    assert one.config_hash() == "009f0f6aebb0062a"  # of runs whose config.yaml holds what was the default
    every = ExperimentConfig.model_validate({"federated": {"min_clients": "all"}, **AS_EARLIER})
    none_said = ExperimentConfig.model_validate({"federated": {}, **AS_EARLIER})
    assert every.config_hash() == none_said.config_hash() != one.config_hash()
    assert every.config_hashes() == (every.config_hash(), one.config_hash())  # what earlier versions wrote for it
    assert one.config_hashes() == (one.config_hash(),)
    regions = ExperimentConfig.model_validate({"aggregation": {"regions": {"north": ["a"]}}})
    assert regions.config_hash() != base.config_hash()
    said = ExperimentConfig.model_validate({"model": {"rows": "picks", "lloyd_steps": 1}})
    means, steps = (
        ExperimentConfig.model_validate({"model": {"rows": "cell_means", "lloyd_steps": n}}) for n in (1, 2)
    )
    assert means.config_hash() == base.config_hash()
    assert len({base.config_hash(), said.config_hash(), steps.config_hash()}) == 3


def test_shards_are_hashed_where_there_are_some_and_are_of_kcenter_alone() -> None:
    base, none, some = (
        ExperimentConfig.model_validate({"model": m}) for m in ({}, {"shard_patches": None}, {"shard_patches": 5000})
    )
    assert base.config_hash() == none.config_hash() != some.config_hash()
    with pytest.raises(ValidationError, match=r"shard_patches is 5000, but subsampling: random takes no longer"):
        ExperimentConfig.model_validate({"model": {"subsampling": "random", "shard_patches": 5000}})


def test_steps_without_means_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"lloyd_steps is 3, but rows: picks takes no means; set rows to cell_me"):
        ExperimentConfig.model_validate({"model": {"rows": "picks", "lloyd_steps": 3}})


def test_the_share_of_the_highest_patches() -> None:
    base = ExperimentConfig()
    assert ExperimentConfig.model_validate({"inference": {"top_share": 0.01}}).config_hashes() == base.config_hashes()
    top = [
        ExperimentConfig.model_validate({"inference": {"image_score": "top_share", **share}})
        for share in ({}, {"top_share": 0.01}, {"top_share": 0.02})
    ]
    assert top[0].config_hash() == top[1].config_hash()
    assert len({one.config_hash() for one in (base, *top)}) == 3
    with pytest.raises(ValidationError, match=r"top_share is 0\.02, but image_score is max; set it to"):
        ExperimentConfig.model_validate({"inference": {"top_share": 0.02}})


def test_groups_and_what_goes_by_them() -> None:
    base = ExperimentConfig()
    said = {
        "dataset": {"group": None},
        "federated": {"mode": "centralized", "partition_groups": False},
        "decision": {"promise": "interpolated"},
    }
    assert ExperimentConfig.model_validate(said).config_hashes() == base.config_hashes()
    for changed in ({"dataset": {"group": "found"}}, {"decision": {"promise": "bound"}}):
        assert not set(ExperimentConfig.model_validate(changed).config_hashes()) & set(base.config_hashes())
    for rule in ("found", {"pattern": r"_(\d+)_"}, {"file": "groups.csv"}):
        whole = {"dataset": {"group": rule}, "federated": {"partition_groups": True}}
        assert ExperimentConfig.model_validate(whole).dataset.group == rule
    for wrong in ("part", {}, {"pattern": "a", "file": "b"}, {"regex": "a"}, {"pattern": "("}):
        with pytest.raises(ValidationError):
            ExperimentConfig.model_validate({"dataset": {"group": wrong}})
    with pytest.raises(ValidationError, match=r"partition_groups needs dataset\.group"):
        ExperimentConfig.model_validate({"federated": {"partition_groups": True}})


def test_how_images_are_read_is_not_hashed_and_hashes_from_when_it_was_still_match() -> None:
    base = ExperimentConfig.model_validate(AS_EARLIER)
    assert base.config_hashes() == ("e417b30b9a8e857e",)
    values = {"training": {"batch_size": 8, "num_workers": 0}, **AS_EARLIER}
    other = ExperimentConfig.model_validate(values)
    assert other.config_hashes() == (base.config_hash(), "ee85bbe3b332b346")  # as earlier versions wrote it


def test_a_clients_hash_is_that_of_earlier_versions() -> None:
    """Stations of an earlier version and of this one are in one run, and what was uploaded before is still accepted."""
    config = ExperimentConfig.model_validate({"model": {"rows": "picks"}})
    backbone = BackboneSettings(
        backbone="resnet18", layers=("layer2",), weights_source="package x", weights_sha256="0" * 64,
        weights_path=Path("/x"), seed=config.seed, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), neighborhood_size=3,
    )  # fmt: skip
    assert client_config_hashes(config, backbone) == ("3cd80879f63b7405",)
    assert client_config_hash(config, backbone) == "3cd80879f63b7405"
    of_another_seed = backbone.model_copy(update={"seed": 0})
    assert client_config_hashes(config, of_another_seed) == ("3cd80879f63b7405", "9215347beee9a9f7")
    changed: tuple[dict[str, object], ...] = ({"layers": ("a",)}, {"alignment": "centers"})
    others = [(config.model_copy(update={"seed": 7}), backbone)]
    others += [(config, backbone.model_copy(update=update)) for update in changed]
    others += [
        (config.model_copy(update={"model": config.model.model_copy(update=values)}), backbone)
        for values in ({"rows": "cell_means"}, {"rows": "cell_means", "lloyd_steps": 2}, {"shard_patches": 5000})
    ]
    assert len({client_config_hash(*one) for one in others} | {"3cd80879f63b7405"}) == 7


def test_a_client_sends_oversample_factor_times_its_quota_at_most_everything() -> None:
    config = ExperimentConfig.model_validate(
        {
            "model": {"coreset_percentage": 0.1},
            "federated": {"num_clients": 2, "coreset_percentage_by_client": {"client_1": 0.4}},
            "aggregation": {"oversample_factor": 3},
        }
    )
    assert CoresetSettings.of(config, "client_0").ratio == pytest.approx(0.3)
    assert CoresetSettings.of(config, "client_1").ratio == 1.0


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical_json({"b": 1, "a": [1, 2]}) == canonical_json({"a": [1, 2], "b": 1}) == '{"a":[1,2],"b":1}'


@pytest.mark.parametrize(
    ("threshold", "relative", "area", "expected"),
    [(0.5, True, 9, 4), (1, True, 9, 9), (120, False, 50, 50), (30, False, 50, 30), (0.01, True, 9, 1)],
)
def test_saturation_area(threshold: float, relative: bool, area: int, expected: int) -> None:
    entry = DefectEntry(defect_name="x", pixel_value=1, saturation_threshold=threshold, relative_saturation=relative)
    assert entry.saturation_area_px(area) == expected
