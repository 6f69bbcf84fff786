"""docs/extending.md: every example is short, is run, and is then used in a federation on made-up images."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from data_contracts.config import ExperimentConfig
from data_contracts.errors import ConfigError, WeightsError
from flows.cli import main
from flows.cli.experiment.experiments import run_and_describe
from pipeline_lib.configuration.files import parse_config
from pipeline_lib.dataset.autovi_dataset import AutoVIDataset
from pipeline_lib.extensions import checked_indices, checked_shards, load_extension
from pipeline_lib.features.extractor import FeatureExtractor
from pipeline_lib.inspection.run_model import open_run_model
from pipeline_lib.models.federated_patchcore import FederatedPatchCore
from pipeline_lib.planning.experiment import list_images, plan_experiment
from pipeline_lib.planning.extension_trial import try_extensions
from tests.conftest import ROOT, experiment_values
from tests.docs.documented_commands import documented

TEXT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
EXAMPLES = {
    re.match(r"# (\w+)\.py\n", code)[1]: code  # type: ignore[index]
    for code in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
}
NAMES = {
    "model.backbone": "own_backbone:edges",
    "federated.partitioning": "own_partitioner:every_nth",
    "aggregation.strategy": "own_strategy:in_turn",
}


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's examples as modules on the path."""
    directory = tmp_path / "my_modules"
    directory.mkdir()
    for name, code in EXAMPLES.items():
        (directory / f"{name}.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(directory)
    yield directory
    for name in EXAMPLES:
        sys.modules.pop(name, None)


def values(tiny_root: Path, store: Path, *, run: str = "run", **sections: Any) -> ExperimentConfig:
    return ExperimentConfig.model_validate(experiment_values(tiny_root, store, store.parent / run, **sections))


def test_the_page_has_an_example_of_each_and_all_are_short() -> None:
    assert set(EXAMPLES) == {name.partition(":")[0] for name in NAMES.values()}
    for name, code in EXAMPLES.items():
        assert len(code.strip().splitlines()) < 30, name
    for key, value in NAMES.items():
        assert f"`{key}: {value}`" in TEXT or f"`{key}`: {value}" in TEXT, key


@pytest.mark.usefixtures("prefect_server", "modules")
def test_a_federation_runs_on_all_three_and_scores_new_images(tiny_root: Path, tmp_path: Path) -> None:
    config = values(
        tiny_root,
        tmp_path / "store",
        model={"backbone": NAMES["model.backbone"]},
        federated={"partitioning": NAMES["federated.partitioning"]},
        aggregation={"strategy": NAMES["aggregation.strategy"], "oversample_factor": 2},
    )
    plan = plan_experiment(config, tiny_root)
    outcome = run_and_describe(config, quiet=True)
    pipe_clip = outcome.metrics.categories["pipe_clip"]
    assert pipe_clip.image_auroc == 1.0  # black rectangles on smooth grey have edges
    assert outcome.metrics.federation.banks_without_choice == []
    directory = Path(outcome.result.run_directory)
    partition = pd.read_parquet(directory / "partition.parquet")
    assert list(partition["client_id"]) == [f"client_{n % 3}" for n in range(18)]
    with np.load(directory / "banks" / "pipe_clip.npz") as bank:
        assert bank["features"].shape == (plan.bank_rows["pipe_clip"], 8)
        counts = np.bincount(bank["row_client"])
    assert np.ptp(counts) <= 1
    assert len(counts) == 3
    defective = tiny_root / "pipe_clip" / "test" / "missing" / "0000.png"
    with Image.open(defective) as image:
        prediction = open_run_model(directory).patchcore("pipe_clip").predict(image)
    assert prediction.scores[0] > 0


def banks_of(tiny_root: Path, extractor: FeatureExtractor, *overrides: str) -> np.ndarray:
    """The bank of the library form's federation with these settings, which is that of a run."""
    config = parse_config(experiment_values(tiny_root, Path("-"), Path("-")), overrides)
    federation = FederatedPatchCore(config, extractor=extractor)
    federation.setup_clients(AutoVIDataset(tiny_root, ["pipe_clip"]))
    federation.train()
    return federation.server.banks["pipe_clip"].rows


@pytest.mark.usefixtures("modules")
def test_the_documented_command_gives_another_bank_than_the_default(tiny_root: Path) -> None:
    (command,) = [line for line in documented(TEXT)[0] if "own_strategy" in line]
    strategy, oversample = re.findall(r"--set (aggregation\S+)", command)
    extractor = FeatureExtractor("efficientnet_lite0")
    own, usual = (banks_of(tiny_root, extractor, *s) for s in ([strategy, oversample], [oversample]))
    assert own.shape == usual.shape
    assert not np.array_equal(own, usual)


@pytest.mark.usefixtures("prefect_server", "modules")
@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(
    ("key", "name", "said"),
    [
        ("aggregation.strategy", "no_such_module:nothing", "cannot import no_such_module"),
        ("federated.partitioning", "own_strategy:in_turn", "is no partitioner"),
    ],
)
def test_a_wrong_name_is_refused_before_anything_is_made(
    command: str, key: str, name: str, said: str, tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(experiment_values(tiny_root, tmp_path / "store", tmp_path / "out")))
    with pytest.raises(SystemExit) as stop:
        main([command, str(config), "--set", f"{key}={name}"])
    assert stop.value.code == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith(f"fedpatch: {key}: ")
    assert said in line
    assert not (tmp_path / "store").exists()


def test_a_function_that_fails_or_gives_what_cannot_be_used_is_named(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_faults.py").write_text(
        "import torch\n"
        "from pipeline_lib.extensions import aggregation_strategy, backbone, partitioner\n"
        "@aggregation_strategy\ndef breaks(rows, row_client, target, *, rng): return rows['none']\n"
        "@aggregation_strategy\ndef too_many(rows, row_client, target, *, rng): return range(len(rows))\n"
        "@partitioner\ndef forgets(image_ids, categories, federated, *, rng): return {'client_0': [0]}\n"
        "@backbone(layers=('0',), mean=(0, 0, 0), std=(1, 1, 1))\n"
        "def grey(): return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    index = list_images(values(tiny_root, tmp_path), tiny_root)
    for section, key, name, said in (
        ("aggregation", "strategy", "breaks", "failed when it was tried: IndexError"),
        ("aggregation", "strategy", "too_many", "has to return 1 to 12 different indices"),
        ("federated", "partitioning", "forgets", "has to give each of the 18 images to one client"),
        ("model", "backbone", "grey", "failed when it was tried: RuntimeError"),
    ):
        config = values(tiny_root, tmp_path, **{section: {key: f"own_faults:{name}"}})
        with pytest.raises(ConfigError, match=rf"^{section}\.{key}: .*own_faults:{name} {said}"):
            try_extensions(config, index=index)
    sys.modules.pop("own_faults")


@pytest.mark.usefixtures("prefect_server")
def test_a_changed_strategy_is_run_again(modules: Path, tiny_root: Path, tmp_path: Path, store: Path) -> None:
    sections = {"aggregation": {"strategy": NAMES["aggregation.strategy"], "oversample_factor": 2}}

    def bank(run: str) -> np.ndarray:
        run_and_describe(values(tiny_root, store, run=run, **sections), quiet=True)
        with np.load(tmp_path / run / "banks" / "pipe_clip.npz") as stored:
            return stored["features"]

    first = bank("first")
    path = modules / "own_strategy.py"
    path.write_text(path.read_text().replace("[:target]", "[-target:]"))
    sys.modules.pop("own_strategy")
    assert first.shape == (second := bank("second")).shape
    assert not np.array_equal(first, second)


def test_a_model_refuses_a_backbone_that_has_changed(modules: Path, tiny_root: Path, tmp_path: Path) -> None:
    from pipeline_lib.models.saved_model import load_extractor

    settings = FeatureExtractor(NAMES["model.backbone"]).settings
    load_extractor(settings)
    path = modules / "own_backbone.py"
    path.write_text(path.read_text().replace("/ 9.0", "/ 8.0"))
    sys.modules.pop("own_backbone")
    with pytest.raises(WeightsError, match="another state of own_backbone:edges"):
        load_extractor(settings)


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:edges", "cannot import no_such_module.*PYTHONPATH"),
        ("os:system", "'os:system' is no aggregation_strategy; os needs a function system with @"),
        ("own_backbone:edges", "is no aggregation_strategy"),
        ("own_strategy:other", "own_strategy needs a function other"),
    ],
)
def test_what_is_not_marked_for_its_key_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"aggregation\.strategy: .*{message}"):
        load_extension(name, "aggregation_strategy", key="aggregation.strategy")


