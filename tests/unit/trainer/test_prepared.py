"""Splits by row in time, normalisation on the train rows, no look ahead; the baselines on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cabildo_api.data import Data
from cabildo_trainer import baselines
from cabildo_trainer.data.prepared import prepare
from cabildo_trainer.data.sources import load_source
from cabildo_trainer.errors import BadDataError, BadSpecError
from cabildo_trainer.report.scores import score, table

if TYPE_CHECKING:
    from pathlib import Path

    from cabildo_trainer.data.prepared import Prepared

SP500: dict[str, Any] = {
    "sources": [{"name": "prices", "builtin": {"name": "sp500"}}],
    "target": {"logRange": {}},
    "features": [
        {"name": "range", "logRange": {}},
        {"name": "return", "logReturn": {"column": "Close"}},
        {"name": "volume", "log": {"column": "Volume"}},
        {"name": "close", "column": {"name": "Close"}},
    ],
    "window": {"length": 22},
}


def sp500(folder: Path, **changes: Any) -> Prepared:
    return prepare(Data.model_validate(SP500 | changes), data_root=folder)


def from_file(folder: Path, lines: list[str], **changes: Any) -> Prepared:
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "mine" / "daily.csv").write_text("Date,High,Low\n" + "\n".join(lines) + "\n")
    source = {"name": "mine", "file": {"uri": "pvc://claim/daily.csv"}}
    features = [{"name": "high", "column": {"name": "High"}}]
    spec = {"sources": [source], "features": features, "window": {"length": 2}} | changes
    return prepare(Data.model_validate(SP500 | spec), data_root=folder)


def rising(rows: int) -> list[str]:
    first = np.datetime64("2020-01-01")
    return [f"{first + row},{row + 2 + row % 3},{row + 1}" for row in range(rows)]


def test_the_test_split_is_the_last_755_days_from_the_end_of_2015(tmp_path: Path) -> None:
    prepared = sp500(tmp_path)
    test = prepared.rows.test
    assert len(test) == 755
    assert f"{prepared.dates[test[0]]:%Y-%m-%d}" == "2015-12-31"
    assert test[-1] == 5030
    assert prepared.rows.validation[0] == 3521
    assert prepared.rows.validation[-1] + 1 == test[0]


def test_normalisation_knows_only_the_train_rows(tmp_path: Path) -> None:
    prepared = sp500(tmp_path)
    train = prepared.inputs[:3521]
    assert np.nanmean(train, axis=0) == pytest.approx(np.zeros(4), abs=1e-9)
    assert np.nanstd(train, axis=0) == pytest.approx(np.ones(4))
    assert prepared.target_mean == pytest.approx(prepared.target[:3521].mean())
    assert abs(np.nanmean(prepared.inputs[3521:], axis=0)).max() > 0.1


def test_a_return_has_no_first_row_and_no_window_may_hold_it(tmp_path: Path) -> None:
    prepared = sp500(tmp_path)
    assert np.isnan(prepared.inputs[0, 1])
    assert prepared.rows.train[0] == 23  # rows 1 to 22 are seen
    assert sp500(tmp_path, window={"length": 22, "horizon": 5}).rows.train[0] == 27


def test_the_baselines_have_the_known_scores(tmp_path: Path) -> None:
    prepared = sp500(tmp_path)
    scores = {
        name: score(forecast, prepared=prepared)
        for name, forecast in baselines.forecasts(prepared, seed=0).items()
    }
    assert scores["har"].r2 == pytest.approx(0.720, abs=0.005)
    assert scores["persistence"].r2 == pytest.approx(0.632, abs=0.005)
    assert scores["har"].r2_against_test_mean == pytest.approx(0.491, abs=0.005)
    assert scores["persistence"].r2_against_test_mean == pytest.approx(0.331, abs=0.005)
    assert 0.6 < scores["gradientBoostedTree"].r2 < 0.75
    text = table(scores, prepared=prepared)
    assert "755 test rows, 2015-12-31 to 2018-12-31" in text
    assert "har                     0.7206          0.4914    0.2111" in text


def test_the_baselines_hardly_depend_on_the_networks_window(tmp_path: Path) -> None:
    short = score(
        baselines.forecasts(sp500(tmp_path, window={"length": 2}), seed=0)["har"],
        prepared=sp500(tmp_path, window={"length": 2}),
    )
    assert short.r2 == pytest.approx(0.720, abs=0.005)


def test_a_series_too_short_for_a_month_has_persistence_alone(tmp_path: Path) -> None:
    prepared = from_file(tmp_path, rising(20))
    assert set(baselines.forecasts(prepared, seed=0)) == {"persistence"}


def test_a_value_without_a_logarithm_is_a_fault_of_its_cell(tmp_path: Path) -> None:
    lines = rising(30)
    with pytest.raises(
        BadDataError, match=r"pvc://claim/daily.csv: row 4, column 'High': 2 is not above 'Low'"
    ):
        from_file(tmp_path, [*lines[:2], "2020-01-03,2,2", *lines[3:]])
    with pytest.raises(BadDataError, match="row 2, column 'Low': 0 has no logarithm"):
        from_file(tmp_path, ["2020-01-01,2,0", *lines[1:]])


def test_a_target_that_never_changes_is_a_fault(tmp_path: Path) -> None:
    lines = [line.rsplit(",", 2)[0] + ",2,1" for line in rising(30)]
    with pytest.raises(BadDataError, match="the target is the same in all train rows"):
        from_file(tmp_path, lines)


def test_a_constant_feature_becomes_zero(tmp_path: Path) -> None:
    lines = [line.rsplit(",", 2)[0] + f",3,{1 + row % 2}" for row, line in enumerate(rising(30))]
    prepared = from_file(tmp_path, lines)
    assert not prepared.inputs.any()


def test_a_split_without_a_forecast_is_a_fault_of_the_spec(tmp_path: Path) -> None:
    with pytest.raises(BadSpecError, match="the train split holds no forecast: 30 rows") as caught:
        from_file(tmp_path, rising(30), window={"length": 29})
    assert "data.window" in caught.value.remedy


def test_a_builtin_series_that_the_image_lacks_is_a_fault_of_the_spec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(BadSpecError, match="this image has no 'arch' package"):
        load_source(Data.model_validate(SP500), columns=(), data_root=tmp_path)
