"""The origins of rows: the builtin series and files on mounted claims.

Here: from a source in the spec to a checked table. Never here: the arithmetic on columns. Next:
`series.py`.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cabildo_trainer.data.table import DateParser, Table, iso_date, read_table, us_date
from cabildo_trainer.errors import BadSpecError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cabildo_api.data import Data, DataSource

BUILTIN: Final[dict[str, tuple[str, str, DateParser]]] = {
    "sp500": ("arch", "data/sp500/sp500.csv.gz", us_date),
}
"""Builtin series: the package that ships the file, the file inside it, how its dates are
written."""


def load_source(data: Data, *, columns: Iterable[str], data_root: Path) -> Table:
    """Returns the rows of the spec's source.

    Args:
        data: The spec's `data`.
        columns: The columns of numbers that are needed.
        data_root: Folder with one folder a source, named after it.

    Raises:
        BadSpecError: There is more than one source, or a builtin one that this image lacks.
        BadDataError: A file is missing or a cell is wrong.
    """
    if len(data.sources) != 1:
        raise BadSpecError(f"data.sources has {len(data.sources)} items: keep exactly one")
    source = data.sources[0]
    path, file, parse_date = _locate(source, data_root=data_root)
    return read_table(
        path, file=file, date_column=data.date_column, columns=columns, parse_date=parse_date
    )


def _locate(source: DataSource, *, data_root: Path) -> tuple[Path, str, DateParser]:
    if source.file is not None:
        return data_root / source.name / source.file.path, source.file.uri, iso_date
    assert source.builtin is not None
    name = source.builtin.name
    package, inside, parse_date = BUILTIN[name]
    # Only the file is wanted: importing the package would take seconds.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise BadSpecError(
            f"data.sources[0].builtin.name is {name!r}, but this image has no {package!r} package",
            remedy="Use the Cabildo trainer image, or put the series on a claim as a CSV file.",
        )
    return Path(spec.submodule_search_locations[0]) / inside, f"builtin {name}", parse_date
