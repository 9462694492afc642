"""The images that are shipped: what is in them, what is not, and that they come out the same.

Builds the operator's image in a cache of its own, as a fresh machine does: a Debian, pip,
the dependencies, our wheels (about 90 s).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from cabildo_local.buildah import Build, Buildah
from cabildo_local.image_sources import SOURCES, Choices, read_keys, take_snapshot
from cabildo_local.image_store import serve_store, store_folder
from cabildo_local.images import BuiltImage, build
from cabildo_local.packages import ensure_packages
from cabildo_local.pip_access import write_secrets
from cabildo_local.registry_client import Image, RegistryClient
from cabildo_local.reporter import SilentReporter
from cabildo_local.settings import default_cache, find_checkout
from cabildo_local.system_image import recipes

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="buildah needs root here")

MARKER = "cabildo-leak-test.invalid"


@dataclass(frozen=True)
class Shipped:
    """The operator's image as a fresh machine makes it."""

    cache: Path
    checkout: Path
    built: BuiltImage
    image: Image

    def layer_file(self, position: int, *, image: Image | None = None) -> Path:
        layer = (image or self.image).manifest["layers"][position]
        digest = layer["digest"].removeprefix("sha256:")
        blobs = store_folder(self.cache) / "docker/registry/v2/blobs/sha256"
        return blobs / digest[:2] / digest / "data"

    def files(self, image: Image) -> dict[str, tuple[int, str]]:
        """Mode and content's digest of every file that a container would see."""
        found = {}
        for position in range(len(image.manifest["layers"])):
            with tarfile.open(self.layer_file(position, image=image)) as tar:
                for entry in tar:
                    body = tar.extractfile(entry) if entry.isfile() else None
                    content = body.read() if body else entry.linkname.encode()
                    name = entry.name.removeprefix("./").rstrip("/")
                    found[name] = (entry.mode, hashlib.sha256(content).hexdigest())
        return found


def copy_checkout(folder: Path) -> Path:
    """Copy what both images are built from: somebody may be working in the checkout."""
    choices = Choices.from_environment()
    for target in SOURCES:
        part = folder / target
        part.mkdir()
        take_snapshot(target, checkout=find_checkout(), folder=part, choices=choices)
        shutil.copytree(part, folder / "both", dirs_exist_ok=True)
    return folder / "both"


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    ensure_packages(reporter=SilentReporter())
    cache = tmp_path_factory.mktemp("cache")
    checkout = copy_checkout(tmp_path_factory.mktemp("checkout"))
    with pytest.MonkeyPatch.context() as patch:
        # A setting of this machine's that changes nothing, but could be found in an image.
        patch.setenv("PIP_TRUSTED_HOST", MARKER)
        built = build("operator", checkout=find_checkout(), reporter=SilentReporter(), cache=cache)
    with serve_store(cache) as address:
        image = RegistryClient(address).image(built.name, reference=built.tag)
    return Shipped(cache, checkout, built, image)


