"""Programs come from the given folder, the cache, the release site or the Go module.

The Go modules here are tiny ones under the upstream's own names; the release site is a
local HTTP server. Go itself is the real one.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import textwrap
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from cabildo_local.binaries import prune_binaries, resolve
from cabildo_local.downloads import ReleaseSite
from cabildo_local.errors import BinaryError, PrerequisiteError
from cabildo_local.reporter import SilentReporter
from cabildo_local.settings import find_checkout
from cabildo_local.upstreams import upstream_of, upstreams
from support.release_server import ReleaseServer, archive_with, release_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

ETCD = "/github.com/etcd-io/etcd/releases/download/v3.6.16"
ETCD_ARCHIVE = "etcd-v3.6.16-linux-amd64.tar.gz"
needs_go = pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed")
x86_only = pytest.mark.skipif(os.uname().machine != "x86_64", reason="release paths of amd64")


@dataclass
class Lines(SilentReporter):
    """Keeps what is said."""

    notes: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)

    def note(self, message: str) -> None:
        self.notes.append(message)

    def step(self, title: str) -> AbstractContextManager[None]:
        self.steps.append(title)
        return super().step(title)


@dataclass
class Bench:
    """A cache, a checkout with tiny modules, and what was reported."""

    root: Path
    lines: Lines = field(default_factory=Lines)

    @property
    def tools(self) -> Path:
        return self.root / "checkout" / "local_cluster" / "tools"

    def module(self, name: str, *, path: str, files: dict[str, str], go: str = "1.24") -> Path:
        folder = self.tools / name
        for file, text in {"go.mod": f"module {path}\n\ngo {go}\n", **files}.items():
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(textwrap.dedent(text))
        return folder

    def resolve(
        self, *names: str, mirror: str = "http://127.0.0.1:9", folder: Path | None = None
    ) -> dict[str, Path]:
        return resolve(
            names,
            folder=folder,
            cache=self.root / "cache",
            checkout=self.root / "checkout",
            reporter=self.lines,
            site=ReleaseSite(mirror=mirror, connect_timeout_s=1.0),
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.module("etcd", path="test/etcd", files={"main.go": says("built etcd")})
    return made


@pytest.fixture
def site() -> Iterator[ReleaseServer]:
    with release_server() as server:
        yield server


def says(text: str) -> str:
    return f'package main\n\nfunc main() {{ println("{text}") }}\n'


def output_of(program: Path) -> str:
    return subprocess.run([program], capture_output=True, text=True, check=True).stderr.strip()


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {text}\n")
    path.chmod(0o755)
    return path


def test_the_given_folder_comes_first(bench: Bench, tmp_path: Path) -> None:
    own = script(tmp_path / "own" / "etcd", "mine")
    assert bench.resolve("etcd", folder=own.parent) == {"etcd": own}
    assert bench.lines.notes == []


@needs_go
def test_what_the_given_folder_lacks_comes_from_elsewhere(bench: Bench, tmp_path: Path) -> None:
    own = script(tmp_path / "own" / "kubectl", "mine")
    found = bench.resolve("kubectl", "etcd", folder=own.parent)
    assert list(found) == ["kubectl", "etcd"]
    assert found["kubectl"] == own
    assert output_of(found["etcd"]) == "built etcd"


def test_a_file_that_cannot_be_run_is_named(bench: Bench, tmp_path: Path) -> None:
    own = script(tmp_path / "own" / "etcd", "mine")
    own.chmod(0o644)
    with pytest.raises(BinaryError, match=f"{own} cannot be run.*chmod"):
        bench.resolve("etcd", folder=own.parent)


def test_a_folder_that_is_none_is_named(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(BinaryError, match=r"--binaries .*nowhere: no such folder"):
        bench.resolve("etcd", folder=tmp_path / "nowhere")


def test_an_unknown_name_lists_the_known_ones(bench: Bench) -> None:
    with pytest.raises(BinaryError, match=r"etcdctl: no such binary.*kubelet.*helm"):
        bench.resolve("etcdctl")


@x86_only
def test_a_release_with_its_checksum_is_taken(bench: Bench, site: ReleaseServer) -> None:
    content = archive_with("etcd-v3.6.16-linux-amd64/etcd", b"#!/bin/sh\necho official\n")
    digest = site.offer(f"{ETCD}/{ETCD_ARCHIVE}", content)
    site.offer(f"{ETCD}/SHA256SUMS", f"{'0' * 64}  other\n{digest}  {ETCD_ARCHIVE}\n".encode())

    program = bench.resolve("etcd", mirror=site.address)["etcd"]

    assert program.read_text() == "#!/bin/sh\necho official\n"
    assert os.access(program, os.X_OK)
    assert bench.lines.notes == [f"downloading {site.address}{ETCD}/{ETCD_ARCHIVE}"]


@x86_only
def test_a_cached_program_is_not_fetched_again(bench: Bench, site: ReleaseServer) -> None:
    content = archive_with("etcd-v3.6.16-linux-amd64/etcd", b"#!/bin/sh\n")
    digest = site.offer(f"{ETCD}/{ETCD_ARCHIVE}", content)
    site.offer(f"{ETCD}/SHA256SUMS", f"{digest}  {ETCD_ARCHIVE}\n".encode())
    first = bench.resolve("etcd", mirror=site.address)
    assert bench.resolve("etcd", mirror=site.address) == first
    assert site.asked[f"{ETCD}/{ETCD_ARCHIVE}"] == 1


@x86_only
def test_a_plain_binary_with_a_bare_checksum_is_taken(bench: Bench, site: ReleaseServer) -> None:
    bench.module("kubernetes", path="test/kubernetes", files={})
    path = "/dl.k8s.io/release/v1.34.4/bin/linux/amd64/kubectl"
    digest = site.offer(path, b"#!/bin/sh\necho official\n")
    site.offer(f"{path}.sha256", digest.encode())
    program = bench.resolve("kubectl", mirror=site.address)["kubectl"]
    assert program.read_text() == "#!/bin/sh\necho official\n"


@needs_go
@x86_only
def test_a_wrong_checksum_is_refused_and_the_program_built(
    bench: Bench, site: ReleaseServer
) -> None:
    site.offer(f"{ETCD}/{ETCD_ARCHIVE}", archive_with("etcd", b"tampered"))
    site.offer(f"{ETCD}/SHA256SUMS", f"{'1' * 64}  {ETCD_ARCHIVE}\n".encode())
    program = bench.resolve("etcd", mirror=site.address)["etcd"]
    assert output_of(program) == "built etcd"
    assert re.search(r"SHA-256 is \w+, published is 1111.*building instead", bench.lines.notes[-1])


@needs_go
@x86_only
def test_an_archive_without_the_program_falls_through(bench: Bench, site: ReleaseServer) -> None:
    digest = site.offer(f"{ETCD}/{ETCD_ARCHIVE}", archive_with("README", b"nothing else"))
    site.offer(f"{ETCD}/SHA256SUMS", f"{digest}  {ETCD_ARCHIVE}\n".encode())
    assert output_of(bench.resolve("etcd", mirror=site.address)["etcd"]) == "built etcd"
    assert "no etcd-v3.6.16-linux-amd64/etcd in it" in bench.lines.notes[-1]


@needs_go
@x86_only
def test_checksums_that_do_not_name_the_file_fall_through(
    bench: Bench, site: ReleaseServer
) -> None:
    site.offer(f"{ETCD}/SHA256SUMS", b"<html>\nplease log in\n</html>\n")
    assert output_of(bench.resolve("etcd", mirror=site.address)["etcd"]) == "built etcd"
    assert "checksums do not name it" in bench.lines.notes[-1]


@needs_go
def test_a_missing_release_falls_through(bench: Bench, site: ReleaseServer) -> None:
    assert output_of(bench.resolve("etcd", mirror=site.address)["etcd"]) == "built etcd"
    (line,) = bench.lines.notes
    assert re.fullmatch(r"no download: .*SHA256SUMS: HTTP 404; building instead", line)


@needs_go
def test_a_refused_connection_is_told_once_for_all_of_a_site(bench: Bench) -> None:
    bench.module("coredns", path="test/coredns", files={"main.go": says("built coredns")})
    found = bench.resolve("etcd", "coredns", mirror=f"http://127.0.0.1:{closed_port()}")
    assert [output_of(path) for path in found.values()] == ["built etcd", "built coredns"]
    (line,) = bench.lines.notes
    assert re.fullmatch(r"no download: github.com: .*refused; building instead", line)


@needs_go
def test_a_name_that_does_not_resolve_falls_through(bench: Bench) -> None:
    bench.resolve("etcd", mirror="http://no-such-host.invalid")
    assert len(bench.lines.notes) == 1


@needs_go
def test_a_site_that_never_answers_is_left_after_the_limit(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        bench.resolve("etcd", mirror=f"http://127.0.0.1:{silent.getsockname()[1]}")
    (line,) = bench.lines.notes
    assert re.fullmatch(r"no download: github.com: (no answer within 1 s|timed out); .*", line)


@needs_go
def test_the_version_is_stamped_into_what_is_built(bench: Bench) -> None:
    bench.module(
        "kwok",
        path="sigs.k8s.io/kwok",
        files={
            "pkg/consts/consts.go": 'package consts\n\nvar Version = "unset"\n',
            "cmd/kwok/main.go": """\
                package main

                import "sigs.k8s.io/kwok/pkg/consts"

                func main() { println(consts.Version) }
                """,
        },
    )
    assert output_of(bench.resolve("kwok")["kwok"]) == "v0.7.0"
    # Its releases have no checksums: nobody was asked.
    assert bench.lines.notes == []


@needs_go
def test_commands_of_one_upstream_are_built_together(bench: Bench) -> None:
    bench.module(
        "kubernetes",
        path="k8s.io/kubernetes",
        files={f"cmd/{name}/main.go": says(name) for name in ("kubelet", "kubectl")},
    )
    found = bench.resolve("kubelet", "kubectl")
    assert [output_of(path) for path in found.values()] == ["kubelet", "kubectl"]
    assert len(bench.lines.steps) == 1
    assert found["kubelet"].parent.name == found["kubectl"].parent.name


@needs_go
def test_a_changed_source_is_another_program(bench: Bench) -> None:
    before = bench.resolve("etcd")["etcd"]
    (bench.tools / "etcd" / "main.go").write_text(says("changed"))
    after = bench.resolve("etcd")["etcd"]
    assert before != after
    assert (output_of(before), output_of(after)) == ("built etcd", "changed")


@needs_go
def test_the_compilers_words_are_in_the_error(bench: Bench) -> None:
    (bench.tools / "etcd" / "main.go").write_text("package main\n\nfunc main() { nonsense }\n")
    with pytest.raises(BinaryError, match="undefined: nonsense"):
        bench.resolve("etcd")
    assert not list((bench.root / "cache" / "bin").rglob("etcd-*/*"))


def test_missing_go_says_what_to_do(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(bench.root))
    with pytest.raises(PrerequisiteError, match=r"Go is not installed: etcd.*Install Go 1\.24"):
        bench.resolve("etcd")


@needs_go
def test_a_go_that_is_too_old_is_named(bench: Bench) -> None:
    bench.module("etcd", path="test/etcd", files={"main.go": says("new")}, go="1.999")
    with pytest.raises(PrerequisiteError, match=r"is go1\.\d+.*: etcd 3\.6\.16 needs 1\.999"):
        bench.resolve("etcd")


def test_a_module_that_is_not_there_is_named(bench: Bench) -> None:
    with pytest.raises(BinaryError, match=r"tools/helm: no go\.mod there"):
        bench.resolve("helm")


def test_a_go_mod_without_a_version_is_named(bench: Bench) -> None:
    (bench.tools / "etcd" / "go.mod").write_text("module test/etcd\n")
    with pytest.raises(BinaryError, match="no line `go VERSION`"):
        bench.resolve("etcd")


@needs_go
def test_two_at_once_build_once(bench: Bench) -> None:
    threads = [threading.Thread(target=bench.resolve, args=("etcd",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bench.lines.steps) == 1
    assert "waiting for another process: it makes etcd 3.6.16" in bench.lines.notes


@needs_go
def test_a_killed_build_leaves_nothing_in_the_way(bench: Bench) -> None:
    # What a build that was killed by force leaves: its scratch folder, half a program in it.
    key = bench.resolve("etcd")["etcd"].parent
    shutil.rmtree(key)
    leftover = bench.root / "cache" / "bin" / ".making" / f"etcd-{key.name}-abc"
    leftover.mkdir(parents=True)
    (leftover / "etcd").write_text("half")
    assert output_of(bench.resolve("etcd")["etcd"]) == "built etcd"
    assert not leftover.exists()


@needs_go
def test_pruning_leaves_what_this_checkout_takes(bench: Bench) -> None:
    for upstream in upstreams():
        bench.module(upstream.name, path=f"test/{upstream.name}", files={"main.go": says("old")})
    old = bench.resolve("etcd")["etcd"]
    bench.module("etcd", path="test/etcd", files={"main.go": says("new")})
    new = bench.resolve("etcd")["etcd"]
    size_bytes = old.stat().st_size
    freed_bytes = prune_binaries(cache=bench.root / "cache", checkout=bench.root / "checkout")
    assert freed_bytes == size_bytes
    assert not old.exists()
    assert bench.resolve("etcd") == {"etcd": new}


def test_every_upstream_has_its_module_at_its_version() -> None:
    tools = find_checkout() / "local_cluster" / "tools"
    for upstream in upstreams():
        text = (tools / upstream.name / "go.mod").read_text()
        pin = rf"^(require )?\t?{re.escape(upstream.module)} v{re.escape(upstream.version)}$"
        assert re.search(pin, text, re.MULTILINE), upstream.name
        assert (
            f"{upstream.module} v{upstream.version} h1:"
            in (tools / upstream.name / "go.sum").read_text()
        )


def test_every_command_belongs_to_one_upstream() -> None:
    names = [name for upstream in upstreams() for name in upstream.packages]
    assert len(names) == len(set(names))
    assert all(name in upstream_of(name).packages for name in names)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port
