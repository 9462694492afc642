"""Support code of the tests: what several of them need, importable as `support`.

Here: a plain JSON client, waiting by watching, the operator as a host process, faults.
Never here: assertions about the product (they stand in the tests) or mocks of it.
"""

from pathlib import Path

import pytest

# A failed assert in one of these tells its values, as one in a test does.
pytest.register_assert_rewrite(
    *(f"{__name__}.{one.stem}" for one in Path(__file__).parent.glob("[!_]*.py"))
)
