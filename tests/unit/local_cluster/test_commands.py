"""A command's failure becomes an error in the command's own words."""

from __future__ import annotations

import pytest

from cabildo_local.commands import in_namespace, run_command
from cabildo_local.errors import CommandError


def test_the_output_is_returned() -> None:
    assert run_command(["cat"], stdin="hello") == "hello"


def test_a_failure_says_the_command_and_its_words() -> None:
    with pytest.raises(CommandError, match=r"`sh -c echo no >&2; exit 3` failed: no"):
        run_command(["sh", "-c", "echo no >&2; exit 3"])


def test_a_silent_failure_says_the_exit_status() -> None:
    with pytest.raises(CommandError, match="exit status 7"):
        run_command(["sh", "-c", "exit 7"])


def test_a_failure_may_be_expected() -> None:
    assert run_command(["sh", "-c", "echo x; exit 1"], check=False) == "x\n"


def test_a_missing_program_is_named() -> None:
    with pytest.raises(CommandError, match="`no-such-program` is not installed"):
        run_command(["no-such-program"])


def test_a_command_that_hangs_is_ended() -> None:
    with pytest.raises(CommandError, match="took longer"):
        run_command(["sleep", "60"], timeout_s=0.05)


def test_a_namespace_is_entered_by_its_name() -> None:
    assert in_namespace(["true"], namespace=None) == ["true"]
    assert in_namespace(["true"], namespace="a.b")[:2] == ["nsenter", "--net=/run/netns/a.b"]
