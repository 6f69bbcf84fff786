"""The shell commands of README.md, CONTRIBUTING.md and docs/, and where each of them is run.

A command is either part of SESSION, which tests/docs/test_commands.py runs from top to bottom in one directory, or
stands in ELSEWHERE with the test (or script) that runs it. Commands are written as in the docs, without comments.
"""

from __future__ import annotations

import re

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]
COMMAND = re.compile(r"^(?:\w+=\S+ )*(?:\.venv/bin/)?(?:fedpatch|make|prefect|python|pytest)\b")
SHELL = ("", "sh", "bash", "console")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def documented(text: str) -> tuple[list[str], list[str]]:
    """The commands of a page: of its fenced blocks, and of its inline code (more than one word)."""
    blocks = [body for language, body in FENCE.findall(text) if language in SHELL]
    lines = [line for body in blocks for line in body.replace("\\\n", " ").splitlines()]
    inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", FENCE.sub("", text))]
    quoted = [part for code in inline if " " in code for part in code.split(" && ")]
    return [*_commands(lines)], [*_commands(quoted)]


def _commands(lines: list[str]) -> list[str]:
    plain = (" ".join(re.sub(r"\s#.*", "", line).split()) for line in lines)
    return [line for line in plain if COMMAND.match(line)]


FENCED, INLINE = (
    list(dict.fromkeys(command for page in PAGES for command in documented(page.read_text(encoding="utf-8"))[kind]))
    for kind in (0, 1)
)
ENVIRONMENT = sorted(
    {name for page in PAGES for name in re.findall(r"\b(?:FEDPATCH|PREFECT)_[A-Z_]+[A-Z]\b", page.read_text())}
)

SESSION = (
    "fedpatch --help",
    "fedpatch config-reference",
    "make demo",
    "fedpatch dataset synthesize --out made --scale 0.5 --images 24",
    "fedpatch dataset preview made --out made.jpg",
    "fedpatch init DIR",
    "fedpatch dataset validate DIR",
    "fedpatch dataset validate own.yaml",
    "fedpatch dataset validate own.yaml --set dataset.root=DIR",
    "fedpatch plan CONFIG",
    "fedpatch plan configs/demo.yaml --set model.coreset_percentage=0.05",
    "fedpatch plan own.yaml",
    "fedpatch partition CONFIG --out DIR",
    "fedpatch run own.yaml --out runs/first",
    "fedpatch run own.yaml --set federated.mode=federated --out runs/federated",
    "fedpatch show runs/first",
    "fedpatch benchmark own.yaml --out runs/compared",
    "fedpatch run configs/real3_iid.yaml --set dataset.root=DIR --set federated.num_rounds=2",
    "fedpatch run configs/autovi_iid.yaml --set dataset.root=DIR",
    "fedpatch show runs/first runs/federated",
    "fedpatch score runs/first NEW_IMAGES --out scored --explain",
    "fedpatch score RUN_DIR IMAGES --out scored --explain",
    "fedpatch model promote runs/first",
    "fedpatch model promote RUN_DIR",
    "fedpatch model list",
    "fedpatch run own.yaml --out runs/new",
    "fedpatch show runs/first runs/new",
    "fedpatch model compare current runs/new",
    "fedpatch score models/current IMAGES...",
    "fedpatch score runs/first IMAGES --out scored_at_0.01 --explain --false-alarm-rate 0.01",
    "fedpatch score runs/first IMAGES --out scored_at_0.2 --explain --false-alarm-rate 0.2",
    "fedpatch score runs/new IMAGES --out scored_again --explain",
    "fedpatch model promote runs/new",
    "fedpatch model rollback",
    "fedpatch benchmark configs/benchmark_quick.yaml --set dataset.root=DIR",
    "fedpatch benchmark configs/benchmark_quick.yaml --set dataset.max_images=24",
    "fedpatch benchmark FILE",
    "fedpatch dataset validate parts",
    "fedpatch run configs/demo.yaml --set dataset.root=parts --out runs/bracket",
    "fedpatch dataset import --good ok --defective nok --annotations coco.json --category ballscrew --out data",
    "fedpatch dataset validate data",
    "fedpatch dataset preview data --out preview.png",
    "fedpatch dataset stats data --normalization",
    "fedpatch run configs/demo.yaml --set dataset.root=data "
    "--set preprocessing.size_by_category.ballscrew='[624,256]' --out runs/ballscrew",
    "fedpatch store status",
    "fedpatch store prune --keep-days 30 --max-gb 50 --dry-run",
)

