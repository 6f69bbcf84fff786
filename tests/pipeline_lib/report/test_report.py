"""The report: what it says, that it needs nothing beside itself, and that data cannot become markup."""

from __future__ import annotations

import html
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_contracts.results import CategoryMetrics, Decision, MetricsDocument, MetricValues, ThresholdResult
from data_contracts.validation import Finding, ValidationReport
from pipeline_lib.dataset.index import category_test_table, index_dataset
from pipeline_lib.drawing.axes import LEFT
from pipeline_lib.metrics.intervals import share_interval
from pipeline_lib.report import decision_table
from pipeline_lib.report.figures import IntervalRow, curve_chart, interval_chart, score_histogram
from pipeline_lib.report.gallery import (
    PICTURES_BYTES,
    category_gallery,
    encode_webp,
    good_threshold,
    sort_by_kind,
    take_in_turn,
)
from pipeline_lib.report.page import render_report
from pipeline_lib.report.tables import client_categories
from pipeline_lib.results.outside_masks import outside_mask_warnings
from tests.dataset_fixtures import write_image, write_tiny_autovi
from tests.report_fixtures import BACKBONE, category_fields, document, made_up_run, values

HOSTILE = "<script>alert('x')</script>&\"'"


@pytest.fixture(scope="module")
def page(tiny_root: Path) -> str:
    return render_report(*made_up_run(tiny_root))


def text_of(page: str) -> str:
    """The page's text, without tags and styles."""
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def test_the_page_says_what_was_run_and_what_came_of_it(page: str) -> None:
    text = text_of(page)
    for said in (
        "made-up", "0123456789abcdef", "efficientnet_lite0", "ab" * 32, "2026-01-02 03:04 UTC", "a processor, 2 cores",
        "70 % of the defective ones are found", "85.0 to 94.0", "50.0 to 70.0", "1234 MB", "numpy 2.4", "kcenter",
        "client_0 delivered 9 5 760 576 350.2 kB 50 % 2.35", "OSError: camera <offline> & gone failed",
        "client_2 no images skipped", "pipe_clip 576 152 350.2 kB", "clients 12.5 83 %", "a/b&c.png", "copy it again",
    ):  # fmt: skip
        assert said in text, said
    assert "RANDOM" not in text
    assert "1 of 2 clients failed" in text


def test_the_decision_in_use_is_what_the_page_speaks_of(tiny_root: Path) -> None:
    """First sentence, tile, histogram and examples go by one threshold; without decisions by that at TNR 95."""
    decision = Decision(threshold=11.5, found=3, n_defective=12, false_alarms=1, n_good=8)
    fields = {name: category_fields(decision=decision) for name in ("pipe_clip", "tank_screw")}
    documents = {half: document(half, fields) for half in ("all", "report")}
    record, galleries = made_up_run(tiny_root, threshold=11.5, documents=documents)
    text = text_of(render_report(record, galleries))
    assert (
        "The decision in use finds 6 of 24 defective images (25.0 %) and calls 2 of 16 good images (12.5 %) defective "
        "by mistake." in text
    )
    assert "defective found 25.0 % report half: 25.0" in text
    assert text.count("By the threshold of the decision, 11.5.") == 2
    assert text.count("dashed: the threshold of the decision") == 2
    assert "that lets 95 %" not in text
    for gallery in galleries:
        own = record.scores[record.scores.category == gallery.category]
        assert gallery.counts["hits"] == ((own.label_index == 1) & (own.score > 11.5)).sum()
        assert gallery.counts["false alarms"] == ((own.label_index == 0) & (own.score > 11.5)).sum()
    fields["tank_screw"] = category_fields(decision=Decision(note="no threshold"))
    some = text_of(render_report(made_up_run(tiny_root, documents={"all": document("all", fields)})[0]))
    assert "in use, where there is one (1 of 2 categories), finds 3 of 12" in some


def test_of_good_images_alone_the_false_alarms_come_first_and_nothing_empty_follows(tiny_root: Path) -> None:
    decision = Decision(threshold=99.0, n_good=6, realised_rate=0.0, realised_ci95=(0.0, 0.459))
    only_good = {"n_good": 6, "decision": decision}
    documents = {half: document(half, {"pipe_clip": only_good}) for half in ("all", "report")}
    for one in documents.values():
        one.mean = MetricValues(n_good=6)
    record, _ = made_up_run(tiny_root, documents=documents)
    record = replace(record, scores=record.scores[record.scores.label_index == 0])
    page = render_report(record)
    text = text_of(page)
    assert "All 6 test images are good; of these the threshold calls 0 of 6 (95 % interval 0.0 to 45.9 %) defec" in text
    assert "good called defective 0.0 % 0 of 6 (95 % interval 0.0 to 45.9 %)" in text
    assert "0 of 0" not in text
    assert "undefined" not in text
    assert "By category, all of test" not in text
    assert page.count("<svg") == 1  # the scores, with the threshold above all of them
    assert 'class="mark"' in page
    assert "Decisions by thresholds from normal training images" in text


