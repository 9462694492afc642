"""Numbers per row computed from columns: the members of the API's `Series`.

Here: one function a member, with the exact cell in each error. Never here: windows and splits.
Next: `prepared.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cabildo_api.data import Series
    from cabildo_trainer.data.table import Table

Numbers = npt.NDArray[np.float64]


def columns_of(series: Iterable[Series]) -> tuple[str, ...]:
    """Returns the columns of numbers that some series need, each once."""
    names: dict[str, None] = {}
    for item in series:
        if item.column is not None:
            names[item.column.name] = None
        elif item.log is not None:
            names[item.log.column] = None
        elif item.log_return is not None:
            names[item.log_return.column] = None
        elif item.log_range is not None:
            names |= dict.fromkeys((item.log_range.high, item.log_range.low))
    return tuple(names)


def compute(series: Series, *, table: Table) -> Numbers:
    """Returns one number per row; NaN where a series is not defined yet (a return's first row).

    Raises:
        BadDataError: A value has no logarithm; the message names file, row and column.
    """
    if series.column is not None:
        return np.asarray(table.columns[series.column.name])
    if series.log is not None:
        return np.log(_positive(table, column=series.log.column))
    if series.log_return is not None:
        logs = np.log(_positive(table, column=series.log_return.column))
        return np.concatenate([[np.nan], np.diff(logs)])
    assert series.log_range is not None
    return _log_range(table, high=series.log_range.high, low=series.log_range.low)


def _positive(table: Table, *, column: str) -> Numbers:
    values = np.asarray(table.columns[column])
    bad = np.flatnonzero(values <= 0)
    if bad.size:
        index = int(bad[0])
        raise table.fault(
            index, column=column, problem=f"{values[index]:g} has no logarithm: it is not above 0"
        )
    return values


def _log_range(table: Table, *, high: str, low: str) -> Numbers:
    highs, lows = _positive(table, column=high), _positive(table, column=low)
    bad = np.flatnonzero(highs <= lows)
    if bad.size:
        index = int(bad[0])
        raise table.fault(
            index,
            column=high,
            problem=f"{highs[index]:g} is not above {low!r} ({lows[index]:g}),"
            " so the range has no logarithm",
        )
    return np.log(np.log(highs / lows))
