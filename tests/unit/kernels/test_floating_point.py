"""The fallback's floating-point environment: IEEE defaults within, the caller's afterwards."""

from __future__ import annotations

import numpy as np
import pytest

from cabildo_kernels import KernelError
from cabildo_kernels.fallback import floating_point
from cabildo_kernels.fallback.floating_point import default_environment, denormals_kept
from support.denormals import flushed_denormals


def test_denormals_are_kept_within_and_flushed_again_behind() -> None:
    tiny = np.array([1e-40], dtype=np.float32)
    with flushed_denormals():
        assert (tiny * np.float32(0.5))[0] == 0.0
        with default_environment():
            assert denormals_kept()
            assert (tiny * np.float32(0.5))[0] != 0.0
        assert (tiny * np.float32(0.5))[0] == 0.0


def test_the_callers_environment_comes_back_after_an_error() -> None:
    with flushed_denormals():
        with pytest.raises(ZeroDivisionError), default_environment():
            raise ZeroDivisionError
        assert not denormals_kept()


def test_a_thread_whose_flushing_cannot_be_switched_off_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(floating_point, "_library", lambda: None)
    with default_environment():
        pass
    with flushed_denormals(), pytest.raises(KernelError, match="denormals are flushed to zero"):  # noqa: SIM117
        with default_environment():
            pass
