"""Reading the audit log: only what is complete, only what was asked for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from support.audit_log import AuditLog

if TYPE_CHECKING:
    from pathlib import Path


def line(
    verb: str,
    *,
    user: str = "operator",
    stage: str = "ResponseComplete",
    decision: str = "allow",
) -> str:
    """Return one audit event."""
    event = {
        "annotations": {"authorization.k8s.io/decision": decision},
        "stage": stage,
        "verb": verb,
        "user": {"username": user},
        "objectRef": {
            "apiGroup": "batch",
            "resource": "jobs",
            "subresource": "status",
            "namespace": "a",
            "name": "b",
        },
        "responseStatus": {"code": 201},
        "stageTimestamp": "2026-01-01T00:00:00Z",
    }
    return json.dumps(event) + "\n"


def test_reading_goes_on_where_it_stopped_and_leaves_an_unfinished_line(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    half = line("delete")
    file.write_text(line("create") + half[:20])
    log = AuditLog(path=file)
    assert [one.verb for one in log.read()] == ["create"]
    with file.open("a") as handle:
        handle.write(half[20:])
    assert [one.verb for one in log.read()] == ["delete"]


def test_other_users_and_stages_before_the_answer_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    file.write_text(
        line("create", user="operator-2")
        + line("create", stage="RequestReceived")
        + line("watch", stage="ResponseStarted")
        + line("patch")
    )
    entries = list(AuditLog(path=file).read(user="operator"))
    assert [one.verb for one in entries] == ["watch", "patch"]
    assert [one.is_write for one in entries] == [False, True]
    assert entries[1].granted_as == ("batch", "jobs/status", "patch")


def test_what_no_rule_allows_is_told_apart_from_other_refusals(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    file.write_text(line("create") + line("create", decision="forbid"))
    assert [one.is_denied for one in AuditLog(path=file).read()] == [False, True]
