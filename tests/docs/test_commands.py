"""Every command of the docs is run: here from top to bottom on made-up images, or by the test that it names."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import itertools
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from cyclopts import CycloptsError

from benchmarks.__main__ import ROWS
from flows.cli import main
from flows.cli.options import app
from pipeline_lib.configuration.files import load_benchmark, load_config
from tests.conftest import ROOT
from tests.dataset_fixtures import write_tiny_autovi, write_tiny_folder
from tests.docs.documented_commands import ELSEWHERE, ENVIRONMENT, FENCED, INLINE, SESSION
from tests.docs.test_guide_map import names_in
from tests.flows.cli.test_cli_help import ALL

FEDPATCH = [command for command in dict.fromkeys([*FENCED, *INLINE]) if re.search(r"(^|\s)fedpatch ", command)]
PLACES = {
    "DIR": "images",
    "NEW_IMAGES": "images/cookie/test",
    "IMAGES...": "images/magnetic_tile/test/scratch",
    "IMAGES": "images/cookie/test",
    "CAMERA": "images/cookie/test",
    "RUN_DIR": "runs/federated",
    "CONFIG": "configs/real3_iid.yaml",
    "FILE": "configs/benchmark_quick.yaml",
}
LAPTOP = "--set model.backbone=efficientnet_lite0 --set model.layers=null --set model.coreset_percentage=0.01"
INSTEAD = {  # what is run for a command that cannot be run as it stands
    "make demo": "fedpatch demo --out demo",
    "fedpatch partition CONFIG --out DIR": "fedpatch partition CONFIG --out parts_of_clients",
    "fedpatch run configs/autovi_iid.yaml --set dataset.root=DIR": (
        f"fedpatch run configs/autovi_iid.yaml --set dataset.root=DIR {LAPTOP}"  # README's way without a download
    ),
}


def words_of(command: str) -> list[str]:
    """A fedpatch command's arguments, with places that are there instead of DIR and the like."""
    text = re.sub(r"^.*?fedpatch ", "", re.sub(r"\[(--[^\]]*)\]", r"\1", command))  # also what is optional
    words = [PLACES.get(word, word) for word in shlex.split(text)]
    return [re.sub(r"=(DIR)$", lambda found: "=" + PLACES[found[1]], word) for word in words]


def is_mention(command: str) -> bool:
    """Whether inline code only names a command, perhaps with options, to speak of it."""
    words = shlex.split(command)[1:]
    path = tuple(word for word in words if not word.startswith("-"))
    if path not in ALL:
        return False
    known = {name for argument in ALL[path].assemble_argument_collection() for name in argument.names}
    return all(word in known for word in words if word.startswith("-"))


def test_every_command_is_run_here_or_names_the_test_that_runs_it() -> None:
    new = [c for c in FENCED if c not in SESSION and c not in ELSEWHERE]
    new += [c for c in INLINE if c not in SESSION and c not in ELSEWHERE and not is_mention(c)]
    assert not new, f"run these in SESSION or say in ELSEWHERE what runs them (documented_commands.py): {new}"
    assert len(FENCED) >= 35


def test_no_listed_command_has_left_the_docs() -> None:
    assert not {*SESSION, *ELSEWHERE} - {*FENCED, *INLINE}
    assert not {*SESSION} & {*ELSEWHERE}
    assert {*INSTEAD} <= {*SESSION}


@pytest.mark.parametrize("place", sorted(set(ELSEWHERE.values())))
def test_what_runs_a_command_elsewhere_exists(place: str) -> None:
    path, _, dotted = place.partition("::")
    assert (ROOT / path).is_file()
    body = ast.parse((ROOT / path).read_text(encoding="utf-8")).body if dotted else []
    for name in dotted.split(".") if dotted else ():
        assert name in names_in(body), place
        body = names_in(body)[name]


