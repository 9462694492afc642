"""A build gets what pip needs on this machine, and no more."""

from __future__ import annotations

import configparser
from typing import TYPE_CHECKING

import pytest

from cabildo_local.pip_access import CERTIFICATES_INSIDE, read_settings, write_secrets

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    path = tmp_path / "pip.conf"
    path.write_text(
        "[global]\nindex-url = https://files/simple\ncert = /some/where.pem\n"
        "find-links = /opt/wheels\n[install]\ntrusted-host = files\n[freeze]\ntimeout = 1\n"
    )
    return path


def test_where_the_index_is_is_passed_on(settings_file: Path) -> None:
    found = read_settings({"HOME": "/nowhere", "PIP_CONFIG_FILE": str(settings_file)})
    assert found["index-url"] == "https://files/simple"
    assert found["trusted-host"] == "files"


def test_paths_of_this_machine_are_not(settings_file: Path) -> None:
    found = read_settings({"HOME": "/nowhere", "PIP_CONFIG_FILE": str(settings_file)})
    assert not {"cert", "find-links"} & set(found)


def test_the_environment_wins(settings_file: Path) -> None:
    found = read_settings(
        {
            "HOME": "/nowhere",
            "PIP_CONFIG_FILE": str(settings_file),
            "PIP_INDEX_URL": "https://env/simple",
            "PIP_DEFAULT_TIMEOUT": "77",
            "PIP_NO_INPUT": "1",
        }
    )
    assert found["index-url"] == "https://env/simple"
    assert found["timeout"] == "77"
    assert "no-input" not in found


def test_settings_in_the_home_folder_are_read(tmp_path: Path) -> None:
    (tmp_path / ".config/pip").mkdir(parents=True)
    (tmp_path / ".config/pip/pip.conf").write_text("[global]\nproxy = http://proxy:1\n")
    assert read_settings({"HOME": str(tmp_path)})["proxy"] == "http://proxy:1"


def test_the_machines_certificates_go_along(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("certificates")
    (tmp_path / "out").mkdir()
    secrets = write_secrets(tmp_path / "out", environment={"PIP_CERT": str(bundle)})
    assert secrets["ca.pem"].read_text() == "certificates"
    written = configparser.RawConfigParser()
    written.read(secrets["pip.conf"])
    assert written["global"]["cert"] == CERTIFICATES_INSIDE
    # An index's address may hold a password.
    assert secrets["pip.conf"].stat().st_mode & 0o077 == 0
