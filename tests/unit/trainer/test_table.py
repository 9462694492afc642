"""Bad data ends with file, row and column; good data is read as it is written."""

from __future__ import annotations

import gzip
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from cabildo_trainer.data.table import Table, read_table, us_date
from cabildo_trainer.errors import BadDataError

if TYPE_CHECKING:
    from pathlib import Path

GOOD = "Date,High,Low\n2020-01-01,2,1\n2020-01-02,3,1.5\n"


def read(folder: Path, content: str | bytes, *, name: str = "daily.csv") -> Table:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(path, file="daily.csv", date_column="Date", columns=("High", "Low"))


def test_columns_dates_and_row_numbers_are_read(tmp_path: Path) -> None:
    table = read(tmp_path, GOOD)
    assert table.columns == {"High": [2.0, 3.0], "Low": [1.0, 1.5]}
    assert table.dates == (datetime(2020, 1, 1), datetime(2020, 1, 2))  # noqa: DTZ001
    assert table.rows == (2, 3)


def test_compressed_and_plain_files_are_the_same_data(tmp_path: Path) -> None:
    packed = read(tmp_path, gzip.compress(GOOD.encode()), name="daily.csv.gz")
    assert packed == read(tmp_path, GOOD)


def test_blank_lines_quoted_line_breaks_and_a_byte_order_mark_are_no_faults(tmp_path: Path) -> None:
    text = '\ufeffDate,Note,High,Low\n\n2020-01-01,"two\nlines",2,1\n2020-01-02,x,nan,1\n'
    with pytest.raises(BadDataError, match="row 5, column 'High': 'nan'"):
        read(tmp_path, text)


def test_times_with_a_zone_are_compared_in_utc(tmp_path: Path) -> None:
    text = "Date,High,Low\n2020-01-01T12:00:00+02:00,2,1\n2020-01-01T11:00:00Z,2,1\n"
    assert len(read(tmp_path, text).rows) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "row 1, column 'Date': the column is missing; the header has no column"),
        ("Date,High\n2020-01-01,1\n", "row 1, column 'Low': the column is missing"),
        ("Date,High,Low,Low\n", "row 1, column 'Low': the column is there more than once"),
        ("Date,High,Low\n", "row 2, column 'Date': there is no row"),
        (GOOD + "2020-01-03,nan,1\n", "row 4, column 'High': 'nan' is not a finite number"),
        (GOOD + "2020-01-03,2,-inf\n", "row 4, column 'Low': '-inf' is not a finite number"),
        (GOOD + "2020-01-03,,1\n", "row 4, column 'High': the cell is empty"),
        (GOOD + "2020-01-03,two,1\n", "row 4, column 'High': 'two' is not a number"),
        (GOOD + "2020-01-02,2,1\n", "row 4, column 'Date': '2020-01-02' does not come after"),
        (GOOD + "2019-01-02,2,1\n", "row 4, column 'Date': '2019-01-02' does not come after"),
        (GOOD + "3/1/2020,2,1\n", "row 4, column 'Date': '3/1/2020' is not a date"),
        (GOOD + "2020-01-03,2\n", "row 4, column 'Date': the row has 2 cells, the header has 3"),
        (GOOD + '2020-01-03,"2,1\n', "not valid CSV"),
        (GOOD + "2020-01-03," + "9" * 100 + "x,1\n", "9...' is not a number"),
    ],
)
def test_a_fault_names_file_row_and_column(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadDataError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith("daily.csv: row ")
    assert message in str(caught.value)


def test_a_file_that_is_not_text_names_the_row(tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match="row 4, column 1: not UTF-8"):
        read(tmp_path, GOOD.encode() + b"2020-01-03,\xff,1\n")
    with pytest.raises(BadDataError, match="not valid gzip"):
        read(tmp_path, b"not gzip", name="daily.csv.gz")


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match=r"gone\.csv: the file does not exist"):
        read_table(tmp_path / "x", file="gone.csv", date_column="Date", columns=())
    with pytest.raises(BadDataError, match=r"folder\.csv: the file cannot be read"):
        read_table(tmp_path, file="folder.csv", date_column="Date", columns=())


def test_builtin_series_have_their_own_dates() -> None:
    assert us_date("12/31/2018").date().isoformat() == "2018-12-31"
