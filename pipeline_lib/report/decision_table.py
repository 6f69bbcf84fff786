"""The report's table of decisions: thresholds from normal training images, promised and realised rates."""

from __future__ import annotations

from data_contracts.manifests import CENTRALIZED_CLIENT
from data_contracts.results import Decision, MetricsDocument, ThresholdResult
from pipeline_lib.report.tables import UNDEFINED, Cell, Table, count, measure

DRIFT_P = 0.05


def decisions(document: MetricsDocument) -> Table | None:
    """A row a category, and one for each client where there are several; None without any threshold."""
    rows = []
    for name, values in document.categories.items():
        if values.decision is None:
            continue
        is_central = list(values.decision.by_client) == [CENTRALIZED_CLIENT]
        rows.append(_row(name, "all images" if is_central else "all clients", values.decision))
        if len(values.decision.by_client) > 1:
            rows += [_row(name, client, result) for client, result in values.decision.by_client.items()]
    rows += [_row(name, f"{client}, alone", decision) for name, client, decision in _alone(document)]
    columns = (
        "category", "threshold of", "good called defective", "defective found", "threshold", "nominal rate",
        "bound, 95 %", "normal images", "p of drift",
    )  # fmt: skip
    return Table("Decisions by thresholds from normal training images", columns, tuple(rows), 2) if rows else None


def of_clients(document: MetricsDocument) -> bool:
    """Whether clients have rows beside that of all of them."""
    return any(values.decision and len(values.decision.by_client) > 1 for values in document.categories.values())


def notes(document: MetricsDocument) -> list[str]:
    """What must be said of each category's threshold."""
    found = []
    decided = [(name, values.decision) for name, values in document.categories.items()]
    decided += [(f"{name}, {client} alone", decision) for name, client, decision in _alone(document)]
    for name, decision in decided:
        if decision is None:
            continue
        if decision.note:
            found.append(f"{name}: {decision.note}.")
        p = decision.excess_p_value
        if p is not None and p < DRIFT_P:
            found.append(
                f"{name}: more false alarms than the training images explain (p = {p:.2g}): the test images differ "
                "from them. Take normal images of the present into the bank, or set the threshold on recent ones."
            )
    return found


def _alone(document: MetricsDocument) -> list[tuple[str, str, Decision]]:
    """(category, client, its decision) of clients that train alone, by category."""
    found = [
        (name, client, values.decision)
        for client, categories in document.local_clients.items()
        for name, values in categories.items()
        if values.decision is not None
    ]
    return sorted(found, key=lambda entry: entry[:2])


def _row(category: str, scope: str, result: ThresholdResult) -> tuple[Cell, ...]:
    p = result.excess_p_value
    return (
        Cell(category),
        Cell(scope),
        _share(result.realised_rate, result.realised_ci95, result.false_alarms, result.n_good),
        _share(result.found_rate, result.found_ci95, result.found, result.n_defective),
        Cell(UNDEFINED if result.threshold is None else f"{result.threshold:.4g}"),
        _per_cent(measure(result.nominal_rate)),
        Cell("none") if result.upper_bound is None else _per_cent(measure(result.upper_bound)),
        Cell(count(result.n_calibration).text, "" if result.n_groups is None else f"{result.n_groups} groups"),
        Cell(UNDEFINED) if p is None else Cell(f"{p:.2g}", mark="drift" if p < DRIFT_P else ""),
    )


def _share(rate: float | None, interval: tuple[float, float] | None, number: int, n: int) -> Cell:
    if rate is None:
        return Cell(UNDEFINED)
    cell = _per_cent(measure(rate, interval))
    return Cell(cell.text, f"{number} of {n}: {cell.small}")


def _per_cent(cell: Cell) -> Cell:
    """With its unit."""
    return cell if cell.text == UNDEFINED else Cell(f"{cell.text} %", f"{cell.small} %" if cell.small else "")
