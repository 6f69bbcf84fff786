"""When a reader is told that image scores may rest on what lies outside the masks."""

from __future__ import annotations

import pytest

from data_contracts.results import CategoryMetrics, MetricsDocument
from pipeline_lib.results.outside_masks import comparison_warnings, outside_mask_warnings, rests_outside_masks


def values(whole: float | None, unmarked: float | None, n_good: int = 14, n_defective: int = 27) -> CategoryMetrics:
    return CategoryMetrics(
        image_auroc=whole, unmarked_image_auroc=unmarked, n_good=n_good, n_defective=n_defective
    )  # fmt: skip


@pytest.mark.parametrize(
    ("category", "expected"),
    [
        (values(1.0, 0.892), True),  # photographs of which the good ones were taken apart
        (values(0.905, 0.711, 319, 80), False),  # real3, docs/results.md: ball screws, cookies, tiles
        (values(0.942, 0.763, 14, 32), False),
        (values(0.895, 0.721, 238, 388), False),
        (values(0.978, 0.83, 14, 32), False),  # the largest share of 27 runs on it
        (values(0.7, 0.66, 8, 9), False),  # nothing is known of so few
        (values(0.7, 0.66, 400, 400), True),
        (values(0.45, 0.44, 400, 400), False),  # none of it is above chance
        (values(None, 0.9), False),
        (values(0.9, None), False),
    ],
)
def test_most_of_what_is_above_chance_and_more_than_chance_gives(category: CategoryMetrics, expected: bool) -> None:
    assert rests_outside_masks(category) == expected


def test_a_sentence_a_category_with_the_ends_of_all_runs() -> None:
    def document(unmarked: float) -> MetricsDocument:
        categories = {"cookie": values(1.0, unmarked), "tile": values(0.9, 0.5)}
        return MetricsDocument(experiment="x", config_hash="0", seed=1, categories=categories)

    (alone,) = outside_mask_warnings(document(0.9))
    assert alone.startswith("cookie: image scores may rest on what lies outside the masks")
    assert alone.endswith("with an unmarked AUROC of 90.0, at an image AUROC of 100.0")
    (several,) = comparison_warnings({"a": [document(0.9), document(0.95)], "b": [document(0.5)]})
    assert several.endswith("AUROC of 90.0 to 95.0, at an image AUROC of 100.0 (a)")
