"""The chart grants the operator what it used during this run of the tests, and no more.

Runs last. Every rule of the operator's roles is compared, verb by verb, with the requests
that the API server's audit log recorded since before the operator was installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.clusters import rendered_chart

if TYPE_CHECKING:
    from support.audit_log import Entry
    from support.kube import Object
    from support.outcome import Outcome
    from support.site import Site

Granted = set[tuple[str, str, str]]


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


def granted(roles: list[Object]) -> Granted:
    """Return every (API group, resource, verb) that the roles grant."""
    return {
        (group, resource, verb)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.fixture(scope="module")
def requests(site: Site, reference: Outcome) -> list[Entry]:
    """Every request of the operator's user since before its installation."""
    if site.audit is None:
        pytest.skip("the audit log of a foreign cluster cannot be read")
    return list(site.audit.read(user=site.operator_user))


@pytest.fixture(scope="module")
def granted_verbs(site: Site) -> Granted:
    """What the installed chart grants."""
    return granted(roles_of_account(rendered_chart(namespace=site.deployed.namespace)))


def test_no_request_of_the_operator_was_forbidden(requests: list[Entry]) -> None:
    assert requests, "the audit log holds no request of the operator"
    assert [one for one in requests if one.code == 403] == []


def test_every_verb_that_is_granted_was_used(requests: list[Entry], granted_verbs: Granted) -> None:
    used = {one.granted_as for one in requests}
    assert sorted(granted_verbs - used) == []


def test_the_chart_uses_no_wildcard(granted_verbs: Granted) -> None:
    assert [one for one in granted_verbs if "*" in one] == []
