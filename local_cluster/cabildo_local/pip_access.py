"""What pip needs on this machine to reach its index, passed to a build and never kept.

Here: the machine's pip settings and its certificates as two files that a build mounts as
secrets. Never here: the build (images.py); an image holds neither file.
"""

from __future__ import annotations

import configparser
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

CERTIFICATES_INSIDE = "/run/secrets/ca.pem"
DEBIAN_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"

PASSED_ON = ("index-url", "extra-index-url", "trusted-host", "proxy", "retries", "timeout")
"""What says where an index is; the rest of the machine's settings is its own business."""

OTHER_NAMES = {"default-timeout": "timeout"}


def write_secrets(folder: Path, *, environment: Mapping[str, str]) -> dict[str, Path]:
    """Write the files into a folder and return them by the ids the Dockerfile uses.

    Args:
        folder: A private folder; the caller removes it.
        environment: Variables that pip and OpenSSL heed.
    """
    settings = configparser.RawConfigParser()
    settings["global"] = read_settings(environment)
    secrets = {"pip.conf": folder / "pip.conf"}
    if (bundle := _certificates(environment)) is not None:
        settings["global"]["cert"] = CERTIFICATES_INSIDE
        secrets["ca.pem"] = folder / "ca.pem"
        secrets["ca.pem"].write_bytes(bundle.read_bytes())
    # An index's address may hold a password.
    secrets["pip.conf"].touch(mode=0o600)
    with secrets["pip.conf"].open("w") as stream:
        settings.write(stream)
    return secrets


def read_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return pip's settings that are passed on, from its files and the environment.

    Args:
        environment: PIP_... variables win over files, as with pip.
    """
    home = Path(environment.get("HOME") or Path.home())
    files = [Path("/etc/pip.conf"), home / ".pip/pip.conf", home / ".config/pip/pip.conf"]
    if own := environment.get("PIP_CONFIG_FILE"):
        files.append(Path(own))
    parser = configparser.RawConfigParser(strict=False)
    parser.read(files)
    found: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            found |= dict(parser.items(section))
    found |= {
        name.removeprefix("PIP_").lower().replace("_", "-"): value
        for name, value in environment.items()
        if name.startswith("PIP_")
    }
    found = {OTHER_NAMES.get(name, name): value for name, value in found.items()}
    return {name: found[name] for name in PASSED_ON if found.get(name)}


def _certificates(environment: Mapping[str, str]) -> Path | None:
    """Return the file of certificates that this machine trusts."""
    named = [environment.get(name) for name in ("PIP_CERT", "SSL_CERT_FILE")]
    for candidate in (*named, DEBIAN_CERTIFICATES, ssl.get_default_verify_paths().cafile):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    return None