@pytest.fixture(scope="module")
def unpacked(shipped: Shipped, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image's files, as a container sees them."""
    folder = tmp_path_factory.mktemp("root")
    folder.chmod(0o755)
    for position in range(len(shipped.image.manifest["layers"])):
        subprocess.run(
            ["tar", "-C", str(folder), "-xzf", str(shipped.layer_file(position))], check=True
        )
    return folder


def run_in(root: Path, shipped: Shipped, code: str) -> str:
    return subprocess.run(
        ["chroot", "--userspec=65532:65532", str(root), "python3", "-c", code],
        env=dict(entry.split("=", 1) for entry in shipped.image.config["config"]["Env"]),
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_it_is_three_layers(shipped: Shipped) -> None:
    assert len(shipped.image.manifest["layers"]) == 3


def test_nothing_of_the_building_machine_is_in_it(shipped: Shipped) -> None:
    told = [MARKER.encode(), str(shipped.checkout).encode(), str(shipped.cache).encode()]
    for position in range(3):
        content = gzip.decompress(shipped.layer_file(position).read_bytes())
        for text in told:
            assert text not in content, (position, text)
    assert MARKER not in json.dumps(shipped.image.config)


def test_no_file_of_a_build_is_left_in_it(shipped: Shipped) -> None:
    names = set(shipped.files(shipped.image))
    assert not {name for name in names if "run/secrets/" in name or name.endswith("pip.conf")}
    assert not {name for name in names if "/pip/" in name and "site-packages" in name}
    assert not {name for name in names if name.startswith(("tmp/", "src/", "wheels/"))}
    assert "etc/apt/sources.list" not in names


def test_the_kubernetes_client_is_not_in_it(shipped: Shipped, unpacked: Path) -> None:
    code = "import importlib.util as u; print(u.find_spec('kubernetes'), u.find_spec('kopf'))"
    assert run_in(unpacked, shipped, code).startswith("None ModuleSpec")


def test_it_runs_our_packages_as_nobody_special(shipped: Shipped, unpacked: Path) -> None:
    code = (
        "import cabildo_operator, cabildo_api, os, sys;"
        "print(cabildo_operator.__file__, os.getuid(), sys.flags.safe_path,"
        " sys.dont_write_bytecode)"
    )
    assert run_in(unpacked, shipped, code).split() == [
        "/opt/cabildo/code/cabildo_operator/__init__.py",
        "65532",
        "True",
        "True",
    ]
    config = shipped.image.config["config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["python3", "-m", "cabildo_operator"]


def test_its_bytecode_is_valid_whatever_time_its_files_have(
    shipped: Shipped, unpacked: Path
) -> None:
    for module in ("kopf", "cabildo_api"):
        code = f"import {module}; print({module}.__cached__)"
        cached = unpacked / run_in(unpacked, shipped, code).strip().lstrip("/")
        # PEP 552: flags 0b01 say "by hash", without 0b10 "never checked".
        assert int.from_bytes(cached.read_bytes()[4:8], "little") == 0b01


def test_it_is_what_the_dockerfile_alone_makes(shipped: Shipped) -> None:
    """`docker build --target operator .` gives the layers that were stacked."""
    checkout = shipped.checkout
    choices = Choices.from_environment()
    keys = read_keys("operator", checkout=checkout, choices=choices, recipes=recipes())
    buildah = Buildah(shipped.cache / "buildah", reporter=SilentReporter())
    with buildah.exclusive(), serve_store(shipped.cache) as address:
        context = buildah.scratch / "context"
        take_snapshot("operator", checkout=checkout, folder=context, choices=choices)
        buildah.build(
            Build(
                context=context,
                target="operator",
                output=f"docker://{address}/plain:plain",
                arguments={"BASE": f"localhost/cabildo/system:{keys.system}"},
                secrets=write_secrets(buildah.scratch, environment=os.environ),
            )
        )
        plain = RegistryClient(address).image("plain", reference="plain")
    ours, theirs = shipped.files(shipped.image), shipped.files(plain)
    assert {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)} == (
        set()
    )
    assert plain.config["config"] == shipped.image.config["config"]


def test_a_changed_operator_leaves_the_trainer_as_it_was(tmp_path: Path) -> None:
    """On the machine's own cache: the trainer's dependencies take minutes to make."""
    checkout = copy_checkout(tmp_path)

    def make(target: str) -> BuiltImage:
        return build(target, checkout=checkout, reporter=SilentReporter(), cache=default_cache())

    operator, trainer = make("operator"), make("trainer")
    marker = checkout / "operator/cabildo_operator/__init__.py"
    marker.write_text(f"{marker.read_text()}\n# {tmp_path.name} {time.time_ns()}\n")
    began = time.monotonic()
    changed = make("operator")
    print(f"a changed line of Python is in the registry after {time.monotonic() - began:.1f} s")
    assert changed.digest != operator.digest
    assert make("trainer") == trainer
