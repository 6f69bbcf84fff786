"""The benchmark's page: escaped, whole, and with nothing to compare."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data_contracts.benchmark import BenchmarkConfig
from data_contracts.results import TABLED
from pipeline_lib.benchmark.record import BenchmarkRecord, exemplary
from pipeline_lib.benchmark.report.chosen import scaling_series
from pipeline_lib.benchmark.report.figures import coverage_chart, delta_chart
from pipeline_lib.benchmark.report.headline import headline_figures, headline_sentence
from pipeline_lib.benchmark.report.page import render_benchmark
from pipeline_lib.benchmark.report.trends import bytes_chart, curves_chart
from pipeline_lib.benchmark.report.written import write_benchmark
from pipeline_lib.benchmark.side_by_side import ScoredMaps, category_cases, choose_cases, good_deviations
from pipeline_lib.drawing.axes import round_ticks
from pipeline_lib.drawing.drawing import Box, Dot, Drawing, Line, Text, svg_file, text_width
from pipeline_lib.drawing.latex import latex_table
from tests.dataset_fixtures import write_tiny_autovi


def row(experiment: str, metric: str, delta: float | None, verdict: str) -> dict[str, Any]:
    return {
        "experiment": experiment, "baseline": "centralized", "group": "main", "metric": metric, "value": 0.9,
        "delta_points": delta, "ci95": None if delta is None else [delta - 1, delta + 1], "p_value": 0.01,
        "p_holm": 0.02, "verdict": verdict, "not_tested": None, "seeds": 3, "upload_share_of_image_bytes": 0.5,
        "upload_share_of_pixel_bytes": 0.1, "download_bytes": 10, "bank_rows": 7, "named": False,
    }  # fmt: skip


def record(rows: list[dict[str, Any]], failed: dict[str, str]) -> BenchmarkRecord:
    config = BenchmarkConfig.model_validate({"experiments": {"centralized": {}}})
    return BenchmarkRecord(config, {"all": rows}, [], [], failed)


DRAWING = Drawing(
    100,
    80,
    "a (b) \\ c",
    [
        Line([(0, 0), (100, 80)], "zero"),
        Box(10, 10, 20, 30, "bar"),
        Dot(50, 40, "worse", title="x<y"),
        Text(90, 70, "5 % (\u03b1)", "tick", "end"),
        Text(5, 40, "up", "tick", "middle", upright=True),
    ],
)


def test_a_drawing_is_a_whole_svg_file() -> None:
    root = ET.fromstring(svg_file(DRAWING))
    found = [element.tag.split("}")[1] for element in root]
    assert found == ["title", "style", "path", "rect", "circle", "text", "text"]
    assert root.find("{*}circle/{*}title").text == "x<y"  # type: ignore[union-attr]


def test_widths_of_helvetica() -> None:
    assert text_width("Wi ", 1000) == 944 + 222 + 278  # Adobe's Helvetica.afm


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 7.9), (0.61, 0.64), (-120.0, 4.0)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    ticks = round_ticks(low, high)
    assert 4 <= len(ticks) <= 21
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])


def test_tables_in_latex_escape_what_is_special() -> None:
    text = latex_table([{"a_b": "50 % & <x>", "n": 0.123456}, {"a_b": "y", "n": None}], caption="90 % of_all")
    assert r"a\_b & n \\" in text
    assert r"\caption{90 \% of\_all}" in text
    assert r"50 \% \& \textless{}x\textgreater{} & 0.1235 \\" in text
    assert r"y & -- \\" in text
    assert r"\begin{tabular}{lr}" in text
    assert latex_table([], caption="") == ""


def test_a_difference_stands_below_its_value_with_true_minus_signs() -> None:
    rows = [{"experiment": "iid-5", "AUROC": ("90.0 [89.1-90.4]", "-0.8* [-2.5, +0.9]")}]
    lines = latex_table(rows, caption="").splitlines()
    assert r"iid-5 & 90.0 [89.1--90.4] \\" in lines
    assert r" & $-$0.8* [$-$2.5, +0.9] \\" in lines
    assert r"\begin{tabular}{lr}" in lines
    assert [line for line in lines if "rule" in line] == [r"\toprule", r"\midrule", r"\bottomrule"]


def test_experiments_that_differ_in_the_number_of_clients_alone_are_a_line() -> None:
    config = BenchmarkConfig.model_validate(
        {
            "base": {"federated": {"mode": "federated"}},
            "experiments": {"centralized": {"federated.mode": "centralized"}, "lonely": {"upload.codec": "pq"}},
            "groups": {"iid": {"axes": {"federated.num_clients": [10, 3]}}},
        }
    )
    rows = [row(name, "auc_spro_0.05", -1.0, "worse") for name in config.configs()]
    series = scaling_series(rows, config)
    assert [(one.name, [x for x, _, _ in one.points]) for one in series] == [("iid", [3, 10])]


def test_few_stand_for_all_the_baseline_and_both_ends_first() -> None:
    rows = [row(name, "auc_spro_0.05", delta, "worse") for name, delta in [("a", 0), ("b", 1), ("c", -5), ("d", 7)]]
    assert exemplary(rows, "a", among={"a", "b", "c", "d"}, count=3) == ["a", "c", "d"]
    assert exemplary(rows, "a", among={"b", "c"}) == ["c", "b"]


def test_cheap_and_good_experiments_are_named_beside_their_dots() -> None:
    rows = [row("cheap", "auc_spro_0.05", -1.0, "worse"), row("dear", "auc_spro_0.05", 2.0, "better")]
    rows += [row("beaten", "auc_spro_0.05", -3.0, "worse")]
    for r, share in zip(rows, (0.01, 0.5, 0.4), strict=True):
        r["upload_share_of_image_bytes"] = share
    chart = bytes_chart(rows, description="")
    named = {mark.text for mark in chart.marks if isinstance(mark, Text) and mark.style == "label"}
    assert named == {"cheap", "dear"}
    assert sum(isinstance(mark, Dot) for mark in chart.marks) == 3


def test_curves_of_experiments_lie_inside_the_plot() -> None:
    x, y = np.array([0.0, 0.1, 1.0]), np.array([0.0, 0.8, 1.0])
    chart = curves_chart({"a": (x, y), "b": (x, y / 2)}, description="")
    lines = [mark for mark in chart.marks if isinstance(mark, Line) and mark.style.startswith("series")]
    assert [line.style for line in lines] == ["series-0", "series-1"]
    heights = [min(py for _, py in line.points) for line in lines]
    assert heights[0] < heights[1]
    assert all(0 <= px <= chart.width and 0 <= py <= 300 for line in lines for px, py in line.points)


def scored(root: Path, lift: float) -> ScoredMaps:
    paths = sorted((root / "pipe_clip" / "test").glob("*/*.png"))
    labels = np.array([int(path.parent.name != "good") for path in paths])
    scores = np.linspace(0, 1, len(paths)) + lift * labels
    frame = pd.DataFrame(
        {
            "image_id": [f"pipe_clip/test/{p.parent.name}/{p.stem}" for p in paths],
            "category": "pipe_clip",
            "label": [p.parent.name for p in paths],
            "label_index": labels,
            "path": [str(p.relative_to(root)) for p in paths],
            "sha256": "0" * 64,
            "score": scores,
        }
    )
    maps = np.random.default_rng(0).random((len(paths), 6, 6), np.float32)
    return ScoredMaps(maps, frame)


def test_the_same_images_are_shown_under_every_experiment(tmp_path: Path) -> None:
    root = write_tiny_autovi(tmp_path / "tiny", categories=("pipe_clip",), train=2, good=3, defective=3)
    cases = category_cases({"a": scored(root, 5.0), "b": scored(root, 0.0)}, root, layout="autovi")
    assert [case.kind for case in cases] == ["best", "worst", "false alarm", "most different"]
    assert all([panel.experiment for panel in case.panels] == ["a", "b"] for case in cases)
    assert all(case.picture.startswith(b"RIFF") and all(p.picture for p in case.panels) for case in cases)
    assert len({case.image_id for case in cases}) == 4
    page = render_benchmark(replace(record([], {}), cases=cases))
    assert page.count("data:image/webp") == 12
    assert category_cases({}, root, layout="autovi") == []


def test_cases_are_chosen_by_deviations_from_the_good_images() -> None:
    scores = pd.DataFrame({"image_id": list("abcd"), "label_index": [0, 0, 1, 1], "score": [1.0, 3.0, 2.0, 9.0]})
    np.testing.assert_allclose(good_deviations(scores), [-1, 1, 0, 7])
    table = pd.DataFrame({"x": [-1.0, 1, 0, 7], "y": [5.0, 1, 0, 7]}, index=list("abcd"))
    assert choose_cases(table, scores.label_index.to_numpy()) == {
        "best": "d", "worst": "c", "false alarm": "a", "most different": "b",
    }  # fmt: skip
    assert "most different" not in choose_cases(table[["x"]], scores.label_index.to_numpy())


def test_everything_is_written_and_old_figures_go(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "old.svg").write_text("x")
    rows = [row("a/b", metric, -2.0, "worse") for metric in ("image_auroc", "auc_spro_0.05")]
    write_benchmark(record(rows, {}), tmp_path)
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"differences-main-image_auroc.svg", "values-auc_spro_0.05.svg"} <= names
    assert not {"old.svg", "bytes.svg"} & names  # one experiment alone is no chart
    assert r"\begin{tabular}" in (tmp_path / "tables" / "comparison.tex").read_text()
    table = pd.read_csv(tmp_path / "tables" / "comparison.csv")
    assert table[["delta_points", "ci95_low", "ci95_high"]].to_numpy().tolist() == [[-2.0, -3.0, -1.0]] * 2
    assert {path.name for path in (tmp_path / "tables").glob("*.tex")} == {"comparison.tex", "costs.tex"}  # none empty


def test_text_of_the_data_is_escaped_and_charts_are_there() -> None:
    rows = [
        row("a<b>", metric, -2.0, "worse") for metric in ("image_auroc", "auc_spro_0.05")
    ] + [row("centralized", "auc_spro_0.05", 0.0, "baseline")]  # fmt: skip
    page = render_benchmark(record(rows, {"broken": "<script>alert(1)</script>"}))
    assert "<script" not in page
    assert "a&lt;b&gt;" in page
    assert page.count("<svg") == 5  # differences and values of two metrics, bytes
    assert "no result of broken" in page


def test_named_pairs_have_a_table_and_a_chart_of_their_own(tmp_path: Path) -> None:
    metrics = ("image_auroc", "auc_spro_0.05")
    rows = [row("one", metric, -2.0, "worse") for metric in metrics]
    plain = render_benchmark(record(rows, {}))
    pairs = [row("two", metric, 0.4, "better") | {"baseline": "one", "named": True} for metric in metrics]
    page = render_benchmark(record([*rows, *pairs], {}))
    assert 'id="pairs"' not in plain
    table = page[page.index('id="pairs"') :].split("</table>")[0]
    assert re.findall(r"<t[hd][^>]*>([^<]+)</t[hd]>", table)[4:] == ["two", "one", *["+0.4* [-0.6, +1.4]"] * 2]
    assert page.count("<svg") == plain.count("<svg") + 2
    assert "against one" in page
    assert headline_sentence([*rows, *pairs]).startswith(headline_sentence(rows))  # counted apart
    write_benchmark(record([*rows, *pairs], {}), tmp_path)
    assert pd.read_csv(tmp_path / "tables" / "comparison.csv").baseline.tolist() == ["centralized"] * 2 + ["one"] * 2
    assert "two & one & " in (tmp_path / "tables" / "pairs.tex").read_text()
    assert {p.name for p in (tmp_path / "figures").glob("pairs-*.svg")} == {f"pairs-{m}.svg" for m in metrics}


def test_coverage_has_a_chart_a_category_and_a_table_where_it_was_measured(tmp_path: Path) -> None:
    rows = [row("one", "image_auroc", -2.0, "worse")]
    covered = [
        {"experiment": name, "category": category, "clients": 3, "patches": 12345, "mean": 2.0, "q50": 1.5, "q90": 4.0,
         "q95": 4.5, "q99": 5.25, "covering_radius": radius}
        for category in ("tiles", "screws") for name, radius in (("one", 6.0), ("two", 12.0))
    ]  # fmt: skip
    plain = render_benchmark(record(rows, {}))
    page = render_benchmark(replace(record(rows, {}), coverage=covered))
    assert 'id="coverage"' not in plain
    assert page.count("<svg") == plain.count("<svg") + 2
    table = page[page.index('id="coverage"') :].split("<tbody>")[1]
    assert re.findall(r"<t[hd][^>]*>([^<]+)</t[hd]>", table)[:10] == [
        "one", "tiles", "3", "12 345", "2.00", "1.50", "4.00", "4.50", "5.25", "6.00",
    ]  # fmt: skip
    chart = coverage_chart(covered[:2], description="")
    ends = [max(x for x, _ in mark.points) for mark in chart.marks if isinstance(mark, Line) and len(mark.points) == 2
            and mark.style == "interval" and mark.points[0][1] == mark.points[1][1]]  # fmt: skip
    assert (ends[1] - 178) == pytest.approx(2 * (ends[0] - 178))  # twice as far from the axis
    write_benchmark(replace(record(rows, {}), coverage=covered), tmp_path)
    assert len(pd.read_csv(tmp_path / "tables" / "coverage.csv")) == 4
    assert (tmp_path / "figures" / "coverage-screws.svg").is_file()


def test_nothing_to_compare() -> None:
    page = render_benchmark(record([row("centralized", "auc_spro_0.05", None, "baseline")], {}))
    assert "No experiment was tested" in page
    assert page.count("<svg") == 1  # its own value
    assert 'id="values"' in page


def test_a_benchmark_in_which_everything_failed_still_has_a_page() -> None:
    page = render_benchmark(record([], {"centralized": "no such data set"}))
    assert "no result of centralized: no such data set" in page
    assert "No experiment was tested" in page


def test_many_missing_runs_are_counted_and_folded() -> None:
    page = render_benchmark(record([], {f"iid_{n}": "no finished run" for n in range(6)}))
    assert "6 runs of this benchmark are missing here." in page
    assert page.index("<summary>Which, and why") < page.index("no result of iid_0: no finished run")


def verdicts(*found: str, named: bool = False) -> list[dict[str, Any]]:
    return [row(f"e{i}", "auc_spro_0.05", 1.0 + i, verdict) | {"named": named} for i, verdict in enumerate(found)]


NO = "no difference shown"


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ((NO, NO, NO), "None of the 3 experiments is shown to differ from its baseline in AUC-sPRO@0.05 ("),
        ((NO,), "The one experiment tested is not shown to differ from its baseline in AUC-sPRO@0.05 ("),
        (("worse",), "The one experiment tested is shown to be worse than its baseline in AUC-sPRO@0.05 ("),
        (("better", "better"), "Both experiments are shown to be better than their baseline in AUC-sPRO@0.05 ("),
        (("worse", NO, NO, "worse"), "2 are shown to be worse and 2 are not shown to differ ("),
        (("better", "worse", NO), "1 is shown to be worse, 1 is shown to be better and 1 is not shown to differ ("),
        (("better", "worse"), "1 is shown to be worse and 1 is shown to be better ("),
    ],
)
def test_the_headline_says_what_is_shown(found: tuple[str, ...], says: str) -> None:
    sentence = headline_sentence(verdicts(*found, "baseline", "not tested"))
    assert says in sentence
    assert ("Not shown does not mean equal" in sentence) == (NO in found)
    assert not re.search(r"\b0\b(?!\.)", sentence)


def test_the_headline_counts_named_pairs_apart() -> None:
    rows = verdicts(NO, NO)
    assert "Neither of the 2 named pairs is shown to differ." in headline_sentence(rows + verdicts(NO, NO, named=True))
    assert "1 of the 2 named pairs is shown" in headline_sentence(rows + verdicts(NO, "worse", named=True))
    assert "The named pair is shown to differ." in headline_sentence(rows + verdicts("worse", named=True))
    assert headline_sentence(verdicts("worse", named=True)).startswith(
        "No experiment was tested against a baseline. The"
    )


def one_seed(*experiments: str) -> list[dict[str, Any]]:
    found = verdicts(*["not tested"] * len(experiments))
    alone = {"not_tested": "one seed: not tested", "seeds": 1, "ci95": None, "p_value": None, "p_holm": None}
    return [row | alone | {"experiment": name} for row, name in zip(found, experiments, strict=True)]


def test_one_seed_has_no_star_no_interval_and_no_ranking_and_the_head_says_so() -> None:
    rows = [row("centralized", "auc_spro_0.05", 0.0, "baseline") | {"seeds": 1}, *one_seed("a", "b")]
    page = render_benchmark(record(rows, {}))
    assert headline_sentence(rows).startswith("The figures of one seed, and their differences")
    assert headline_figures(rows)[-1] == (
        "AUC-sPRO@0.05, lowest against its baseline", "+1.0 points", "a, 90.0 %, one seed: not tested"
    )  # fmt: skip
    cells = re.findall(r"<td>(.+?)</td>", page[page.index('id="differences"') :].split("</table>")[0])
    assert "90.0<small>+1.0</small>" in cells
    assert not any("*" in cell or "[" in cell for cell in cells)
    assert 'id="ranking"' not in page
    assert page.count('class="not"') == 4  # two experiments in two charts


def test_the_ends_are_given_with_their_verdict() -> None:
    rows = [row("centralized", "auc_spro_0.05", 0.0, "baseline"), *verdicts("worse", NO, NO)]
    assert headline_figures(rows)[-2:] == [
        ("AUC-sPRO@0.05, highest against its baseline", "+3.0 points", "e2, 90.0 %, no difference shown"),
        ("AUC-sPRO@0.05, lowest against its baseline", "+1.0 points", "e0, 90.0 %, shown to be worse"),
    ]
    assert headline_figures(rows[:2])[1:] == [("AUC-sPRO@0.05, e0", "90.0 %", "+1.0 points, shown to be worse")]


@pytest.mark.parametrize(("highest", "ticks"), [(0.6, ["-4.7", "+0.0"]), (4.0, ["-4.7", "+0.0", "+4.0"])])
def test_numbers_below_the_chart_of_differences_do_not_overlap(highest: float, ticks: list[str]) -> None:
    row = {"experiment": "iid_5", "delta_points": -2.0, "ci95": [-4.7, highest], "verdict": "worse"}
    chart = delta_chart([row], description="points")
    assert [mark.text for mark in chart.marks if isinstance(mark, Text) and mark.style == "tick"] == ticks


def category_row(category: str, metric: str, **changes: Any) -> dict[str, Any]:
    found = {
        "experiment": "iid_5", "baseline": "centralized", "category": category, "metric": metric, "seeds": 3,
        "value_per_cent": 90.0, "lowest_per_cent": 89.14, "highest_per_cent": 90.4, "delta_points": -0.8,
        "ci95_low": -2.5, "ci95_high": 0.9, "not_tested": None,
    }  # fmt: skip
    return found | changes


def test_categories_have_a_section_and_a_table_for_latex_and_one_of_numbers(tmp_path: Path) -> None:
    rows = [category_row("tiles", metric.key) for metric in TABLED]
    rows += [category_row("mean of categories", "image_auroc", value_per_cent=1.0)]
    made = replace(record([row("iid_5", "image_auroc", -2.0, "worse")], {}), categories=rows)
    section = render_benchmark(made).split('id="categories"')[1].split("</section>")[0]
    assert section.count("90.0 [89.1-90.4]<small>-0.8 [-2.5, +0.9]</small>") == len(TABLED)
    assert "mean of categories" not in section
    write_benchmark(made, tmp_path)
    text = (tmp_path / "tables" / "categories.tex").read_text()
    assert "tiles & iid\\_5 & 90.0 [89.1--90.4] & " in text
    assert "1 experiment with seed 42 alone on 1 category." in render_benchmark(made)
    numbers = pd.read_csv(tmp_path / "tables" / "categories.csv")
    assert numbers.ci95_low.tolist() == [-2.5] * 5


def test_what_must_be_known_of_the_data_stands_at_the_head() -> None:
    made = replace(record([], {}), warnings=["cookie: look"], validation=["Validation has 3 warnings (3 near)"])
    head = render_benchmark(made).split("</header>")[0]
    assert '<p class="loud">cookie: look.</p>' in head
    assert "<p>Validation has 3 warnings (3 near).</p>" in head


def test_rows_that_are_not_picks_are_said_beside_the_table() -> None:
    assert "rows: means of cells, not PatchCore&#39;s picks" in render_benchmark(record([], {}))
    config = BenchmarkConfig.model_validate(
        {"experiments": {"centralized": {}, "own": {"model.rows": "picks", "model.alignment": "corners_as_patchcore"}}}
    )
    page = render_benchmark(replace(record([], {}), config=config))
    assert "own: rows and alignment as PatchCore&#39;s" in page