def test_a_figure_that_the_run_does_not_have_has_no_tile(tiny_root: Path) -> None:
    """Folders of good and defective images have no masks."""
    measured = document("all", {"bolt": category_fields(auc_spro={})})
    measured.mean.auc_spro = {}
    page = render_report(made_up_run(tiny_root, documents={"all": measured})[0])
    assert re.findall(r"<dt>(.*?)</dt><dd><span", page) == ["image AUROC, mean", "TPR at TNR 95, mean"]


def test_without_masks_no_column_of_them_is_shown_and_none_is_spoken_of(tiny_root: Path, page: str) -> None:
    bare = {"auc_spro": {}, "pixel_auroc": None}
    alone = MetricValues(**values() | bare)
    fields = category_fields(**bare, by_defect={"scratch": alone}, by_folder={"scratches": alone}, by_group={})
    measured = document("all", {"pipe_clip": fields})
    measured.mean = alone
    without = render_report(*made_up_run(tiny_root, documents={"all": measured}))
    heads = [text_of(head) for head in re.findall(r"<th scope=.col.*?</th>", without)]
    for name, outlined in (("pixel AUROC", "its ground truth outlined"), ("AUC-sPRO@0.05", ", the defect outlined")):
        assert name in [text_of(head) for head in re.findall(r"<th scope=.col.*?</th>", page)]
        assert name not in heads
        assert outlined in page
        assert outlined not in without
    assert {"image AUROC", "TPR at TNR 95", "state"} <= {*heads}
    for row in re.findall(r"<tr.*?</tr>", re.search(r"<table>.*?</table>", without, re.DOTALL)[0], re.DOTALL):  # type: ignore[index]
        assert len(re.findall(r"<t[hd]\b", row)) == len(re.findall(r'scope="col"', without.split("</thead>")[0]))


def test_one_client_has_no_divergence_from_itself() -> None:
    client = {"by_category": {"clip": 9}, "js_divergence": 0.0}
    table = client_categories({"by_category": {"clip": 9}, "clients": {"a": client}})
    assert table is not None
    assert [table.columns[i] for i in table.shown] == ["client", "clip"]
    both = client_categories({"by_category": {"clip": 18}, "clients": {"a": client, "b": client}})
    assert both is not None
    assert [both.columns[i] for i in both.shown] == ["client", "clip", "JS divergence"]


def test_every_half_every_split_and_every_limit_is_there(page: str) -> None:
    text = text_of(page)
    for half in ("all of test", "development half", "report half"):
        assert f"By category, {half}" in text
        assert f"By defect, folder and group, {half}" in text
    for name in (
        "scratch defect",
        "scratches folder",
        "structural group",
        "AUC-sPRO@0.01",
        "AUC-sPRO@1.0",
        "TPR at TNR 99",
    ):
        assert name in text, name
    assert "12 few" in text
    assert "fewer than 20 defective test images of scratch" in text


def test_equal_defects_and_folders_are_listed_once(tiny_root: Path) -> None:
    split = {"scratch": MetricValues(image_auroc=0.9, n_good=4, n_defective=3)}
    fields = category_fields(by_defect=split, by_folder=split, by_group={})
    record, _ = made_up_run(tiny_root, documents={"all": document("all", {"pipe_clip": fields})})
    assert text_of(render_report(record)).count("defect and folder") == 1


def test_only_halves_that_were_measured_are_in_the_legend(tiny_root: Path, page: str) -> None:
    keys = ('class="key all"', 'class="key development"', 'class="key report"')
    assert all(page.count(key) == 1 for key in keys)
    record, _ = made_up_run(tiny_root, documents={"all": document("all", {"pipe_clip": category_fields()})})
    alone = render_report(record)
    assert not any(key in alone for key in keys)


def test_the_page_asks_for_nothing_and_runs_nothing(page: str) -> None:
    assert page.startswith("<!doctype html>")
    assert "<script" not in page
    assert not re.search(r"\bon\w+=", page)
    assert not re.search(r"(?:src|href)=\"(?!data:image/|#)", page)
    assert "default-src 'none'" in page
    assert "url(" not in page
    assert "@import" not in page


