"""Images are built once, stacked in the store, and there is one host copy of each.

buildah, skopeo and docker-registry are the real ones; the checkout is a tiny one with our
Dockerfile's stages, whose layers hold a file each.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from cabildo_local import images as module
from cabildo_local.buildah import Buildah
from cabildo_local.errors import ImageError, PrerequisiteError
from cabildo_local.image_job import NEEDED_BYTES
from cabildo_local.image_pruning import prune_store
from cabildo_local.image_store import (
    blob_file,
    serve_store,
    store_folder,
    stored_digest,
    tags_folder,
)
from cabildo_local.images import BuiltImage, ImageRef, build, build_and_push, prune_bases, push
from cabildo_local.pause import pause_image
from cabildo_local.registry_client import Image, RegistryClient
from cabildo_local.reporter import SilentReporter
from cabildo_local.settings import find_checkout

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

PROGRAMS = ("buildah", "docker-registry", "setpriv", "skopeo", "gcc")
LACKING = [name for name in PROGRAMS if shutil.which(name) is None]
pytestmark = pytest.mark.skipif(
    bool(LACKING) or os.geteuid() != 0, reason=f"needs root and {', '.join(PROGRAMS)}"
)

DOCKERFILE = """\
ARG BASE=scratch
FROM ${BASE} AS system
COPY requirements/build.txt /system

FROM system AS tools
COPY requirements/build.txt /tools

FROM system AS compiler
COPY requirements/build.txt /compiler

FROM compiler AS kernels-wheel
COPY kernels /code/kernels

FROM scratch AS kernels
COPY --from=kernels-wheel /code /

"""
STAGES = """\
FROM system AS {target}-dependencies
ARG REQUIREMENTS
ARG PIP_ARGS
COPY ${{REQUIREMENTS}} /requirements.txt
USER 65532:65532
ENTRYPOINT ["python3", "-m", "cabildo_{target}"]

FROM tools AS {target}-wheels
COPY crds /code/crds
COPY {root} /code/{root}
{kernels}
FROM scratch AS {target}-code
COPY --from={target}-wheels /code /code

