"""The task-vector kernels on 10^5 random calls: each compiled path gives the bits of NumPy.

`CABILDO_FUZZ_CASES` says how many calls (100,000 unless set), spread over the paths.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

from support.kernel_paths import COMPILED, on_path
from support.task_vector_cases import random_case, results

CASES = int(os.environ.get("CABILDO_FUZZ_CASES", "100000"))
CHUNKS = 8

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("isa", COMPILED)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_calls_give_the_bits_of_numpy(isa: str, chunk: int) -> None:
    random = np.random.default_rng([2028, chunk, COMPILED.index(isa)])
    for index in range(CASES // CHUNKS // len(COMPILED) + 1):
        case = random_case(random, columns=50_000 if index % 500 == 499 else None)
        with on_path(isa):
            ours = results(case, threads=1 + index % 3)
        with on_path("numpy"):
            theirs = results(case)
        assert ours == theirs, (index, {k: v for k, v in case.items() if k != "rows"})
