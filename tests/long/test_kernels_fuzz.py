"""The column rules on 10^5 random calls: each compiled path gives the bits of NumPy.

`CABILDO_FUZZ_CASES` says how many calls (100,000 unless set), spread over the paths.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

from cabildo_kernels import NonFiniteInput
from support.column_cases import random_case, spoiled
from support.kernel_paths import COMPILED, on_path

CASES = int(os.environ.get("CABILDO_FUZZ_CASES", "100000"))
CHUNKS = 8

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("isa", COMPILED)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_calls_give_the_bits_of_numpy(isa: str, chunk: int) -> None:
    random = np.random.default_rng([2026, chunk, COMPILED.index(isa)])
    for index in range(CASES // CHUNKS // len(COMPILED) + 1):
        case = random_case(random, large=index % 100 == 99)
        with on_path(isa):
            ours = case.run()
        with on_path("numpy"):
            theirs = case.run()
        assert ours.dtype == theirs.dtype, str(case)
        assert ours.tobytes() == theirs.tobytes(), str(case)


@pytest.mark.parametrize("isa", COMPILED)
def test_rows_that_are_not_finite_are_named(isa: str) -> None:
    random = np.random.default_rng([2027, COMPILED.index(isa)])
    for index in range(CASES // 50):
        case = random_case(random, large=index % 100 == 99)
        if len(case.rows[0]) == 0:
            continue
        bad, rows = spoiled(random, case)
        with on_path(isa), pytest.raises(NonFiniteInput) as caught:
            bad.run()
        assert caught.value.rows == rows, str(case)
