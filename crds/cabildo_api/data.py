"""The data of a run: where rows come from, what is read out of them, how they are split.

Here: sources, series, window and splits. Never here: reading a file; that is the trainer's
`data/`. Next: `limits.py`.
"""

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from cabildo_api.base import ApiModel, MapKey, OneOf, Remedy, Rule
from cabildo_api.scalars import ColumnName, ItemName

CLAIM_URI: Final = r"^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[^/].*$"
FEATURE_NAME: Final = r"^[A-Za-z_][-A-Za-z0-9_.]*$"
SPLIT_TOLERANCE: Final = 1e-6


class BuiltinData(ApiModel):
    """A series that the trainer image carries."""

    name: Literal["sp500"] = "sp500"
    """Which series: sp500 is daily OHLCV of the S&P 500, 1999 to 2018, 5,031 rows."""


class FileData(ApiModel):
    """A file on a volume of the job's namespace."""

    rules = (
        Rule(
            cel="!self.uri.contains('/../') && !self.uri.endsWith('/..')",
            holds=lambda self: ".." not in self.uri.split("/"),
            message="uri is '{uri}': write the path inside the claim without '..'",
            field=".uri",
        ),
    )

    uri: Annotated[
        str,
        StringConstraints(pattern=CLAIM_URI, max_length=1024),
        Remedy("write pvc://CLAIM/PATH, for example pvc://prices/sp500.csv"),
    ]
    """Where the file lies: pvc://CLAIM/PATH. The claim is mounted read-only."""
    format: Literal["csv"] = "csv"
    """How the file is encoded: csv with a header line."""

    @property
    def claim(self) -> str:
        """The name of the claim in `uri`."""
        return self.uri.removeprefix("pvc://").split("/", 1)[0]

    @property
    def path(self) -> str:
        """The path inside the claim in `uri`."""
        return self.uri.removeprefix("pvc://").split("/", 1)[1]


class DataSource(OneOf):
    """One source of rows: its name, its role and its origin."""

    name: ItemName
    """Name of the source, unique in the list."""
    role: Literal["train"] = "train"
    """What its rows are for: train means that they are split into train, validation and test."""
    builtin: BuiltinData | None = None
    """A series that the trainer image carries."""
    file: FileData | None = None
    """A file on a volume."""


class ColumnSeries(ApiModel):
    """A column as it is."""

    name: ColumnName
    """Name of the column in the header."""


class LogSeries(ApiModel):
    """The natural logarithm of a column."""

    column: ColumnName
    """Name of the column in the header; its values must be above 0."""


class LogReturnSeries(ApiModel):
    """The natural logarithm of a column over the row before."""

    column: ColumnName
    """Name of the column in the header; its values must be above 0."""


class LogRangeSeries(ApiModel):
    """ln(ln(high / low)): the logarithm of a day's range, a measure of volatility."""

    high: ColumnName = "High"
    """Name of the column of the highest price."""
    low: ColumnName = "Low"
    """Name of the column of the lowest price."""


class Series(OneOf):
    """A number per row, computed from columns: exactly one member."""

    column: ColumnSeries | None = None
    """A column as it is."""
    log: LogSeries | None = None
    """The natural logarithm of a column."""
    log_return: LogReturnSeries | None = None
    """The change of a column's logarithm from the row before."""
    log_range: LogRangeSeries | None = None
    """The logarithm of the range between two columns."""


class Feature(Series):
    """A named input of the model, a number per row."""

    name: Annotated[
        str,
        StringConstraints(pattern=FEATURE_NAME, min_length=1, max_length=63),
        Remedy("start with a letter or '_', then letters, digits, '_', '-' and '.'"),
    ]
    """Name of the feature, unique in the list."""


class Window(ApiModel):
    """The stretch of rows behind one forecast."""

    length: Annotated[int, Field(ge=1, le=4096)] = 60
    """Rows that the model sees."""
    horizon: Annotated[int, Field(ge=1, le=4096)] = 1
    """Rows from the last one seen to the one forecast."""


Share = Annotated[
    float,
    Field(gt=0, lt=1),
    Remedy("write a ratio between 0 and 1; the three splits sum to 1"),
]


class Splits(ApiModel):
    """Chronological split by row; normalisation is fitted on the train rows only."""

    rules = (
        Rule(
            cel=(
                "self.train + self.validation + self.test >= 0.999999"
                " && self.train + self.validation + self.test <= 1.000001"
            ),
            holds=lambda self: abs(self.train + self.validation + self.test - 1) <= SPLIT_TOLERANCE,
            message=(
                "train {train}, validation {validation} and test {test} do not sum to 1:"
                " change one of them so that they do"
            ),
        ),
    )

    train: Share = 0.7
    """Share of the rows, from the first on, that train the model, as a ratio."""
    validation: Share = 0.15
    """Share of the rows, next in time, that choose the best checkpoint, as a ratio."""
    test: Share = 0.15
    """Share of the rows, last in time, on which the result is computed, as a ratio."""


class Data(ApiModel):
    """What the model learns from."""

    sources: Annotated[tuple[DataSource, ...], Field(min_length=1, max_length=1), MapKey("name")]
    """Where the rows come from; one source."""
    date_column: ColumnName = "Date"
    """Name of the column of dates, which must rise from row to row."""
    target: Series
    """What is forecast."""
    features: Annotated[tuple[Feature, ...], Field(min_length=1, max_length=64), MapKey("name")]
    """What the model sees of each row in the window."""
    window: Window = Window()
    """How far back the model sees, and how far ahead it forecasts."""
    splits: Splits = Splits()
    """Which rows train, validate and test."""