def test_every_picture_has_words_for_those_who_do_not_see_it(page: str) -> None:
    pictures = re.findall(r"<img [^>]*>", page)
    assert len(pictures) > 8
    assert all(re.search(r'alt="[^"]{20,}"', picture) for picture in pictures)
    figures = re.findall(r"<svg [^>]*>", page)
    assert len(figures) == 2 + 3 * 2
    assert all('role="img"' in figure and 'aria-label="' in figure for figure in figures)


def test_names_and_messages_from_the_data_are_escaped(tiny_root: Path) -> None:
    record, _ = made_up_run(tiny_root)
    fields = category_fields(by_folder={HOSTILE: MetricValues(n_good=1, n_defective=1)})
    documents = {"all": document("all", {HOSTILE: fields}, warnings=[HOSTILE])}
    hostile = {
        "documents": documents,
        "curves": record.curves.assign(category=HOSTILE),
        "scores": record.scores.assign(category=HOSTILE),
    }
    page = render_report(made_up_run(tiny_root, **hostile)[0])
    assert "<script" not in page
    assert html.escape("<script>alert(", quote=False) in page
    for attribute in re.findall(r'aria-label="([^"]*)"', page):
        assert "<" not in attribute
    assert HOSTILE in text_of(page)


def test_random_weights_are_said_loudly(tiny_root: Path) -> None:
    random = BACKBONE.model_copy(update={"weights_source": "random"})
    page = render_report(made_up_run(tiny_root, backbone=random)[0])
    assert re.search(r'class="loud">RANDOM WEIGHTS: efficientnet_lite0', page)


def test_clients_that_send_more_than_their_images_have_are_said_loudly(tiny_root: Path) -> None:
    record, _ = made_up_run(tiny_root)
    assert "more is sent" not in render_report(record).lower()
    whole = record.documents["all"]
    one = whole.federation.clients["client_0"].model_copy(update={"upload_bytes": 2_801_664})
    federation = whole.federation.model_copy(update={"clients": {"client_0": one}})
    documents = {"all": whole.model_copy(update={"federation": federation})}
    page = render_report(made_up_run(tiny_root, documents=documents)[0])
    assert re.search(r'class="loud">More is sent than .*client_0 2\.8 MB for 0\.7 MB of images \(4 times\)', page)


def test_a_run_with_nothing_measured_still_has_a_report(tiny_root: Path) -> None:
    record, _ = made_up_run(tiny_root)
    empty = document("all", {}).model_copy(update={"mean": MetricValues()})
    frames = {"curves": record.curves[:0], "scores": record.scores[:0]}
    text = text_of(render_report(made_up_run(tiny_root, documents={"all": empty}, **frames)[0]))
    assert "0 good and 0 defective test images of 0 categories" in text
    assert "This file holds no images" in text


# --- the gallery -----------------------------------------------------------------------------------------------------


def scores(*rows: tuple[str, int, float]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["label", "label_index", "score"])
    return frame.assign(image_id=[f"i{number}" for number in range(len(rows))])


def test_images_are_sorted_by_a_threshold_on_the_good_ones() -> None:
    frame = scores(*[("good", 0, float(s)) for s in range(20)], ("a", 1, 18.0), ("a", 1, 18.5), ("b", 1, 40.0))
    threshold = good_threshold(frame.label_index.to_numpy(), frame.score.to_numpy())
    assert threshold == 18  # 19 of 20 good images do not exceed it
    kinds = sort_by_kind(frame, threshold)
    assert {kind: rows.score.tolist() for kind, rows in kinds.items()} == {
        "hits": [40.0, 18.5],
        "misses": [18.0],
        "false alarms": [19.0],
    }


def test_without_good_images_nothing_is_a_miss() -> None:
    frame = scores(("a", 1, 1.0), ("a", 1, 3.0))
    assert good_threshold(frame.label_index.to_numpy(), frame.score.to_numpy()) is None
    kinds = sort_by_kind(frame, None)
    assert kinds["hits"].score.tolist() == [3.0, 1.0]
    assert kinds["misses"].empty


def test_examples_are_taken_from_each_folder_in_turn() -> None:
    frame = scores(("a", 1, 9.0), ("a", 1, 8.0), ("a", 1, 7.0), ("b", 1, 2.0))
    assert [row["score"] for _, row in take_in_turn(frame, 3)] == [9.0, 2.0, 8.0]
    assert [position for position, _ in take_in_turn(frame, 2)] == [0, 3]


def test_pictures_keep_to_their_share_of_the_file() -> None:
    from PIL import Image

    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))
    generous, tight = encode_webp(noise, 10**6), encode_webp(noise, 30_000)
    assert len(tight) <= 30_000 < len(generous)


