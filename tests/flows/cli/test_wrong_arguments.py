"""A wrong argument is named at once: before torch and Prefect are imported, which takes long on a slow machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.flows.cli.test_cli_help import ALL

NOWHERE = "/dev/null/made"  # nor can root make it
DEMO, QUICK = "configs/demo.yaml", "configs/benchmark_quick.yaml"
SLOW = ("torch", "timm", "torchvision", "prefect", "faiss", "sklearn")
HERE = ("--set", "dataset.root=HERE")

CASES = [
    ("run nothing.yaml", "cannot read the configuration nothing.yaml"),
    (f"run {DEMO} --set modle=1", "unknown key 'modle'"),
    (f"run {DEMO}", "dataset.root: not given"),
    (f"run {DEMO} --set dataset.root=gone", "data set root gone does not exist"),
    (f"run {DEMO} --set dataset.root=HERE --set dataset.categories=[gone]", "no category gone in"),
    (f"run {DEMO} --set dataset.root=HERE --set model.weights_path=gone", "model.weights_path: there is no file gone"),
    (f"run {DEMO} --set dataset.root=HERE --set runtime.store={NOWHERE}", "runtime.store (FEDPATCH_STORE)"),
    (
        f"run {DEMO} --set dataset.root=HERE --set federated.partitioning=saved --set federated.partition_path=gone",
        "cannot read a partition in gone",
    ),
    (f"run {DEMO} --set dataset.root=HERE --out {NOWHERE}", "--out: "),
    ("plan nothing.yaml", "cannot read the configuration nothing.yaml"),
    (f"run {DEMO} --set seeds=[1,2]", "several are a benchmark's: fedpatch benchmark FILE --seeds 42,43,44, or seeds:"),
    (f"benchmark {QUICK} --set seeds=[1,2]", "base.seeds: an experiment has one seed; several are a benchmark's"),
    (f"benchmark {QUICK} --seeds 1,x", "seeds.1: got 'x', accepts a whole number"),
    (f"plan {DEMO} --set modle=1", "unknown key 'modle'"),
    (f"plan {DEMO} --set dataset.root=gone", "data set root gone does not exist"),
    (f"plan {QUICK} --set dataset.root=gone", "data set root gone does not exist"),
    (f"demo --out {NOWHERE}", "--out: "),
    ("benchmark nothing.yaml", "cannot read the configuration nothing.yaml"),
    (f"benchmark {QUICK} --set modle=1", "unknown key 'modle'"),
    (f"benchmark {QUICK} --set dataset.root=gone", "data set root gone does not exist"),
    (f"benchmark {QUICK} --set dataset.root=HERE --out {NOWHERE}", "--out: "),
    (f"benchmark {QUICK} --compare-only", "say with --out where they are"),
    (f"benchmark {QUICK} --compare-only --out gone", "there is no directory gone"),
    ("show gone", "gone is not the directory of a finished run"),
    ("evaluate --dataset-root gone --maps HERE --out o", "data set root gone does not exist"),
    ("evaluate --dataset-root HERE --maps gone --out o", "there is no directory of maps gone"),
    ("evaluate --dataset-root HERE --maps HERE --out o --set modle=1", "unknown key 'modle'"),
    (f"evaluate --dataset-root HERE --maps HERE --out {NOWHERE}", "--out: "),
    ("score gone HERE", "gone holds no trained model"),
    (
        "score models/current HERE",
        "models/current: no model is in use yet; fedpatch model promote RUN_DIR puts a finish",
    ),
    ("score MODEL gone", "there is no file or directory gone"),
    ("score MODEL HERE --explain", "say where they go with --out"),
    ("score MODEL HERE HERE --watch", "--watch takes one directory"),
    (f"score MODEL HERE --out {NOWHERE}", "--out: "),
    ("partition nothing.yaml --out o", "cannot read the configuration nothing.yaml"),
    (f"partition {DEMO} --out o --set dataset.root=gone", "data set root gone does not exist"),
    (f"partition {DEMO} --out {NOWHERE} --set dataset.root=HERE", "--out: "),
    ("init gone", "data set root gone does not exist"),
    ("init HERE --out FILE", "is there already"),
    (f"dataset acquire --out {NOWHERE}", "--out: "),
    ("dataset acquire --out o --category gone", "AutoVI has no category gone"),
    ("dataset import --good gone --category c --out o", "there is no directory gone"),
    ("dataset import --good HERE --defective HERE --annotations gone --category c --out o", "no annotations at gone"),
    (f"dataset import --good HERE --category c --out {NOWHERE}", "--out: "),
    ("dataset validate gone", "data set root gone does not exist"),
    ("dataset validate HERE --layout flat", "dataset.layout: got 'flat', accepts 'auto'"),
    ("dataset validate nothing.yaml", "cannot read the configuration nothing.yaml"),
    (f"dataset validate {DEMO} --set dataset.root=gone", "data set root gone does not exist"),
    ("dataset stats gone", "data set root gone does not exist"),
    ("dataset stats gone --normalization", "data set root gone does not exist"),
    ("dataset preview gone --out o.png", "data set root gone does not exist"),
    ("dataset preview HERE --out o.gone", "--out: o.gone is no picture; its name ends with .png or .jpg or .jpeg"),
    (f"dataset preview HERE --out {NOWHERE}/o.png", "--out: "),
    (f"dataset synthesize --out {NOWHERE}", "--out: "),
    ("dataset synthesize --out o --category gone", "categories is ['gone']"),
    ("model compare gone gone", "there is no model gone"),
    ("model promote gone --models o", "gone holds no trained model"),
    ("model rollback --models gone", "gone has no earlier model to go back to"),
    ("store status --store gone", "there is no directory gone"),
    ("store prune --store gone", "there is no directory gone"),
    ("exchange show gone", "there is no directory"),
    ("exchange prune gone", "there is no directory"),
    ("exchange prune", "FEDPATCH_EXCHANGE is not set"),
]
NOTHING_TO_BE_WRONG = {("doctor",), ("config-reference",), ("model", "list")}

CALLS = """
import contextlib, io, json, os, sys
from flows.cli import main
cases, slow, found = json.loads(sys.argv[1]), sys.argv[2:], {}
for case, words in cases.items():
    before, said = {*sys.modules}, io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            main(words)
        except SystemExit as stop:
            status = stop.code
        except BaseException as error:
            status = repr(error)
    imported = sorted({*slow} & {*sys.modules} - before)
    found[case] = {"status": status, "said": said.getvalue().replace(os.getcwd() + "/", ""), "imported": imported}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """case -> exit status, what was said, and which of the slow packages it imported; all in one fresh process."""
    place = tmp_path_factory.mktemp("wrong")
    for folder in ("train/good", "test/good"):
        (place / "data" / "part" / folder).mkdir(parents=True)
    (place / "model").mkdir()
    (place / "model" / "model.json").write_text(json.dumps({"schema_version": 1}))
    (place / "mine.yaml").touch()
    (place / "configs").symlink_to(ROOT / "configs")
    names = {"HERE": "data", "MODEL": "model", "FILE": "mine.yaml"}

    def words(case: str) -> list[str]:
        for name, path in names.items():
            case = case.replace(name, str(place / path))
        return case.split()

    environment = {
        name: value for name, value in os.environ.items() if name not in ("FEDPATCH_DATASET", "FEDPATCH_EXCHANGE")
    } | {"PYTHONPATH": str(ROOT), "HOME": str(place)}
    cases = json.dumps({case: words(case) for case, _ in CASES})
    command = [sys.executable, "-c", CALLS, cases, *SLOW]
    done = subprocess.run(command, capture_output=True, text=True, cwd=place, env=environment, timeout=300, check=True)
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize(("case", "message"), CASES, ids=[case for case, _ in CASES])
def test_it_is_named_before_anything_slow_is_imported(case: str, message: str, answers: dict[str, Any]) -> None:
    found = answers[case]
    *before, line = found["said"].splitlines()
    assert (found["status"], found["imported"]) == (1, []), found["said"]
    assert line.startswith("fedpatch: ")
    assert message in line
    assert all(other.startswith("layout ") for other in before), before


def test_every_command_that_takes_a_path_is_tried() -> None:
    tried = {command for command in ALL for case, _ in CASES if case.split()[: len(command)] == list(command)}
    assert {*ALL} - tried == NOTHING_TO_BE_WRONG
