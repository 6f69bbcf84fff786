"""Where the image score may go by something else than defects: light, day, part.

Said where both hold: the 95 % interval of unmarked AUROC (Newcombe, from the counts) lies above 0.5, so that something
outside the masks does tell the test images apart; and it alone has SHARE of what image AUROC has above 0.5, so that
the masks add little to it. Every data set has some of it (27 runs on real3: 0.33 to 0.69 of it): the tables have it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from data_contracts.results import IMAGE_AUROC, UNMARKED_AUROC, MetricsDocument, MetricValues
from pipeline_lib.metrics.intervals import newcombe_interval

SHARE = 0.75


def rests_outside_masks(values: MetricValues) -> bool:
    """Whether image AUROC may come from what lies outside the masks; False where one of the two is undefined."""
    whole, unmarked = IMAGE_AUROC.of(values), UNMARKED_AUROC.of(values)
    if whole is None or unmarked is None:
        return False
    interval = newcombe_interval(unmarked, values.n_good, values.n_defective)
    return interval is not None and interval[0] > 0.5 and unmarked - 0.5 >= SHARE * (whole - 0.5)


def outside_mask_warnings(document: MetricsDocument) -> list[str]:
    """A sentence for each category of a run of which this is so."""
    return comparison_warnings({"": [document]})


def comparison_warnings(runs: Mapping[str, Iterable[MetricsDocument]]) -> list[str]:
    """The same of several experiments, name -> its runs: a sentence a category, with lowest and highest values."""
    found: dict[str, dict[str, list[MetricValues]]] = {}
    for name, documents in runs.items():
        for document in documents:
            for category, values in document.categories.items():
                if rests_outside_masks(values):
                    found.setdefault(category, {}).setdefault(name, []).append(values)
    return [_sentence(category, by_name) for category, by_name in found.items()]


def _sentence(category: str, by_name: Mapping[str, list[MetricValues]]) -> str:
    values = [one for own in by_name.values() for one in own]
    of_whom = f" ({', '.join(by_name)})" if any(by_name) else ""
    unmarked, whole = (_ends(metric.of(one) for one in values) for metric in (UNMARKED_AUROC, IMAGE_AUROC))
    return (
        f"{category}: image scores may rest on what lies outside the masks, such as light, day or part: away from "
        f"every mask the images are told apart with an unmarked AUROC of {unmarked}, "
        f"at an image AUROC of {whole}{of_whom}"
    )


def _ends(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    low, high = (f"{100 * value:.1f}" for value in (min(known), max(known)))
    return low if low == high else f"{low} to {high}"