"""
ROOTS = {"operator": "operator", "trainer": "trainer_image"}
COPIED = {"operator": "", "trainer": "COPY --from=kernels / /code/\n"}


@dataclass
class Steps(SilentReporter):
    """Keeps what is said."""

    titles: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    noted: threading.Event = field(default_factory=threading.Event)

    def step(self, title: str) -> AbstractContextManager[None]:
        self.titles.append(title)
        return super().step(title)

    def note(self, message: str) -> None:
        self.notes.append(message)
        self.noted.set()


@dataclass
class Site:
    """A tiny checkout, and a cache that all tests here share: keys keep them apart."""

    root: Path
    cache: Path
    steps: Steps = field(default_factory=Steps)

    @property
    def checkout(self) -> Path:
        return self.root / "checkout"

    def write(self, path: str, text: str) -> None:
        target = self.checkout / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def build(self, target: str = "operator", *, cache: Path | None = None) -> BuiltImage:
        self.steps.titles.clear()
        return build(target, checkout=self.checkout, reporter=self.steps, cache=cache or self.cache)

    def image(self, built: BuiltImage) -> Image:
        with serve_store(self.cache) as address:
            return RegistryClient(address).image(built.name, reference=built.tag)

    def files(self, built: BuiltImage) -> list[set[str]]:
        """The files of each layer."""
        blobs = store_folder(self.cache) / "docker/registry/v2/blobs/sha256"
        found = []
        for layer in self.image(built).manifest["layers"]:
            digest = layer["digest"].removeprefix("sha256:")
            archive = gzip.decompress((blobs / digest[:2] / digest / "data").read_bytes())
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                found.append({entry.name for entry in tar if entry.isfile()})
        return found


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def site(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("CABILDO_BASE_IMAGE", "scratch")
    made = Site(tmp_path, cache)
    stages = [
        STAGES.format(target=target, root=root, kernels=COPIED[target])
        for target, root in ROOTS.items()
    ]
    made.write("Dockerfile", DOCKERFILE + "".join(stages))
    for name in ("build", "operator", "trainer"):
        made.write(f"requirements/{name}.txt", f"{name}==1\n")
    made.write("crds/pyproject.toml", "api")
    made.write("crds/cabildo_api/__init__.py", "")
    for path in ("pyproject.toml", "setup.py", "cabildo_kernels/cpu.c"):
        made.write(f"kernels/{path}", "")
    for target, root in ROOTS.items():
        made.write(f"{root}/pyproject.toml", target)
        made.write(f"{root}/cabildo_{target}/__init__.py", "")
    return made


def base_images(cache: Path) -> dict[str, set[str]]:
    """The keys of what is in buildah's storage, by stage."""
    listed = subprocess.run(
        [
            "buildah",
            *("--root", str(cache / "buildah/root"), "--storage-driver", "overlay"),
            *("--runroot", str(cache / "buildah/run")),
            *("images", "--format", "{{.Name}}:{{.Tag}}"),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    found: dict[str, set[str]] = {}
    for name in listed:
        kind, _, key = name.removeprefix("localhost/cabildo/").partition(":")
        found.setdefault(kind, set()).add(key)
    return found


def layers(image: Image) -> list[str]:
    return [layer["digest"] for layer in image.manifest["layers"]]


def test_an_image_is_system_dependencies_and_code(site: Site) -> None:
    built = site.build()
    assert site.files(built) == [
        {"system"},
        {"requirements.txt"},
        {
            "code/crds/pyproject.toml",
            "code/crds/cabildo_api/__init__.py",
            "code/operator/pyproject.toml",
            "code/operator/cabildo_operator/__init__.py",
        },
    ]
    config = site.image(built).config
    assert config["config"]["User"] == "65532:65532"
    assert config["config"]["Entrypoint"] == ["python3", "-m", "cabildo_operator"]
    assert len(config["rootfs"]["diff_ids"]) == 3
    assert (built.name, built.digest) == (
        "cabildo/operator",
        stored_digest(site.cache, name="cabildo/operator", tag=built.tag),
    )


def test_an_unchanged_tree_is_not_built_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    built = site.build()
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("started a program"))
    assert site.build() == built


def test_a_changed_line_moves_only_the_code_layer(site: Site) -> None:
    before = site.build()
    site.write("operator/cabildo_operator/__init__.py", "changed = True\n")
    after = site.build()
    assert site.steps.titles == ["build the operator's wheels"]
    assert after.tag != before.tag
    assert layers(site.image(after))[:2] == layers(site.image(before))[:2]
    assert layers(site.image(after))[2] != layers(site.image(before))[2]


def test_the_trainers_code_layer_holds_what_the_compiler_made(site: Site) -> None:
    site.write("kernels/cabildo_kernels/cpu.so", "of the checkout's own machine")
    built = site.build("trainer")
    assert site.files(built)[2] == {
        "code/crds/pyproject.toml",
        "code/crds/cabildo_api/__init__.py",
        "code/trainer_image/pyproject.toml",
        "code/trainer_image/cabildo_trainer/__init__.py",
        "code/kernels/pyproject.toml",
        "code/kernels/setup.py",
        "code/kernels/cabildo_kernels/cpu.c",
    }
    assert len(layers(site.image(built))) == 3
    assert not {file for layer in site.files(built) for file in layer if "compiler" in file}


def test_a_changed_line_of_the_trainer_compiles_nothing(site: Site) -> None:
    before = site.build("trainer")
    site.write("trainer_image/cabildo_trainer/__init__.py", "compiles_nothing = True\n")
    after = site.build("trainer")
    assert site.steps.titles == ["build the trainer's wheels"]
    assert after.digest != before.digest


def test_a_changed_kernel_is_compiled_into_the_trainer_alone(site: Site) -> None:
    operator, before = site.build("operator"), site.build("trainer")
    site.write("kernels/cabildo_kernels/cpu.c", "int changed;\n")
    assert site.build("operator") == operator
    assert site.steps.titles == []
    after = site.build("trainer")
    assert site.steps.titles == ["compile the kernels (about 1 min)", "build the trainer's wheels"]
    assert layers(site.image(after))[:2] == layers(site.image(before))[:2]
    assert layers(site.image(after))[2] != layers(site.image(before))[2]


def test_what_other_checkouts_started_from_is_pruned(site: Site) -> None:
    cache = site.root / "own"
    first = site.build("trainer", cache=cache)
    kept = base_images(cache)
    assert kept.keys() == {"system", "tools", "compiler", "kernels"}
    site.write("kernels/cabildo_kernels/cpu.c", "int another;\n")
    site.build("trainer", cache=cache)
    site.write("kernels/cabildo_kernels/cpu.c", "")
    arguments = {"checkout": site.checkout, "reporter": site.steps, "cache": cache}
    assert len(base_images(cache)["kernels"]) == 2
    assert prune_bases(**arguments) > 0
    assert base_images(cache) == kept
    assert prune_bases(**arguments) == 0
    assert site.build("trainer", cache=cache) == first


def test_a_change_of_one_image_leaves_the_others_digest(site: Site) -> None:
    before = site.build("trainer")
    site.write("operator/cabildo_operator/__init__.py", "changed = True\n")
    assert site.build("operator").digest
    assert site.build("trainer") == before


def test_the_same_inputs_give_the_same_digest(site: Site) -> None:
    first = site.build()
    for path in site.checkout.rglob("*.py"):
        os.utime(path, (1, 1))
    assert site.build(cache=site.root / "other") == first


def test_nothing_of_an_image_stays_in_buildahs_storage(site: Site) -> None:
    site.build("operator")
    site.build("trainer")
    assert base_images(site.cache).keys() == {"system", "tools", "compiler", "kernels"}


def test_a_killed_builds_leftovers_are_cleared(site: Site) -> None:
    buildah = Buildah(site.cache / "buildah", reporter=site.steps)
    with buildah.exclusive():
        buildah._run(["from", "--name", "left-behind", "scratch"], log=None, check=True)
        containers = site.cache / "buildah/root/overlay-containers"
        assert list(containers.glob("*/"))
        (buildah.scratch / "half.tar").write_text("half")
    repository = store_folder(site.cache) / "docker/registry/v2/repositories/cabildo/operator"
    upload = repository / "_uploads/some-id/data"
    upload.parent.mkdir(parents=True)
    upload.write_text("half a layer")
    site.write("operator/cabildo_operator/__init__.py", "after_the_kill = True\n")
    site.build()
    assert not list(containers.glob("*/"))
    assert not list(buildah.scratch.iterdir())
    assert not upload.exists()


def test_nothing_that_a_killed_build_had_started_lives_on() -> None:
    code = f"""
import subprocess, sys
sys.path[:0] = {sys.path!r}
from cabildo_local.buildah import contained
subprocess.run([*contained(), "sh", "-c", "echo up; sleep 1000 & wait"])
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.kill()
        # Whoever still lives holds the pipe open; its end is something to read.
        assert select.select([process.stdout], [], [], 20)[0]
        assert process.stdout.read() == b""


def test_a_failed_build_shows_the_end_of_its_log(site: Site) -> None:
    site.write(
        "Dockerfile",
        (site.checkout / "Dockerfile")
        .read_text()
        .replace("COPY operator /code/operator", "COPY not-there /code/operator"),
    )
    with pytest.raises(ImageError, match=r"(?s)buildah build failed.*not-there"):
        site.build()


def test_dependencies_that_two_later_ones_replaced_are_removed(site: Site) -> None:
    cache = site.root / "own"
    built = []
    for version in range(3):
        site.write("requirements/operator.txt", f"operator=={version}\n")
        built.append(site.build(cache=cache))
    kept = [stored_digest(cache, name=image.name, tag=image.tag) for image in built]
    assert kept == [None, built[1].digest, built[2].digest]
    tags = tags_folder(cache, name="cabildo/operator").glob("dependencies-*")
    assert len(list(tags)) == 2
    # What is left is whole.
    with serve_store(cache) as address:
        for image in built[1:]:
            client = RegistryClient(address)
            for layer in client.image(image.name, reference=image.tag).manifest["layers"]:
                assert blob_file(cache, digest=layer["digest"]).exists()


def test_pruning_keeps_the_layer_that_was_used_last(site: Site) -> None:
    cache = site.root / "own"
    first = site.build(cache=cache)
    site.write("requirements/operator.txt", "operator==2\n")
    second = site.build(cache=cache)
    site.write("requirements/operator.txt", "operator==1\n")
    site.write("operator/cabildo_operator/__init__.py", "back = True\n")
    third = site.build(cache=cache)
    freed_bytes = prune_store(
        cache, names=[first.name], dependencies=1, images=1, reporter=site.steps
    )
    assert freed_bytes > 0
    found = [stored_digest(cache, name=image.name, tag=image.tag) for image in (first, second)]
    assert found == [None, None]
    assert site.build(cache=cache) == third
    assert site.steps.titles == []


def test_pruning_waits_for_those_who_write(site: Site) -> None:
    site.build()
    arguments = {"names": ["cabildo/operator"], "dependencies": 0, "images": 0}
    pruning = threading.Thread(
        target=prune_store, args=(site.cache,), kwargs={**arguments, "reporter": site.steps}
    )
    with serve_store(site.cache):
        pruning.start()
        assert site.steps.noted.wait(timeout=20)
        assert site.steps.notes == ["waiting for another process: it writes images"]
        assert site.build() is not None
    pruning.join()
    assert not list(tags_folder(site.cache, name="cabildo/operator").glob("*"))


def test_a_full_disk_is_refused_with_the_need(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    built = site.build("operator")
    site.write("requirements/trainer.txt", "larger==1\n")
    monkeypatch.setitem(NEEDED_BYTES, "trainer", 1 << 60)
    with pytest.raises(
        PrerequisiteError, match=r"GiB free, the trainer image needs 1073741824\.0 GiB"
    ):
        site.build("trainer")
    # What is there already needs no room.
    assert site.build("operator") == built


def test_two_at_once_build_once(site: Site) -> None:
    site.write("operator/cabildo_operator/__init__.py", "at_once = True\n")
    threads = [
        threading.Thread(
            target=build,
            args=("operator",),
            kwargs={"checkout": site.checkout, "reporter": site.steps, "cache": site.cache},
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert site.steps.titles.count("build the operator's wheels") == 1
    assert "waiting for another process: it builds an image" in site.steps.notes


def test_a_registry_on_the_store_has_it_already(site: Site) -> None:
    built = site.build()
    site.steps.titles.clear()
    with serve_store(site.cache) as address:
        reference = push(built, registry=address, reporter=site.steps, cache=site.cache)
    assert site.steps.titles == []
    assert str(reference) == f"{address}/cabildo/operator:{built.tag}"
    assert reference.repository == f"{address}/cabildo/operator"


def test_another_registry_gets_a_copy_once(site: Site) -> None:
    with serve_store(site.root / "elsewhere") as address:
        for expected in (1, 0):
            site.steps.titles.clear()
            reference = build_and_push(
                "operator",
                checkout=site.checkout,
                registry=address,
                reporter=site.steps,
                cache=site.cache,
            )
            pushes = [title for title in site.steps.titles if title.startswith("push")]
            assert len(pushes) == expected
        found = RegistryClient(address).digest(reference.name, reference=reference.tag)
    assert found == reference.digest


def test_a_registry_that_is_not_there_is_named(site: Site) -> None:
    built = site.build()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(ImageError, match=f"{address} does not answer.*cluster status"):
        push(built, registry=address, reporter=site.steps, cache=site.cache)


def test_a_name_that_is_no_address_is_pushed_over_https(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[list[str]] = []
    monkeypatch.setattr(module, "_copy", lambda argv, **_: lines.append(argv))
    built = site.build()
    reference = push(built, registry="registry.example/team", reporter=site.steps, cache=site.cache)
    assert str(reference) == f"registry.example/team/cabildo/operator:{built.tag}"
    assert lines[0][-1] == f"docker://{reference}"
    assert "--dest-tls-verify=false" not in lines[0]


def test_what_a_registry_refuses_is_in_the_error(site: Site) -> None:
    with serve_store(site.cache) as address:
        client = RegistryClient(address)
        with pytest.raises(ImageError, match=r"manifests/none: HTTP 404 .*MANIFEST_UNKNOWN"):
            client.image("cabildo/none", reference="none")
        with pytest.raises(ImageError, match="BLOB_UNKNOWN"):
            client.put_image("cabildo/x", reference="x", layers=[{"digest": "sha256:0"}], config={})
        with pytest.raises(ImageError, match="POST BAD%20NAME: HTTP 404"):
            client.put_blob("BAD%20NAME", content=b"", media_type="x")


def test_the_stores_registry_ends_with_whoever_started_it(tmp_path: Path) -> None:
    code = f"""
import sys, time
sys.path[:0] = {sys.path!r}
from pathlib import Path
from cabildo_local.image_store import serve_store
with serve_store(Path({str(tmp_path)!r})) as address:
    print(address, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        host, port = process.stdout.readline().strip().split(":")
        connection = socket.create_connection((host, int(port)))
        process.send_signal(signal.SIGKILL)
        # The kernel closes the registry's sockets when it ends it.
        connection.settimeout(10)
        with connection, contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""


def test_a_registry_that_cannot_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGISTRY_HTTP_ADDR", "256.256.256.256:0")
    with (
        pytest.raises(ImageError, match="docker-registry did not start"),
        serve_store(tmp_path),
    ):
        pass


def pause(cache: Path, registry: str, checkout: Path | None = None) -> ImageRef:
    return pause_image(
        registry=registry,
        cache=cache,
        checkout=checkout or find_checkout(),
        reporter=SilentReporter(),
    )


def test_the_pause_image_is_one_static_program(tmp_path: Path) -> None:
    with serve_store(tmp_path) as address:
        reference = pause(tmp_path, address)
        again = pause(tmp_path, address)
        image = RegistryClient(address).image(reference.name, reference=reference.tag)
    assert again == reference
    assert image.config["config"]["Entrypoint"] == ["/pause"]
    (layer,) = image.manifest["layers"]
    program = unpack(tmp_path, layer) / "pause"
    with subprocess.Popen([program]) as process:
        process.terminate()
        assert process.wait(timeout=10) in {0, -signal.SIGTERM}
    assert layer["size"] < 1 << 20


def unpack(cache: Path, layer: dict[str, Any]) -> Path:
    digest = layer["digest"].removeprefix("sha256:")
    blob = store_folder(cache) / f"docker/registry/v2/blobs/sha256/{digest[:2]}/{digest}/data"
    with tarfile.open(blob) as tar:
        tar.extractall(cache / "unpacked", filter="data")
    return cache / "unpacked"


def test_a_pause_that_does_not_compile_shows_the_compilers_words(site: Site) -> None:
    site.write("local_cluster/tools/pause/pause.c", "int main(void) { return nonsense; }\n")
    with pytest.raises(ImageError, match=r"(?s)pause\.c could not be compiled.*nonsense"):
        pause(site.cache, "127.0.0.1:9", site.checkout)


@pytest.mark.parametrize("program", ["buildah", "docker-registry", "gcc"])
def test_a_missing_program_is_named(
    site: Site, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    site.write("operator/cabildo_operator/__init__.py", f"lacks = {program!r}\n")
    for name in ("unshare", *PROGRAMS):
        if name != program:
            (site.root / "bin").mkdir(exist_ok=True)
            (site.root / "bin" / name).symlink_to(shutil.which(name) or "/nowhere")
    monkeypatch.setenv("PATH", str(site.root / "bin"))
    with pytest.raises(ImageError, match=program):
        pause(site.root / "new", "127.0.0.1:9") if program == "gcc" else site.build()
