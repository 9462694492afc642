"""Support code of the tests: what several of them need, importable as `support`.

Here: a plain JSON client, waiting by watching, the operator as a host process, faults.
Never here: assertions about the product (they stand in the tests) or mocks of it.
"""

import pytest

pytest.register_assert_rewrite("support")  # a failed assert here tells its values, as in a test
