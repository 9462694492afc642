"""The chart grants the operator what it used during this run of the tests, and no more.

Runs last. Every rule of the operator's roles is compared, verb by verb, with the requests
that the API server's audit log recorded since before the operator was installed. A request
that a Role of the operator's own namespace allows does not speak for a ClusterRole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from support.clusters import rendered_chart

if TYPE_CHECKING:
    from support.audit_log import Entry
    from support.kube import Object
    from support.outcome import Outcome
    from support.site import Site

# Between them these use every rule: suspension, repair, conflicts, renewal, take-over.
NEEDED = {"test_children.py", "test_corrupt_checkpoint.py", "test_progress.py"}


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """One verb on one resource, everywhere or in one namespace, perhaps on some names."""

    namespace: str
    group: str
    resource: str
    verb: str
    names: tuple[str, ...] = ()

    def allows(self, entry: Entry) -> bool:
        """Whether this grant allows a request."""
        return (
            (self.group, self.resource, self.verb) == entry.granted_as
            and self.namespace in ("", entry.namespace)
            and (not self.names or entry.name in self.names)
        )


def roles_of_account(chart: list[Object]) -> list[Object]:
    """Return the roles that are bound to the operator's account."""
    (account,) = [one["metadata"]["name"] for one in chart if one["kind"] == "ServiceAccount"]
    bound = {
        (one["roleRef"]["kind"], one["roleRef"]["name"])
        for one in chart
        if one["kind"] in ("RoleBinding", "ClusterRoleBinding")
        and any(subject["name"] == account for subject in one["subjects"])
    }
    return [one for one in chart if (one["kind"], one["metadata"]["name"]) in bound]


def granted(roles: list[Object], *, namespace: str) -> set[Grant]:
    """Return every grant of the roles."""
    return {
        Grant(
            namespace=namespace if role["kind"] == "Role" else "",
            group=group,
            resource=resource,
            verb=verb,
            names=tuple(rule.get("resourceNames", ())),
        )
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def unused(grants: set[Grant], *, requests: list[Entry]) -> list[Grant]:
    """Return the grants without which every request would have been allowed too."""
    narrow = [one for one in grants if one.namespace]
    wide = [one for one in grants if not one.namespace]
    used: set[Grant] = set()
    for entry in {entry_key(one): one for one in requests}.values():
        allowing = [one for one in narrow if one.allows(entry)]
        used |= set(allowing or [one for one in wide if one.allows(entry)])
    return sorted(grants - used)


def entry_key(entry: Entry) -> tuple[str, ...]:
    """Return what two requests must share to need the same grant."""
    return (*entry.granted_as, entry.namespace, entry.name)


@pytest.fixture(scope="module")
def requests(site: Site, reference: Outcome, request: pytest.FixtureRequest) -> list[Entry]:
    """Every request of the operator's user since before its installation."""
    if site.audit is None:
        pytest.skip("the audit log of a foreign cluster cannot be read")
    missing = NEEDED - {item.path.name for item in request.session.items}
    if missing:
        pytest.skip(f"what uses some of the rules was not run: {sorted(missing)}")
    return list(site.audit.read(user=site.operator_user))


@pytest.fixture(scope="module")
def grants(site: Site) -> set[Grant]:
    """What the installed chart grants."""
    namespace = site.deployed.namespace
    return granted(roles_of_account(rendered_chart(namespace=namespace)), namespace=namespace)


def test_no_request_of_the_operator_was_denied(requests: list[Entry]) -> None:
    # A namespace that is being deleted refuses new Events with 403 as well: not a matter of
    # rules, and told apart by the authoriser's own decision in the audit log.
    assert requests, "the audit log holds no request of the operator"
    assert [one for one in requests if one.is_denied] == []


def test_every_verb_that_is_granted_was_used(requests: list[Entry], grants: set[Grant]) -> None:
    assert unused(grants, requests=requests) == []


def test_a_grant_that_nothing_used_is_found(requests: list[Entry], grants: set[Grant]) -> None:
    spare = Grant(namespace="", group="", resource="pods", verb="patch")
    assert unused(grants | {spare}, requests=requests) == [spare]


def test_the_chart_uses_no_wildcard(grants: set[Grant]) -> None:
    assert [one for one in grants if "*" in (one.group, one.resource, one.verb)] == []
