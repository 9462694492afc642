"""The grid and the tables that C and Python share."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import cabildo_kernels
from cabildo_kernels import BLOCK, SUPERBLOCK, columns, dispatch, grid, rows

NATIVE = Path(cabildo_kernels.__file__).parent / "native"


def test_superblocks_are_whole_blocks_and_the_last_may_be_short() -> None:
    assert SUPERBLOCK % BLOCK == 0
    assert [grid.superblocks(d) for d in (0, 1, SUPERBLOCK, SUPERBLOCK + 1)] == [0, 1, 1, 2]


def test_c_and_python_number_the_same_things_alike() -> None:
    header = (NATIVE / "columns.h").read_text()
    assert f"SUPERBLOCK = {SUPERBLOCK} " in header
    assert f"ROWS_MOST = {rows.MOST_ROWS}," in header
    assert "enum element_type { F32, F16, BF16 };" in header
    assert rows.ELEMENT_TYPES == ("f32", "f16", "bf16")
    names = re.search(r"enum column_rule \{ (.*) \};", header)
    assert names is not None
    for number, name in enumerate(names[1].split(", ")):
        assert getattr(columns, name) == number
    indices = ", ".join(f"PATH_INDEX_{name.upper()}" for name in dispatch.PATHS)
    assert f"enum {{ {indices} }};" in (NATIVE / "cpu.h").read_text()


def networks() -> dict[str, list[tuple[int, int]]]:
    source = (NATIVE / "networks.h").read_text().replace("\\\n", " ")
    return {
        match[1]: [(int(i), int(j)) for i, j in re.findall(r"C\((\d+), (\d+)\)", match[2])]
        for match in re.finditer(r"#define ((?:SORT|MERGE)_\d+)\(C\)(.*)", source)
    }


def after(network: list[tuple[int, int]], inputs: np.ndarray) -> np.ndarray:
    places = list(inputs.T.copy())
    for i, j in network:
        places[i], places[j] = np.minimum(places[i], places[j]), np.maximum(places[i], places[j])
    return np.stack(places)


@pytest.mark.parametrize("n", range(1, 17))
def test_a_network_that_sorts_all_zeros_and_ones_sorts_everything(n: int) -> None:
    inputs = ((np.arange(1 << n)[:, None] >> np.arange(n)) & 1).astype(np.uint8)
    assert (np.diff(after(networks()[f"SORT_{n}"], inputs).astype(np.int8), axis=0) >= 0).all()


def test_sixteen_values_take_sixty_comparators() -> None:
    assert len(networks()["SORT_16"]) == 60


@pytest.mark.parametrize("n", [32, 64])
def test_a_merge_that_sorts_all_pairs_of_sorted_halves_of_zeros_and_ones_merges(n: int) -> None:
    half = n // 2
    sorted_halves = np.tri(half + 1, half, -1, dtype=np.uint8)[:, ::-1]
    inputs = np.array([[*a, *b] for a in sorted_halves for b in sorted_halves])
    assert (np.diff(after(networks()[f"MERGE_{n}"], inputs).astype(np.int8), axis=0) >= 0).all()