@pytest.mark.parametrize("command", FEDPATCH)
def test_the_command_line_takes_it_and_the_configuration_has_its_keys(command: str) -> None:
    if command in INLINE and is_mention(command):
        return
    words = words_of(command)
    try:
        app.parse_args(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        pytest.fail(f"{command}: {error}")
    overrides = [word for before, word in itertools.pairwise(words) if before == "--set"]
    for file in [ROOT / word for word in words if word.startswith("configs/")]:
        load = load_benchmark if words[0] == "benchmark" else load_config
        assert load(file, overrides)


def test_make_has_the_targets_and_does_what_the_session_runs_instead() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in [*FENCED, *INLINE]:
        if found := re.search(r"(?:^|\s)make ([a-z-]+)", command):
            assert re.search(rf"^{found[1]}:.*## ", makefile, re.MULTILINE), command
    assert "$(BIN)/fedpatch demo --out $(DEMO)" in makefile
    assert re.search(r"^DEMO \?= demo$", makefile, re.MULTILINE)
    assert "sh scripts/serve.sh" in makefile
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for target in ("install", "test", "test-slow"):
        assert re.search(rf"^step .* make .*{target}$", ci, re.MULTILINE), target
    assert "left out: tests marked exhaustive (make test-all)" in ci


@pytest.mark.parametrize("command", [c for c in [*FENCED, *INLINE] if c.startswith(("python -m", "pytest"))])
def test_modules_and_paths_are_there(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "python":
        assert importlib.util.find_spec(words[2]), command
    assert all((ROOT / word).exists() for word in words if word.startswith("tests/"))
    if "--only" in words:
        assert words[-1] in ROWS


def test_the_deployments_are_those_of_prefect_yaml() -> None:
    text = (ROOT / "prefect.yaml").read_text(encoding="utf-8")
    runs = [c for c in [*FENCED, *INLINE] if c.startswith("prefect deployment run ")]
    assert runs
    for command in runs:
        flow, _, name = shlex.split(command)[3].partition("/")
        assert f"- name: {name}\n" in text, command
        assert re.search(rf"entrypoint: \S+\.{flow.replace('-', '_')}$", text, re.MULTILINE), command


@pytest.mark.parametrize("name", [name for name in ENVIRONMENT if name.startswith("FEDPATCH_")])
def test_variables_of_the_environment_are_read_somewhere(name: str) -> None:
    read = [p for folder in ("flows", "tasks", "pipeline_lib", "scripts", "tests", "benchmarks", "data_contracts")
            for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".sh") and p.parent.name != "docs"]  # fmt: skip
    assert any(name in path.read_text(encoding="utf-8") for path in read), name


@pytest.mark.parametrize("module", ["__main__", "recovery", "scale", "engines", "overhead"])
def test_what_measures_takes_the_arguments_of_the_docs(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They measure for minutes, on machines of their own; that they start is what can be held here."""
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit, match="0"):
        importlib.import_module(f"benchmarks.{module}").main()
    shown = capsys.readouterr().out
    assert "usage: " in shown
    if module == "__main__":
        assert all(row in shown for row in ROWS)
        assert "--quick" in shown


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands are run: configurations, two categories of tiny images, folders and annotations to import.

    The configurations are those of the repository with a quarter of the pixels.
    """
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for file in (tmp_path / "configs").iterdir():
        text = file.read_text(encoding="utf-8")
        file.write_text(
            re.sub(r"\[(\d{3,}), (\d{3,})\]", lambda size: f"[{int(size[1]) // 2}, {int(size[2]) // 2}]", text)
        )
    write_tiny_autovi(tmp_path / "images", categories=("cookie", "magnetic_tile"), train=10, good=4, defective=2)
    write_tiny_folder(tmp_path / "parts" / "bracket")
    write_tiny_folder(tmp_path / "screws")
    (tmp_path / "screws" / "good").rename(tmp_path / "ok")
    (tmp_path / "screws" / "defective").rename(tmp_path / "nok")
    outline = {"category_id": 1, "bbox": [4, 4, 20, 10], "segmentation": [[4, 4, 24, 4, 24, 14]]}
    (tmp_path / "coco.json").write_text(json.dumps({
        "images": [{"id": n, "file_name": f"img{n}.png", "width": 64, "height": 48} for n in (1, 2, 3)],
        "annotations": [{"image_id": n, **outline} for n in (1, 2, 3)],
        "categories": [{"id": 1, "name": "pitting"}],
    }))  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDPATCH_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("FEDPATCH_DATASET", str(tmp_path / "images"))
    monkeypatch.delenv("FEDPATCH_MODELS", raising=False)
    return tmp_path


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_the_commands_of_the_docs_in_one_session(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for listed in SESSION:
        command, status = INSTEAD.get(listed, listed), 0
        try:
            main(words_of(command))
        except SystemExit as stop:
            status = stop.code or 0  # type: ignore[assignment]
        shown = capsys.readouterr()
        assert status == 0, f"{command}: {status}\n{shown.out[-2000:]}\n{shown.err[-2000:]}"
        assert shown.out or "--out" in command, f"{command} prints nothing"
    for made in (
        "made.jpg", "preview.png", "scored/decisions.csv", "scored/index.html", "scored/pictures", "models/current",
        "demo/federated", "runs/compared/comparison.json", "runs/ballscrew/report.html",
        "parts_of_clients/partition.parquet",
    ):  # fmt: skip
        assert (directory / made).exists(), made
    assert list((directory / "scored").rglob("*.explained.png"))