def test_images_and_masks_that_cannot_be_read_are_said(tiny_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(tiny_root, root)
    rows = category_test_table(index_dataset(root, workers=1), "pipe_clip")
    rows["score"] = np.where(rows.label_index == 1, 9.0, 1.0)
    (root / "pipe_clip" / "test" / "scratch" / "0001.png").unlink()
    (root / "pipe_clip" / "ground_truth" / "scratch" / "0002" / "0000.png").write_bytes(b"none")
    maps = np.repeat(rows.score.to_numpy(np.float32)[:, None, None], 4, axis=1).repeat(4, axis=2)
    gallery = category_gallery(maps, rows, root, layout="autovi", sigma_px=1.5)
    by_id = {e.image_id: e for e in gallery.examples["hits"]}
    gone, maskless = by_id["pipe_clip/test/scratch/0001"], by_id["pipe_clip/test/scratch/0002"]
    assert gone.image == b""
    assert "cannot read image" in gone.problem
    assert maskless.image[8:12] == b"WEBP"
    assert "no outline" in maskless.problem
    assert gallery.counts == {"hits": 6, "misses": 0, "false alarms": 0}
    assert gallery.sheet[:2] == b"\xff\xd8"


@pytest.mark.parametrize("n_categories", [3, 60])
def test_the_pictures_of_many_categories_stay_within_their_space(tmp_path: Path, n_categories: int) -> None:
    """Noise, which compresses worst."""
    rng = np.random.default_rng(0)
    write_tiny_autovi(tmp_path, train=1, good=12, defective=8)
    for path in tmp_path.glob("pipe_clip/test/*/*.png"):
        write_image(path, rng.integers(0, 256, (48, 64, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1))
    for path in tmp_path.glob("pipe_clip/ground_truth/*/*/*.png"):
        write_image(path, np.full((384, 512), 255 if "scratch" in path.parts else 128, np.uint8))
    rows = category_test_table(index_dataset(tmp_path, workers=1), "pipe_clip")
    maps = rng.random((len(rows), 6, 8), dtype=np.float32)
    rows["score"] = rng.random(len(rows))  # some of each kind
    found = category_gallery(maps, rows, tmp_path, layout="autovi", sigma_px=0, n_categories=n_categories)
    shown = [example for examples in found.examples.values() for example in examples]
    assert len(shown) >= 8
    assert sum(len(e.image) + len(e.heat) for e in shown) * n_categories <= PICTURES_BYTES


# --- figures and intervals -------------------------------------------------------------------------------------------


def test_the_shaded_area_ends_at_the_limit() -> None:
    chart = curve_chart(
        np.array([0, 1.0]), np.array([0, 1.0]), x_label="x", y_label="y", description="d", x_end=0.2, shaded_to=0.1
    )
    area = re.search(r'class="area" d="([^"]*)"', chart)
    assert area is not None
    points = [tuple(map(float, point.split())) for point in re.findall(r"[\d.]+ [\d.]+", area.group(1))]
    assert max(x for x, _ in points) == pytest.approx((LEFT + 326) / 2, abs=0.1)
    assert min(y for _, y in points) == pytest.approx(208 - 0.1 * 196, abs=0.1)


def test_figures_of_nothing_and_of_one_value() -> None:
    assert "<svg" in score_histogram(np.array([]), np.array([]), threshold=None, description="d")
    assert 'class="mark"' in score_histogram(np.array([2.0]), np.array([]), threshold=2.0, description="d")
    chart = interval_chart([IntervalRow("a & b", None), IntervalRow("c", 0.5, (0.4, 0.6))], description="d")
    assert "a &amp; b" in chart
    assert "undefined" in chart
    assert chart.count('class="interval"') == 1


def test_shares_have_wilsons_interval() -> None:
    low, high = share_interval(0.8, 50) or (0, 0)  # 40 of 50
    assert (low, high) == (pytest.approx(0.6696, abs=5e-4), pytest.approx(0.8876, abs=5e-4))
    assert share_interval(1.0, 10) == (pytest.approx(0.7225, abs=5e-4), pytest.approx(1.0))
    assert share_interval(0.5, 0) is None


@pytest.mark.parametrize(
    ("clients", "of"), [(["centralized"], "all images"), (["client_0", "client_1"], "all clients")]
)
def test_a_threshold_says_whose_images_it_is_of(clients: list[str], of: str) -> None:
    decision = Decision(by_client={client: ThresholdResult() for client in clients})
    measured = MetricsDocument(
        experiment="x",
        config_hash="0",
        seed=1,
        categories={"bolt": CategoryMetrics(n_good=4, n_defective=2, decision=decision)},
        mean=MetricValues(n_good=4, n_defective=2),
    )
    table = decision_table.decisions(measured)
    assert table is not None
    assert len(table.rows) == (1 if of == "all images" else 3)
    assert of in str(table.rows[0])
    assert decision_table.of_clients(measured) == (of == "all clients")


def test_what_a_threshold_did_stands_before_what_it_promises_each_below_its_head() -> None:
    decision = Decision(
        threshold=2.5, nominal_rate=0.1, n_calibration=9, realised_rate=0.25, false_alarms=1, n_good=4,
        found_rate=0.5, found=2, n_defective=4, excess_p_value=0.01,
    )  # fmt: skip
    measured = MetricsDocument(
        experiment="x", config_hash="0", seed=1, categories={"bolt": CategoryMetrics(decision=decision)}
    )
    table = decision_table.decisions(measured)
    assert table is not None
    (row,) = table.rows
    shown = dict(zip(table.columns, [cell.text for cell in row], strict=True))
    assert list(shown.items())[2:] == [
        ("good called defective", "25.0 %"), ("defective found", "50.0 %"), ("threshold", "2.5"),
        ("nominal rate", "10.0 %"),
        ("bound, 95 %", "none"), ("normal images", "9"), ("p of drift", "0.01"),
    ]  # fmt: skip


def test_a_table_that_is_too_wide_for_a_phone_says_that_it_scrolls(tiny_root: Path) -> None:
    page = render_report(*made_up_run(tiny_root))
    tables = re.findall(r'<div class="scroll([^"]*)".*?</table>', page, re.DOTALL)
    whole = re.findall(r'<div class="scroll.*?</table>', page, re.DOTALL)
    assert len(whole) > 5
    assert {"many" in classes.split() for classes in tables} == {True, False}
    for classes, table in zip(tables, whole, strict=True):
        assert ("many" in classes.split()) == (table.count('<th scope="col"') > 4)
        assert "swipe" in table


def test_a_number_and_its_per_cent_stay_in_one_line_and_the_configuration_as_it_is(tiny_root: Path) -> None:
    record, _ = made_up_run(tiny_root, documents={"all": document("all", {"pipe_clip": category_fields()})})
    record.config.evaluation.defect_groups["share of 5 %"] = "logical"
    page = render_report(record)
    assert "70\u00a0% of the defective ones are found" in page
    assert re.findall(r"\d %", page) == ["5 %"]
    (configuration,) = re.findall(r"<pre>.*?</pre>", page, re.DOTALL)
    assert "share of 5 %" in configuration


def test_a_word_of_a_head_is_not_broken_at_its_hyphen(tiny_root: Path) -> None:
    measured = document("all", {"pipe_clip": category_fields(auc_spro_chance={"0.05": 0.1})})
    page = render_report(*made_up_run(tiny_root, documents={"all": measured}))
    assert "<span>AUC-sPRO@0.05</span> <span>above</span> <span>chance</span></th>" in page


def test_image_scores_that_may_rest_on_something_else_than_defects_are_said_at_the_head(tiny_root: Path) -> None:
    fields = category_fields(image_auroc=1.0, unmarked_image_auroc=0.9)
    measured = document("all", {"bolt": fields})
    sentence = "bolt: image scores may rest on what lies outside the masks"
    measured.warnings = outside_mask_warnings(measured)
    head, rest = render_report(made_up_run(tiny_root, documents={"all": measured})[0]).split("</header>")
    assert sentence in head
    assert sentence not in rest  # once


def test_findings_of_one_kind_are_one_entry_with_one_advice_and_are_counted_at_the_top(tiny_root: Path) -> None:
    found = [
        Finding(severity="warning", code="near_copy_across_halves", category="bolt", path=f"{n}.png", message="like a",
                advice="group them")
        for n in range(7)
    ]  # fmt: skip
    found.append(Finding(severity="note", code="thin_class", category="bolt", message="few"))
    report = ValidationReport(root="/data", layout="mvtec", findings=tuple(found))
    page = render_report(made_up_run(tiny_root, validation=report)[0])
    assert '<a href="#data">Validation of the data set has 7 warnings (7 near copy across halves)</a>' in page
    text = text_of(page)
    assert text.count("group them") == 1
    assert "warning bolt , near copy across halves, 7 times" in text
    assert text.index("2 more") < text.index("6.png: like a")


def test_rows_that_are_not_picks_are_said_below_the_results(page: str) -> None:
    assert "Method : rows: means of cells, not PatchCore's picks; maps aligned by cell centres" in text_of(page)