SERVED = "tests/e2e/prefect_stack.py::ServedStack.start"
STACK = "tests/e2e/prefect_stack.py::Stack.start"
STATION = "tests/e2e/station_users.py::Plant.start"
TWO = "tests/e2e/test_two_stations.py::test_the_blocks_of_the_page_end_with_new_photographs_scored"
BENCHMARKS = "tests/docs/test_commands.py::test_what_measures_takes_the_arguments_of_the_docs"
GPU = "tests/benchmarks/test_gpu_check.py::test_full_sizes_are_refused_without_a_gpu"
CI = ".ci/run"

ELSEWHERE = {
    "make install": CI,
    "make test": CI,
    "make test-slow": CI,
    "make test-all": "Makefile",
    "pytest -n 3 --dist loadgroup": "Makefile",
    "make serve": SERVED,
    "FEDPATCH_DATASET=/data/autovi make serve": SERVED,
    "make bench": BENCHMARKS,
    "FEDPATCH_REAL_DATA=DIR make bench": BENCHMARKS,
    "fedpatch doctor": "tests/pipeline_lib/planning/test_doctor.py::test_the_command_prints_all_checks",
    "fedpatch doctor --station station-a": (
        "tests/flows/cli/test_station_doctor.py::test_a_sound_station_has_no_problem_and_leaves_nothing_behind"
    ),
    "fedpatch dataset acquire --out DIR": (
        "tests/pipeline_lib/dataset/test_acquisition.py::test_the_command_states_the_licence"
    ),
    "fedpatch score runs/first CAMERA --watch --json": (
        "tests/pipeline_lib/inspection/test_decisions.py::test_a_watched_folder_is_scored_as_it_fills"
    ),
    "fedpatch score RUN_DIR IMAGES... [--category C] [--out DIR] [--explain] [--watch] [--json]": (
        "tests/pipeline_lib/inspection/test_decisions.py::test_a_watched_folder_is_scored_as_it_fills"
    ),
    "PYTHONPATH=my_modules fedpatch run configs/demo.yaml --set dataset.root=DIR "
    "--set aggregation.strategy=own_strategy:in_turn --set aggregation.oversample_factor=2": (
        "tests/docs/test_extending.py::test_the_documented_command_gives_another_bank_than_the_default"
    ),
    "prefect server start --host 127.0.0.1": STACK,
    "prefect work-pool create local --type process --overwrite": STACK,
    "prefect work-pool create stations --type process --overwrite": STACK,
    "prefect deploy --all --no-prompt": STACK,
    "python -m flows.automations": STACK,
    "python -m flows.automations --webhook https://hooks.example.org/fedpatch --test": (
        "tests/e2e/test_webhook.py::test_what_goes_wrong_is_posted_to_the_webhook"
    ),
    "fedpatch evaluate --dataset-root DIR --maps maps --out measured --stretch-maps": (
        "tests/pipeline_lib/metrics/test_evaluation.py::test_squeezed_maps_are_stretched_where_that_is_asked_for"
    ),
    "fedpatch show runs/first measured": "tests/flows/cli/test_show.py::test_measured_maps_go_by_their_directory",
    "python -m flows.automations --test": (
        "tests/e2e/test_one_server.py::test_the_documented_server_runs_the_nightly_benchmark"
    ),
    "prefect flow-run retry ID": "tests/e2e/test_one_server.py::test_the_documented_server_runs_the_nightly_benchmark",
    "prefect worker start --pool local": "tests/e2e/prefect_stack.py::Stack.start_worker",
    "prefect worker start --pool stations --work-queue station-a": STATION,
    "prefect worker start --pool stations --work-queue station-b": TWO,
    "fedpatch dataset import --good PHOTOS_A --category part --out $FEDPATCH_DATASET": TWO,
    "fedpatch dataset import --good PHOTOS_B --category part --out $FEDPATCH_DATASET": TWO,
    "fedpatch init $FEDPATCH_DATASET --out ~/stations/own.yaml": TWO,
    "fedpatch doctor --station station-b": TWO,
    'fedpatch model promote "$(ls -d runs/two_stations-* | tail -1)"': TWO,
    "fedpatch score models/current NEW_PHOTOS --out scored": TWO,
    "prefect deployment run 'federated-experiment/on-demand' ...": (
        "tests/e2e/test_three_uses.py::test_by_name_results_come_back_and_bad_parameters_are_refused"
    ),
    "prefect deployment run 'federated-experiment/on-demand' --param "
    '\'config={"dataset": {"root": "/data/autovi"}, "model": {"backbone": "efficientnet_lite0", "coreset_percentage": '
    '0.01}, "federated": {"num_clients": 3}}\' --watch': (
        "tests/e2e/test_three_uses.py::test_by_name_results_come_back_and_bad_parameters_are_refused"
    ),
    "prefect deployment run station-coordinator/on-demand "
    '--param \'stations=["station-a", "station-b", "station-c"]\' --param deadline_s=3600 '
    '--param \'config={"model": {"backbone": "efficientnet_lite0", "coreset_percentage": 0.01}, '
    '"federated": {"min_clients": 2}}\'': (
        "tests/e2e/test_stations.py::test_the_whole_story_of_three_stations"
    ),
    'prefect deployment run station-coordinator/on-demand --param \'stations=["station-a", "station-b"]\' '
    '--param "config=$config" --watch': TWO,
    "fedpatch exchange show ~/stations/exchange --station station-a": (
        "tests/pipeline_lib/stations/test_exchange.py::test_what_each_station_sent_is_shown_with_bytes_and_when"
    ),
    "fedpatch exchange prune /mnt/fedpatch --keep-days 30 --dry-run": (
        "tests/pipeline_lib/stations/test_exchange.py::test_the_command_names_what_goes_and_says_when_something_stays"
    ),
    "prefect deployment run store-prune/weekly --param shared_days=30": (
        "tests/flows/test_stations.py::check_what_is_shared"
    ),
    "FEDPATCH_SCREENSHOTS=docs/images pytest -m e2e tests/e2e": CI,
    "pytest -m slow tests/pipeline_lib/metrics/test_spro.py": CI,
    "pytest -m slow -s tests/pipeline_lib/benchmark/test_rejection.py": CI,
    "pytest -m slow -s tests/pipeline_lib/metrics/test_auroc_interval.py": CI,
    "fedpatch benchmark configs/benchmark_coverage.yaml --set dataset.root=DIR --out runs/coverage": (
        "tests/benchmarks/test_coverage_relation.py::test_the_benchmark_of_coverage_measures_it_in_every_run"
    ),
    "python -m benchmarks.coverage_relation runs/coverage": (
        "tests/benchmarks/test_coverage_relation.py::test_banks_that_lie_nearer_and_score_higher_are_at_minus_1"
    ),
    "fedpatch benchmark configs/benchmark_seeds.yaml --set dataset.root=DIR --set dataset.group.file=GROUPS "
    "--out runs/seeds": "tests/flows/test_benchmark.py::test_the_benchmarks_of_three_seeds_name_what_they_compare",
    "fedpatch benchmark configs/benchmark_rows.yaml --set dataset.root=DIR --set dataset.group.file=GROUPS "
    "--out runs/rows": "tests/flows/test_benchmark.py::test_the_benchmarks_of_three_seeds_name_what_they_compare",
    "fedpatch benchmark configs/benchmark_made_up.yaml --set dataset.root=DIR --out runs/made_up": (
        "tests/flows/test_benchmark.py::test_the_benchmarks_of_three_seeds_name_what_they_compare"
    ),
    "fedpatch benchmark configs/benchmark_made_up.yaml --set dataset.root=MADE --out runs/made_up": (
        "tests/flows/test_benchmark.py::test_the_benchmarks_of_three_seeds_name_what_they_compare"
    ),
    "fedpatch benchmark configs/benchmark_upload.yaml --set dataset.root=MADE --out runs/upload": (
        "tests/flows/test_benchmark.py::test_the_benchmarks_of_three_seeds_name_what_they_compare"
    ),
    "fedpatch benchmark configs/benchmark_upload.yaml --set dataset.root=DIR --out runs/upload": (
        "tests/flows/test_benchmark.py::test_the_benchmarks_of_three_seeds_name_what_they_compare"
    ),
    "fedpatch benchmark configs/benchmark_one_bank.yaml --set dataset.root=DIR --set dataset.group.file=GROUPS "
    "--out runs/one_bank": "tests/flows/test_benchmark.py::test_the_benchmarks_of_three_seeds_name_what_they_compare",
    "fedpatch dataset synthesize --out DIR --scale 0.5 --images 60": (
        "tests/flows/test_benchmark.py::test_the_benchmarks_of_three_seeds_name_what_they_compare"
    ),
    "fedpatch dataset synthesize --out MADE --scale 0.5 --images 60": (
        "tests/flows/test_benchmark.py::test_the_benchmarks_of_three_seeds_name_what_they_compare"
    ),
    'fedpatch run configs/real3_centralized.yaml --set dataset.root=DIR --set "dataset.categories=[CATEGORY]" '
    "--set model.rows=picks --set decision.promise=rate": (
        "tests/flows/test_real_data.py::test_federated_run_on_real_images_finds_defects"
    ),
    "fedpatch run configs/real3_centralized.yaml --set dataset.root=DIR --set dataset.group.file=GROUPS "
    "--out runs/centralized": "tests/flows/test_real_data.py::test_federated_run_on_real_images_finds_defects",
    "python -m tests.pipeline_lib.metrics.test_promise": (
        "tests/pipeline_lib/metrics/test_promise.py::"
        "test_images_that_are_counted_one_by_one_break_the_bound_where_they_come_in_groups"
    ),
    "python -m benchmarks.overhead": BENCHMARKS,
    "python -m benchmarks.profiles": BENCHMARKS,
    "python -m benchmarks.recovery": BENCHMARKS,
    "python -m benchmarks.gpu_check --json": GPU,
    "python -m benchmarks.device_work": BENCHMARKS,
    "python -m benchmarks.device_work --against DIR": BENCHMARKS,
    "python -m benchmarks.scale": BENCHMARKS,
    "python -m benchmarks.scale --coordinator": BENCHMARKS,
    "python -m benchmarks.engines": BENCHMARKS,
    "python -m benchmarks --only coreset_1pct": BENCHMARKS,
    "python -m benchmarks --avx2 --threads 1 --only coreset_1pct": BENCHMARKS,
    "python -m benchmarks --only search_wide search_152": BENCHMARKS,
    "python -m benchmarks --large": BENCHMARKS,
    "python -m benchmarks --only autovi_tenth": BENCHMARKS,
    "fedpatch dataset synthesize --out made": (
        "tests/pipeline_lib/dataset/test_synthetic.py::test_counts_are_autovis_own_by_default"
    ),
    "fedpatch plan configs/autovi_iid.yaml --set dataset.root=made --set model.weights=random": (
        "tests/flows/cli/test_plan.py::test_a_table_for_people"
    ),
    "python -m benchmarks --only warm": BENCHMARKS,
    "python -m benchmarks --threads 1 --against DIR --only coreset_1pct": BENCHMARKS,
    "python -m benchmarks --threads 1 --against DIR --only score_cold": BENCHMARKS,
}  # fmt: skip
