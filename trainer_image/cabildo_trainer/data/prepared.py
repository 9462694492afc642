"""Series cut into chronological splits and normalised on the train rows alone.

Here: which forecast belongs to which split, and the statistics that undo the normalisation. NumPy
only: baselines use it without torch. Never here: batches. Next: `windows.py` (torch) and
`baselines/`.

A forecast is named by its *target row* t: the model sees the rows t - horizon - length + 1 to
t - horizon. It belongs to the split of row t, so that no row is forecast in two splits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cabildo_trainer.data.series import Numbers, columns_of, compute
from cabildo_trainer.data.sources import load_source
from cabildo_trainer.errors import BadDataError, BadSpecError

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from cabildo_api.data import Data, Splits

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SplitRows:
    """Target rows of the forecasts of each split, rising."""

    train: Rows
    validation: Rows
    test: Rows


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a run trains on.

    Attributes:
        digest: `sha256:<hex>` of the source's bytes.
        dates: Date of each row.
        target: Target per row, in its own unit.
        inputs: Features per row, normalised: [rows, features].
        feature_names: Names of the features, in the order of `inputs`.
        target_mean: Mean of the target over the train rows.
        target_scale: Standard deviation of the target over the train rows.
        rows: Target rows by split.
        length: Rows that the model sees.
        horizon: Rows from the last one seen to the target.
    """

    digest: str
    dates: tuple[datetime, ...]
    target: Numbers
    inputs: Numbers
    feature_names: tuple[str, ...]
    target_mean: float
    target_scale: float
    rows: SplitRows
    length: int
    horizon: int

    @property
    def scaled_target(self) -> Numbers:
        """The target per row in train standard deviations from the train mean."""
        return (self.target - self.target_mean) / self.target_scale


def prepare(data: Data, *, data_root: Path) -> Prepared:
    """Returns the data of a run, read, checked, split and normalised.

    Raises:
        BadDataError: A file or a cell is wrong.
        BadSpecError: A split holds no forecast.
    """
    table = load_source(
        data, columns=columns_of((data.target, *data.features)), data_root=data_root
    )
    target = compute(data.target, table=table)
    features = np.stack([compute(feature, table=table) for feature in data.features], axis=1)
    train_end, test_start = split_bounds(len(target), splits=data.splits)
    train_target = _train_part(target, end=train_end)
    mean, scale = float(train_target.mean()), float(train_target.std())
    if scale == 0:
        raise BadDataError(f"{table.file}: the target is the same in all train rows")
    return Prepared(
        digest=table.digest,
        dates=table.dates,
        target=target,
        inputs=_normalised(features, end=train_end),
        feature_names=tuple(feature.name for feature in data.features),
        target_mean=mean,
        target_scale=scale,
        rows=_split_rows(
            defined=np.asarray(np.isfinite(features).all(axis=1)),
            first=data.window.length + data.window.horizon - 1,
            target=target,
            length=data.window.length,
            horizon=data.window.horizon,
            bounds=(train_end, test_start),
        ),
        length=data.window.length,
        horizon=data.window.horizon,
    )


def split_bounds(rows: int, *, splits: Splits) -> tuple[int, int]:
    """Returns the first validation row and the first test row: by row, in time."""
    # The shares are decimal fractions: 0.7 + 0.15 must not lose a row to binary rounding.
    train_end = int(rows * splits.train + 1e-6)
    test_start = int(rows * (splits.train + splits.validation) + 1e-6)
    return train_end, test_start


def _train_part(series: Numbers, *, end: int) -> Numbers:
    part = series[:end]
    return part[np.isfinite(part)]


def _normalised(features: Numbers, *, end: int) -> Numbers:
    train = features[:end]
    mean, scale = np.nanmean(train, axis=0), np.nanstd(train, axis=0)
    # A constant feature carries nothing: it becomes 0 instead of a division by 0.
    return np.asarray((features - mean) / np.where(scale > 0, scale, 1.0))


def _split_rows(
    *,
    defined: npt.NDArray[np.bool_],
    first: int,
    target: Numbers,
    length: int,
    horizon: int,
    bounds: tuple[int, int],
) -> SplitRows:
    candidates = np.arange(first, len(target))
    gaps = np.concatenate([[0], np.cumsum(~defined)])
    seen_from, seen_to = candidates - horizon - length + 1, candidates - horizon + 1
    usable = (gaps[seen_to] == gaps[seen_from]) & np.isfinite(target[candidates])
    candidates = candidates[usable]
    train_end, test_start = bounds
    rows = SplitRows(
        train=candidates[candidates < train_end],
        validation=candidates[(candidates >= train_end) & (candidates < test_start)],
        test=candidates[candidates >= test_start],
    )
    for name in ("train", "validation", "test"):
        if not getattr(rows, name).size:
            raise BadSpecError(
                f"the {name} split holds no forecast: {len(target)} rows with window.length"
                f" {length} and window.horizon {horizon}",
                remedy=f"Shorten data.window, enlarge data.splits.{name}, or give more rows.",
            )
    return rows
