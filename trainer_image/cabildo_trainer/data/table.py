"""A CSV file, read and checked to the cell before anything heavy is imported.

Here: opening, parsing and the exact errors (file, row, column). Standard library only, so that bad
data ends a pod within a second. Never here: what a column means; that is `series.py`. Next:
`sources.py` says which file, `series.py` what to compute.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cabildo_trainer.errors import BadDataError

if TYPE_CHECKING:
    from _csv import Reader
    from pathlib import Path

HEADER_ROW: Final = 1
VALUE_SHOWN: Final = 40
"""Characters of a bad cell that a message repeats."""

DateParser = Callable[[str], datetime]


@dataclass(frozen=True, slots=True)
class Table:
    """The columns that a run needs, each with one finite number per row.

    Attributes:
        file: Name for messages.
        digest: `sha256:<hex>` of the file's bytes, decompressed.
        dates: Date of each row, rising.
        columns: Numbers by column name.
        rows: Row of the file that each entry came from; the header is row 1.
    """

    file: str
    digest: str
    dates: tuple[datetime, ...]
    columns: dict[str, list[float]]
    rows: tuple[int, ...]

    def fault(self, index: int, *, column: str, problem: str) -> BadDataError:
        """Returns the error for an entry of a column."""
        return cell_fault(self.file, row=self.rows[index], column=column, problem=problem)


def cell_fault(file: str, *, row: int, column: str, problem: str) -> BadDataError:
    """Returns an error that names file, row and column."""
    return BadDataError(f"{file}: row {row}, column {column!r}: {problem}")


def iso_date(text: str) -> datetime:
    """Returns the time of an ISO 8601 date such as 2018-12-31 or 2018-12-31T16:00:00."""
    date = datetime.fromisoformat(text)
    return date.astimezone(UTC).replace(tzinfo=None) if date.tzinfo else date


def us_date(text: str) -> datetime:
    """Returns the time of a date written as month/day/year, such as 12/31/2018."""
    return datetime.strptime(text, "%m/%d/%Y")  # noqa: DTZ007 - a trading day has no zone


def read_table(
    path: Path,
    *,
    file: str,
    date_column: str,
    columns: Iterable[str],
    parse_date: DateParser = iso_date,
) -> Table:
    """Returns the named columns of a CSV file, `.gz` or plain, UTF-8, with a header.

    Args:
        path: The file.
        file: How messages name it.
        date_column: Column whose dates rise from row to row.
        columns: Columns of numbers to read; others are not looked at.
        parse_date: Reads one date.

    Raises:
        BadDataError: The file is missing or unreadable, or a cell is wrong.
    """
    text, digest = _read(path, file=file)
    reader = csv.reader(io.StringIO(text), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        names = (date_column, *dict.fromkeys(columns))
        layout = _Layout(
            file=file,
            names=names,
            positions=tuple(_position(header, name, file=file) for name in names),
            width=len(header),
            parse_date=parse_date,
        )
        return layout.read(_numbered(reader), digest=digest)
    except csv.Error as error:
        raise BadDataError(
            f"{file}: row {reader.line_num}, column 1: not valid CSV: {error}"
        ) from error


def _numbered(reader: Reader) -> Iterator[tuple[int, list[str]]]:
    """Yields rows that are not blank, each with its number in the file."""
    previous = reader.line_num
    for cells in reader:
        # A quoted cell may span lines: a row is named by its first line, as editors show it.
        row, previous = previous + 1, reader.line_num
        if cells:
            yield row, cells


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the wanted columns are, and how a row is read; the date column comes first."""

    file: str
    names: tuple[str, ...]
    positions: tuple[int, ...]
    width: int
    parse_date: DateParser

    def read(self, rows: Iterator[tuple[int, list[str]]], *, digest: str) -> Table:
        dates: list[datetime] = []
        numbers: list[int] = []
        values: list[list[float]] = [[] for _ in self.names[1:]]
        for row, cells in rows:
            self._check_width(cells, row=row)
            dates.append(self._date(cells[self.positions[0]], row=row, after=dates[-1:]))
            numbers.append(row)
            for series, position, name in zip(
                values, self.positions[1:], self.names[1:], strict=True
            ):
                series.append(self._number(cells[position], row=row, column=name))
        if not dates:
            raise self._fault(row=HEADER_ROW + 1, column=self.names[0], problem="there is no row")
        return Table(
            file=self.file,
            digest=digest,
            dates=tuple(dates),
            columns=dict(zip(self.names[1:], values, strict=True)),
            rows=tuple(numbers),
        )

    def _fault(self, *, row: int, column: str, problem: str) -> BadDataError:
        return cell_fault(self.file, row=row, column=column, problem=problem)

    def _check_width(self, cells: list[str], *, row: int) -> None:
        if len(cells) != self.width:
            raise self._fault(
                row=row,
                column=self.names[0],
                problem=f"the row has {len(cells)} cells, the header has {self.width}",
            )

    def _date(self, text: str, *, row: int, after: list[datetime]) -> datetime:
        try:
            date = self.parse_date(text.strip())
        except ValueError:
            problem = f"{_shown(text)} is not a date; write it as 2018-12-31"
            raise self._fault(row=row, column=self.names[0], problem=problem) from None
        if after and date <= after[0]:
            problem = f"{_shown(text)} does not come after the date of the row before"
            raise self._fault(row=row, column=self.names[0], problem=problem)
        return date

    def _number(self, text: str, *, row: int, column: str) -> float:
        try:
            value = float(text)
        except ValueError:
            problem = f"{_shown(text)} is not a number" if text.strip() else "the cell is empty"
            raise self._fault(row=row, column=column, problem=problem) from None
        if not math.isfinite(value):
            problem = f"{_shown(text)} is not a finite number"
            raise self._fault(row=row, column=column, problem=problem)
        return value


def _read(path: Path, *, file: str) -> tuple[str, str]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise BadDataError(
            f"{file}: the file does not exist",
            remedy="Check data.sources[].file.uri and what the claim holds.",
        ) from None
    except OSError as error:
        raise BadDataError(f"{file}: the file cannot be read: {error.strerror}") from error
    try:
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        text = content.decode("utf-8-sig")
    except (OSError, EOFError) as error:
        raise BadDataError(f"{file}: the file is not valid gzip: {error}") from error
    except UnicodeDecodeError as error:
        row = content[: error.start].count(b"\n") + HEADER_ROW
        raise BadDataError(f"{file}: row {row}, column 1: not UTF-8 text") from error
    return text, "sha256:" + hashlib.sha256(content).hexdigest()


def _position(header: Sequence[str], name: str, *, file: str) -> int:
    if header.count(name) == 1:
        return header.index(name)
    problem = "is there more than once" if name in header else "is missing"
    raise cell_fault(
        file,
        row=HEADER_ROW,
        column=name,
        problem=f"the column {problem}; the header has {', '.join(header) or 'no column'}",
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= VALUE_SHOWN else text[: VALUE_SHOWN - 3] + "...")
