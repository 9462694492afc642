"""Memory is tiles, not models (the large case is in tests/long/test_merge_streaming.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.streaming import MEBIBYTE, make_models, merged

if TYPE_CHECKING:
    from pathlib import Path

MODELS = 8


def test_models_four_times_as_large_take_no_more_memory(tmp_path: Path) -> None:
    peaks = {}
    for size_bytes in (16 * MEBIBYTE, 64 * MEBIBYTE):
        folder = tmp_path / str(size_bytes)
        folder.mkdir()
        paths = make_models(folder, models=MODELS, size_bytes=size_bytes)
        cost = merged(
            paths, folder / "out", "--rule", "multiKrum", "--maximum-faulty", "2", "--threads", "2"
        )
        peaks[size_bytes] = cost.peak_bytes
        # The Gram pass, and the pass over those that were picked (some are, not all).
        assert MODELS * size_bytes < cost.read_bytes <= 2 * MODELS * size_bytes
        for path in paths.values():
            path.unlink()
    small, large = peaks.values()
    assert large < 256 * MEBIBYTE
    assert large < MODELS * 64 * MEBIBYTE / 2
    assert large <= 1.1 * small


def test_ranks_are_taken_in_rows_of_any_length_without_whole_tensors(tmp_path: Path) -> None:
    """50 257 has no factor in common with a superblock; a vocabulary has that many words."""
    peaks = {}
    for size_bytes in (8 * MEBIBYTE, 24 * MEBIBYTE):
        folder = tmp_path / str(size_bytes)
        folder.mkdir()
        paths = make_models(folder, models=MODELS, size_bytes=size_bytes, columns=50_257)
        options = ["--rule", "della", "--seed", "00ff", "--threads", "2"]
        cost = merged(paths, folder / "out", *options, "--base", str(paths["p00"]))
        peaks[size_bytes] = cost.peak_bytes
        # One pass over the models and the base; the rows that fit may be a little less.
        assert cost.read_bytes <= (MODELS + 1) * size_bytes
        for path in paths.values():
            path.unlink()
    small, large = peaks.values()
    assert large < 256 * MEBIBYTE
    assert large <= 1.1 * small
