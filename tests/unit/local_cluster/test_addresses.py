"""One range for each cluster, overlapping with nothing."""

from __future__ import annotations

import ipaddress
import itertools

import pytest

from cabildo_local.addresses import FIRST_CHOICES, Addresses, choose_cidr
from cabildo_local.errors import NetworkError
from cabildo_local.settings import NODE_LIMIT


def test_the_cuts_of_a_range_do_not_overlap() -> None:
    addresses = Addresses("10.201.0.0/16")
    links = ipaddress.IPv4Network(f"{addresses.host}/{addresses.link_prefix}", strict=False)
    nodes = [ipaddress.IPv4Network(addresses.node_pods(n)) for n in range(1, NODE_LIMIT + 1)]
    services = ipaddress.IPv4Network(addresses.services)
    fake = ipaddress.IPv4Network(addresses.fake_pods)
    cuts = [links, services, fake, *nodes]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(cuts, 2))
    pods = ipaddress.IPv4Network(addresses.pods)
    assert all(cut.subnet_of(pods) for cut in (fake, *nodes))
    whole = ipaddress.IPv4Network(addresses.cidr)
    assert all(cut.subnet_of(whole) for cut in (pods, services, links))


def test_every_member_of_the_link_subnet_has_its_own_address() -> None:
    addresses = Addresses("10.201.0.0/16")
    nodes = [addresses.node(number) for number in range(1, NODE_LIMIT + 1)]
    members = [addresses.host, addresses.control_plane, *nodes]
    assert len(set(members)) == len(members)
    assert all(member.startswith("10.201.0.") for member in members)


def test_services_have_the_addresses_that_kubernetes_gives_them() -> None:
    addresses = Addresses("10.7.0.0/16")
    assert addresses.services == "10.7.16.0/20"
    assert addresses.api_service == "10.7.16.1"
    assert addresses.dns_service == "10.7.16.10"


def test_a_free_range_is_chosen() -> None:
    assert choose_cidr(wanted=None, kept=None, taken=[]) == FIRST_CHOICES[0]
    taken = [FIRST_CHOICES[0], "10.202.3.0/24", "192.168.0.0/16"]
    assert choose_cidr(wanted=None, kept=None, taken=taken) == "10.203.0.0/16"


def test_a_cluster_keeps_its_range_while_that_is_free() -> None:
    assert choose_cidr(wanted=None, kept="10.240.0.0/16", taken=[]) == "10.240.0.0/16"
    taken = ["10.240.7.0/24"]
    assert choose_cidr(wanted=None, kept="10.240.0.0/16", taken=taken) == FIRST_CHOICES[0]


def test_a_wanted_range_is_taken_or_refused_never_replaced() -> None:
    assert choose_cidr(wanted="172.20.0.0/16", kept="10.240.0.0/16", taken=[]) == "172.20.0.0/16"
    with pytest.raises(NetworkError, match=r"172\.20\.0\.0/16 overlaps.*--cidr"):
        choose_cidr(wanted="172.20.0.0/16", kept=None, taken=["172.16.0.0/12"])


def test_no_free_range_is_said() -> None:
    with pytest.raises(NetworkError, match="no free /16"):
        choose_cidr(wanted=None, kept=None, taken=["10.0.0.0/8"])
