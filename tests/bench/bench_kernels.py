"""How fast the kernels are: beside a pure read of the same memory, and beside the libraries.

    python tests/bench/bench_kernels.py [--only CASE] [--columns 10000000] [--file FILE]

One process, rounds in turn, the best of at least five (`contest.py`). `read` is the faster of a
read of 16 rows at once and one of 256 columns after 256 columns. Libraries get one thread: run with
OMP_NUM_THREADS=1, as `make bench-kernels` does. Every row has GB/s (what ours must read, from a
cache where it fits), the core's clock in GHz during the case, and the share of the FMA peak of its
cores in double precision: of the operations that the rule itself has in double, so the sums of a
trimmed mean but not its sort. The share is null where there are none: the median compares;
attention, routing, sparse softmax and the products compute in float32, digests in integers. Figures
go to `build/bench/kernels.json`; nothing is asserted. 10 million columns of 16 rows need about 2 GB
of memory.
"""

from __future__ import annotations

import argparse
import itertools
import os
from pathlib import Path

import layer_cases
import merging_cases
import torch
from contest import run_all
from report import Row, table, write

from cabildo_kernels import info


def measured(options: argparse.Namespace) -> list[Row]:
    """Run the cases."""
    return run_all(
        itertools.chain(
            layer_cases.contests(),
            merging_cases.contests(columns=options.columns, threads=info().threads),
        ),
        only=options.only,
    )


def main() -> None:
    """Measure, print a table, write the file."""
    parser = argparse.ArgumentParser(description="Benchmark the kernels.")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--columns", type=int, default=merging_cases.COLUMNS)
    parser.add_argument("--file", type=Path, default=Path("build/bench/kernels.json"))
    options = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        parser.error("set OMP_NUM_THREADS=1: the libraries are measured on one thread")
    torch.set_num_threads(1)
    rows = measured(options)
    print(table(rows))
    print(f"path: {info().isa}")
    write("kernels", command="make bench-kernels", rows=rows, file=options.file)


if __name__ == "__main__":
    main()
