"""CSV files for the trainer, good ones and bad ones, put on a claim of the local cluster.

Here: making rows and writing them to the folder behind a claim. Never here: judging them;
that is the trainer's work.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from support.kube import CLAIMS, Kube, Object
from support.volumes import claim_folder

if TYPE_CHECKING:
    from pathlib import Path

HEADER = "Date,Open,High,Low,Close,Volume"
ROWS = 600


def price_rows() -> list[list[str]]:
    """Return rows of a calm, made-up series: date, open, high, low, close, volume."""
    first = dt.date(2001, 1, 1)
    out = []
    for number in range(ROWS):
        close = 100 + number % 7 + number / 100
        high, low = close + 1 + number % 3, close - 1 - number % 5
        day = first + dt.timedelta(days=number)
        cells = (close - 0.5, high, low, close, 1000 + number)
        out.append([day.isoformat(), *(f"{cell:.2f}" for cell in cells)])
    return out


def csv_text(rows: list[list[str]]) -> str:
    """Return rows as a CSV file with its header."""
    return "\n".join([HEADER, *(",".join(row) for row in rows)]) + "\n"


def data_claim(kube: Kube, *, namespace: str, name: str = "prices") -> Path:
    """Make a claim for data, wait until it is bound, and return its host folder."""
    body: Object = {
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    kube.create(CLAIMS, body, namespace=namespace)
    return claim_folder(kube, namespace=namespace, claim=name)


def from_claim(path: str, *, claim: str = "prices") -> Object:
    """Return the `data` change that reads a CSV file from a claim."""
    source = {
        "name": "prices",
        "role": "train",
        "file": {"uri": f"pvc://{claim}/{path}", "format": "csv"},
    }
    return {"sources": [source]}
