"""What a cluster may be called and made of, and where it keeps things."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cabildo_local import settings as settings_module
from cabildo_local.errors import NotACheckoutError, SettingsError
from cabildo_local.settings import (
    ClusterSettings,
    default_cache,
    default_state_root,
    find_checkout,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", ["cabildo", "a", "a2-x", "0", "a" * 24])
def test_dns_labels_are_names(name: str) -> None:
    assert ClusterSettings(name=name).folder.name == name


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a.b", "../x", "a" * 25, "a/b"])
def test_what_is_no_dns_label_is_refused_by_name(name: str) -> None:
    with pytest.raises(SettingsError, match="name"):
        ClusterSettings(name=name)


@pytest.mark.parametrize("nodes", [-1, 61])
def test_the_number_of_nodes_is_bounded_and_the_remedy_says_how(nodes: int) -> None:
    with pytest.raises(SettingsError, match=rf"nodes: {nodes} .*0 for a control plane"):
        ClusterSettings(nodes=nodes)


@pytest.mark.parametrize("port", [0, 65536])
def test_ports_must_be_ports(port: int) -> None:
    with pytest.raises(SettingsError, match=f"api port: {port}"):
        ClusterSettings(api_port=port)
    with pytest.raises(SettingsError, match=f"registry port: {port}"):
        ClusterSettings(registry_port=port)


def test_one_port_cannot_serve_both() -> None:
    with pytest.raises(SettingsError, match="both 7000"):
        ClusterSettings(api_port=7000, registry_port=7000)


@pytest.mark.parametrize(
    ("cidr", "reason"),
    [
        ("10.0.0.0/17", "too small"),
        ("10.0.0.1/16", "host bits"),
        ("here", "no IPv4 network"),
        ("fd00::/16", "no IPv4 network"),
    ],
)
def test_a_range_must_be_a_network_that_is_large_enough(cidr: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        ClusterSettings(cidr=cidr)


def test_a_large_range_is_taken() -> None:
    assert ClusterSettings(cidr="10.0.0.0/12").cidr == "10.0.0.0/12"


def test_folders_follow_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("CABILDO_CACHE", "CABILDO_STATE", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    assert default_cache() == tmp_path / ".cache" / "cabildo"
    assert default_state_root() == tmp_path / ".local" / "state" / "cabildo"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "s"))
    assert default_cache() == tmp_path / "c" / "cabildo"
    assert default_state_root() == tmp_path / "s" / "cabildo"
    monkeypatch.setenv("CABILDO_CACHE", str(tmp_path / "own-cache"))
    monkeypatch.setenv("CABILDO_STATE", str(tmp_path / "own-state"))
    assert ClusterSettings().cache == tmp_path / "own-cache"
    assert ClusterSettings().state_root == tmp_path / "own-state"


def test_the_checkout_is_found_from_the_package() -> None:
    assert (find_checkout() / "local_cluster" / "tools").is_dir()


def test_without_a_checkout_the_error_says_what_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed = tmp_path / "site-packages" / "cabildo_local" / "settings.py"
    monkeypatch.setattr(settings_module, "__file__", str(installed))
    with pytest.raises(NotACheckoutError, match=r"needs a checkout.*clone it"):
        find_checkout()