@pytest.mark.parametrize("indices", [[0, 0], [3], [-1], [0, 1, 2], [], [0.0], [[0]]])
def test_indices_that_cannot_be_are_refused(indices: list[object]) -> None:
    with pytest.raises(ConfigError, match="own:mine has to return 1 to 2 different indices into 3 rows"):
        checked_indices("own:mine", np.array(indices), n_rows=3, target=2)
    assert checked_indices("own:mine", np.array([2, 0], dtype=np.int32), n_rows=3, target=2).dtype == np.int64


def test_a_partition_that_leaves_out_or_doubles_an_image_is_refused() -> None:
    for shards in ({"a": [0, 1]}, {"a": [0, 1, 2], "b": [2]}, {"a": [0, 1, 3]}):
        with pytest.raises(ConfigError, match="each of the 3 images to one client"):
            checked_shards("own:mine", shards, ("a", "b"), 3)
    with pytest.raises(ConfigError, match="gives images to c, which is no client"):
        checked_shards("own:mine", {"c": [0, 1, 2]}, ("a", "b"), 3)
    assert checked_shards("own:mine", {"a": [2, 0, 1]}, ("a", "b"), 3) == {"a": [0, 1, 2], "b": []}


def test_a_misspelt_strategy_is_told_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"'federated_coreset'.* or module:function of your own"):
        parse_config({"aggregation": {"strategy": "federated_corset"}})
