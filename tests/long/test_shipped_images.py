"""The images that are shipped: what is in them, what is not, and that they come out the same.

Builds the operator's image in a cache of its own, as a fresh machine does: a Debian, pip,
the dependencies, our wheels (about 90 s). The trainer's comes from the machine's own cache, since
its dependencies take minutes to make; its code and kernels are made again beside it.
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
from pathlib import Path

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
from cabildo_local.system_image import make_debian, recipes

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="buildah needs root here")

MARKER = "cabildo-leak-test.invalid"

SITE_PACKAGES = "opt/cabildo/venv/lib/python3.11/site-packages"

COMPILERS = {"gcc", "gcc-12", "cc", "c99", "g++", "clang", "cc1", "cc1plus", "as", "ld", "Python.h"}

NATIVE = "opt/cabildo/code/cabildo_kernels/native"

MEDIAN = """
import numpy, cabildo_kernels
rows = [numpy.random.default_rng(seed).standard_normal(100_000, numpy.float32) for seed in range(9)]
print(cabildo_kernels.median(rows).tobytes().hex())
"""


@dataclass(frozen=True)
class Shipped:
    """An image in a store, and what it was built from."""

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
            found |= self.files_of(position, image=image)
        return found

    def files_of(self, position: int, *, image: Image | None = None) -> dict[str, tuple[int, str]]:
        """The same of one layer."""
        found = {}
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


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    ensure_packages(reporter=SilentReporter())
    cache, checkout = default_cache(), copy_checkout(tmp_path_factory.mktemp("checkout"))
    built = build("trainer", checkout=checkout, reporter=SilentReporter(), cache=cache)
    with serve_store(cache) as address:
        image = RegistryClient(address).image(built.name, reference=built.tag)
    return Shipped(cache, checkout, built, image)


@dataclass(frozen=True)
class Opened:
    """The trainer's image: all its files' names, and on disk what the kernels need of it."""

    names: set[str]
    root: Path


@pytest.fixture(scope="module")
def opened(trainer: Shipped, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """One pass over the layers; of 5 GB of dependencies, NumPy is unpacked."""
    root = tmp_path_factory.mktemp("trainer")
    root.chmod(0o755)
    names = set()
    for position in range(3):
        with tarfile.open(trainer.layer_file(position), mode="r|gz") as tar:
            for entry in tar:
                name = entry.name.removeprefix("./")
                names |= set() if entry.isdir() else {name}
                package = name.removeprefix(f"{SITE_PACKAGES}/")
                if package == name or package.startswith(("numpy", "cabildo.pth")):
                    tar.extract(entry, root, filter="tar")
    return Opened(names, root)


def run_in(root: Path, shipped: Shipped, code: str, **environment: str) -> str:
    settings = dict(entry.split("=", 1) for entry in shipped.image.config["config"]["Env"])
    return subprocess.run(
        ["chroot", "--userspec=65532:65532", str(root), "python3", "-c", code],
        env=settings | environment,
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


def test_the_trainer_is_three_layers_with_the_kernels_in_the_last(trainer: Shipped) -> None:
    assert len(trainer.image.manifest["layers"]) == 3
    sources = trainer.checkout / "kernels/cabildo_kernels/native"
    compiled = {Path(name).name.split(".")[0] for name in trainer.files_of(2) if ".so" in name}
    assert compiled == {path.stem for path in sources.glob("*.pyx")}
    assert f"{NATIVE}/__init__.py" in trainer.files_of(2)


def test_the_trainer_computes_with_compiled_kernels(trainer: Shipped, opened: Opened) -> None:
    code = "import cabildo_kernels; print(cabildo_kernels.info())"
    told = run_in(opened.root, trainer, code)
    print(told)
    assert "compiled=True" in told
    assert "isa='numpy'" not in told
    native = {path.name.split(".")[0] for path in opened.root.glob(f"{NATIVE}/*.so")}
    for name in native:
        run_in(opened.root, trainer, f"import cabildo_kernels.native.{name}")
    assert run_in(opened.root, trainer, MEDIAN) == (
        run_in(opened.root, trainer, MEDIAN, CABILDO_KERNELS_ISA="numpy")
    )


def test_the_trainer_has_no_compiler_and_nothing_to_compile(opened: Opened) -> None:
    programs = {name for name in opened.names if Path(name).name in COMPILERS}
    assert not {name for name in programs if not name.startswith(SITE_PACKAGES)}
    assert not {name for name in opened.names if name.startswith(f"{SITE_PACKAGES}/Cython/")}
    code = {name for name in opened.names if name.startswith("opt/cabildo/code/")}
    assert not {name for name in code if name.endswith((".pyx", ".c", ".h", "setup.py"))}


@pytest.mark.timeout(2400)
def test_the_trainers_code_is_what_the_dockerfile_alone_makes(
    trainer: Shipped, shipped: Shipped
) -> None:
    """Compiled again, by a compiler that was installed again: every file is the same."""
    choices = Choices.from_environment()
    keys = read_keys("trainer", checkout=trainer.checkout, choices=choices, recipes=recipes())
    buildah = Buildah(shipped.cache / "buildah", reporter=SilentReporter())
    stages = {}
    with buildah.exclusive(), serve_store(shipped.cache) as address:
        if choices.base is None:
            # A Debian of this machine's own names no mirror to install a compiler from.
            stages["compiler"] = f"localhost/cabildo/compiler:{keys.compiler}"
            make_debian("compiler", name=stages["compiler"], buildah=buildah, mirror=choices.mirror)
        context = buildah.scratch / "context"
        take_snapshot("trainer", checkout=trainer.checkout, folder=context, choices=choices)
        buildah.build(
            Build(
                context=context,
                target="trainer-code",
                output=f"docker://{address}/plain:code",
                arguments={"BASE": f"localhost/cabildo/system:{keys.system}"},
                stages=stages,
                secrets=write_secrets(buildah.scratch, environment=os.environ),
            )
        )
        plain = RegistryClient(address).image("plain", reference="code")
    assert shipped.files(plain) == trainer.files_of(2)


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
