"""What the pages promise: links lead somewhere, commands take the options they are shown with."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def pages() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.split()]


def broken_links(page: Path, *, text: str) -> list[str]:
    targets = [target.partition("#")[0] for target in LINK.findall(text)]
    return [
        target
        for target in targets
        if target and "://" not in target and not (page.parent / target).exists()
    ]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    assert broken_links(page, text=page.read_text()) == []


def test_a_link_to_nowhere_is_found() -> None:
    assert broken_links(ROOT / "README.md", text="[a](docs/nowhere.md) [b](README.md#x)") == [
        "docs/nowhere.md"
    ]


def test_the_readmes_install_command_sets_values_that_the_chart_has() -> None:
    values = yaml.safe_load((ROOT / "helm" / "cabildo" / "values.yaml").read_text())
    given = re.findall(r"--set ([\w.]+)=", (ROOT / "README.md").read_text())

    assert given
    for path in given:
        found = values
        for part in path.split("."):
            assert part in found, f"{path} is no value of the chart"
            found = found[part]


def test_every_make_target_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    for page in pages():
        named = set(re.findall(r"`make ([a-z-]+)", page.read_text()))
        assert named <= targets, page


def test_the_readmes_example_is_the_one_that_the_demo_applies() -> None:
    shown = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)

    assert [yaml.safe_load(text) for text in shown] == [
        yaml.safe_load((ROOT / "examples" / "quickstart.yaml").read_text())
    ]
