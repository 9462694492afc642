"""The fixed grid on which all arithmetic stands: why the same inputs give the same bits.

A tensor's columns are cut into blocks and superblocks, counted from its first column; the last ones
are padded with zeros. Partial sums are added in the order of the grid. Threads and shards only
choose who computes a superblock. Changing a number here changes results: it makes a new version.
Never here: a loop over the grid.
"""

from __future__ import annotations

from typing import Final

GRID_VERSION: Final = "v1"
BLOCK: Final = 64
"""Columns whose products are summed before the sum joins the superblock's."""
SUPERBLOCK: Final = 24_576
"""Columns that one thread takes at a time; a multiple of BLOCK and of every vector's width."""


def superblocks(columns: int) -> int:
    """Return how many superblocks a tensor of so many columns has."""
    return -(-columns // SUPERBLOCK)
