"""Threads: as many as the cgroup grants, and only for work that is worth it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cabildo_kernels import InvalidInput, threads

if TYPE_CHECKING:
    from pathlib import Path


def version_2(folder: Path, *, limits: dict[str, str]) -> Path:
    own = folder / "own"
    own.write_text("0::/pods/one\n")
    for name, limit in limits.items():
        place = folder / "cgroup" / name
        place.mkdir(parents=True, exist_ok=True)
        (place / "cpu.max").write_text(limit)
    return own


@pytest.mark.parametrize(
    ("limits", "cpus"),
    [
        ({"pods/one": "200000 100000\n"}, 2.0),
        ({"pods/one": "max 100000\n"}, None),
        ({"pods/one": "max 100000\n", "pods": "150000 100000\n"}, 1.5),
        ({"pods/one": "400000 100000\n", "pods": "300000 100000\n", "": "max 100000"}, 3.0),
        ({"pods/one": "nonsense"}, None),
        ({}, None),
    ],
)
def test_the_least_quota_above_counts(
    tmp_path: Path, limits: dict[str, str], cpus: float | None
) -> None:
    own = version_2(tmp_path, limits=limits)
    assert threads.cgroup_quota(cgroups=tmp_path / "cgroup", own=own) == cpus


@pytest.mark.parametrize(("quota", "cpus"), [("250000", 2.5), ("-1", None)])
def test_a_quota_of_cgroup_version_1_counts_too(
    tmp_path: Path, quota: str, cpus: float | None
) -> None:
    own = tmp_path / "own"
    own.write_text("5:memory:/pod\n4:cpu,cpuacct:/pod\n")
    folder = tmp_path / "cgroup" / "cpu,cpuacct" / "pod"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text(quota)
    (folder / "cpu.cfs_period_us").write_text("100000")
    assert threads.cgroup_quota(cgroups=tmp_path / "cgroup", own=own) == cpus


def test_no_cgroup_is_no_quota(tmp_path: Path) -> None:
    assert threads.cgroup_quota(own=tmp_path / "none") is None


@pytest.mark.parametrize(("limit", "count"), [(None, 8), (0.5, 1), (2.9, 2), (64.0, 8)])
def test_a_thread_for_each_whole_cpu(
    monkeypatch: pytest.MonkeyPatch, limit: float | None, count: int
) -> None:
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(threads, "cgroup_quota", lambda: limit)
    threads.quota.cache_clear()
    try:
        assert threads.quota() == count
    finally:
        threads.quota.cache_clear()


def test_only_inputs_that_are_worth_it_get_more_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "quota", lambda: 4)
    assert threads.threads_for((1 << 20) - 1, asked=None) == 1
    assert threads.threads_for(1 << 20, asked=None) == 4
    assert threads.threads_for(10, asked=3) == 3
    assert threads.threads_for(10, asked=10_000) == threads.MOST
    with pytest.raises(InvalidInput, match="threads=0"):
        threads.threads_for(10, asked=0)
