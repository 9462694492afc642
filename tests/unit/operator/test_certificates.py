"""Certificates: what is issued, when it is renewed, what is refused."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cabildo_operator.certificates import (
    CA_LIFE,
    LEAF_LIFE,
    Bundle,
    hosts_of,
    issue_ca,
    issue_leaf,
    renewed,
    service_hosts,
)
from cabildo_operator.errors import CertificateError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOSTS = (*service_hosts("progress", namespace="system"), "10.1.2.3")


def fresh() -> Bundle:
    bundle = renewed(None, hosts=HOSTS, now=NOW)
    assert bundle is not None
    return bundle


def as_secret(bundle: Bundle) -> dict[str, bytes]:
    return {name: base64.b64decode(value) for name, value in bundle.to_data().items()}


def test_the_first_bundle_is_a_ca_and_a_leaf_of_it() -> None:
    bundle = fresh()
    bundle.leaf.certificate.verify_directly_issued_by(bundle.ca.certificate)
    assert isinstance(bundle.leaf.key.curve, ec.SECP256R1)
    assert hosts_of(bundle.leaf.certificate) == set(HOSTS)
    assert "progress.system.svc" in HOSTS
    assert bundle.ca.certificate.not_valid_after_utc == NOW + CA_LIFE
    assert bundle.leaf.certificate.not_valid_after_utc == NOW + LEAF_LIFE
    basic = bundle.ca.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.value.ca, basic.value.path_length) == (True, 0)


def test_a_bundle_survives_the_secret() -> None:
    bundle = fresh()
    read = Bundle.from_data(as_secret(bundle))
    assert read.leaf.certificate == bundle.leaf.certificate
    assert read.trust_pem == bundle.trust_pem
    assert read.leaf.key_pem == bundle.leaf.key_pem


@pytest.mark.parametrize("days", [0, 59])
def test_a_bundle_in_the_first_two_thirds_of_its_life_stays(days: int) -> None:
    assert renewed(fresh(), hosts=HOSTS, now=NOW + timedelta(days=days)) is None


def test_a_leaf_is_renewed_after_two_thirds_by_the_same_ca() -> None:
    bundle = fresh()
    after = renewed(bundle, hosts=HOSTS, now=NOW + timedelta(days=61))
    assert after is not None
    assert after.ca is bundle.ca
    assert after.leaf.certificate != bundle.leaf.certificate


def test_a_leaf_without_a_wanted_host_is_renewed() -> None:
    after = renewed(fresh(), hosts=(*HOSTS, "elsewhere.example"), now=NOW)
    assert after is not None
    assert "elsewhere.example" in hosts_of(after.leaf.certificate)


def test_a_new_ca_is_trusted_beside_the_old_one_while_that_is_valid() -> None:
    bundle = fresh()
    second = renewed(bundle, hosts=HOSTS, now=NOW + timedelta(days=2500))
    assert second is not None
    trusted = x509.load_pem_x509_certificates(second.trust_pem)
    assert trusted == [second.ca.certificate, bundle.ca.certificate]
    third = renewed(second, hosts=HOSTS, now=NOW + timedelta(days=5000))
    assert third is not None
    assert third.previous == (second.ca.certificate,), "an expired CA is not handed on"
    assert Bundle.from_data(as_secret(third)).previous == third.previous


def broken(kind: str) -> dict[str, bytes]:
    data = as_secret(fresh())
    stranger = issue_leaf(issue_ca(now=NOW), hosts=HOSTS, now=NOW)
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return {
        "missing key": {name: value for name, value in data.items() if name != "tls.key"},
        "garbage": {**data, "ca.crt": b"garbage"},
        "foreign leaf": {**data, "tls.crt": stranger.certificate_pem},
        "other kind of key": {**data, "ca.key": rsa_key},
    }[kind]


@pytest.mark.parametrize("kind", ["missing key", "garbage", "foreign leaf", "other kind of key"])
def test_a_secret_that_is_something_else_is_refused(kind: str) -> None:
    with pytest.raises(CertificateError):
        Bundle.from_data(broken(kind))
