"""Certificates that verify, keys that Kubernetes reads, files that are private."""

from __future__ import annotations

import base64
import ssl
from typing import TYPE_CHECKING

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from cabildo_local.certificates import (
    Authority,
    KeyPair,
    Subject,
    service_account_key,
    write_kubeconfig,
)

if TYPE_CHECKING:
    from pathlib import Path

SERVER = Subject(
    "kube-apiserver", names=("kubernetes", "localhost"), addresses=("127.0.0.1", "10.1.0.2")
)


def load(pair: KeyPair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes())


def test_a_server_certificate_verifies_for_its_names(tmp_path: Path) -> None:
    authority = Authority(tmp_path, name="ca")
    certificate = load(authority.issue("server", subject=SERVER))
    certificate.verify_directly_issued_by(load(authority.pair))
    alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert alternatives.get_values_for_type(x509.DNSName) == ["kubernetes", "localhost"]
    assert [str(a) for a in alternatives.get_values_for_type(x509.IPAddress)] == [
        "127.0.0.1",
        "10.1.0.2",
    ]


def test_a_client_carries_user_and_groups_and_is_no_server(tmp_path: Path) -> None:
    subject = Subject("system:node:node1", groups=("system:nodes", "others"))
    certificate = load(Authority(tmp_path, name="ca").issue("node1", subject=subject))
    names = {(a.rfc4514_attribute_name, a.value) for a in certificate.subject}
    assert names == {("CN", "system:node:node1"), ("O", "system:nodes"), ("O", "others")}
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_what_was_issued_stays_and_belongs_to_the_same_authority(tmp_path: Path) -> None:
    first = Authority(tmp_path, name="ca").issue("server", subject=SERVER)
    before = first.certificate.read_bytes(), first.key.read_bytes()
    again = Authority(tmp_path, name="ca").issue("server", subject=SERVER)
    assert (again.certificate.read_bytes(), again.key.read_bytes()) == before


def test_a_half_written_pair_is_made_again(tmp_path: Path) -> None:
    authority = Authority(tmp_path, name="ca")
    (tmp_path / "server.key").write_text("half a key of a killed run")
    pair = authority.issue("server", subject=SERVER)
    context = ssl.create_default_context()
    context.load_cert_chain(pair.certificate, pair.key)


def test_two_authorities_do_not_vouch_for_each_other(tmp_path: Path) -> None:
    one, other = Authority(tmp_path, name="ca"), Authority(tmp_path, name="front-proxy-ca")
    client = load(one.issue("client", subject=Subject("x")))
    with pytest.raises(ValueError, match=r"[Ii]ssuer"):
        client.verify_directly_issued_by(load(other.pair))


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki", name="ca")
    pair = authority.issue("server", subject=SERVER)
    key = service_account_key(tmp_path / "pki")
    for path in (authority.pair.key, pair.key, key):
        assert path.stat().st_mode & 0o077 == 0
    assert (tmp_path / "pki").stat().st_mode & 0o077 == 0


def test_the_service_account_key_is_in_the_form_that_kubernetes_reads(tmp_path: Path) -> None:
    path = service_account_key(tmp_path)
    assert path.read_bytes().startswith(b"-----BEGIN EC PRIVATE KEY-----")
    assert service_account_key(tmp_path).read_bytes() == path.read_bytes()
    serialization.load_pem_private_key(path.read_bytes(), password=None)


def test_a_kubeconfig_holds_everything_it_needs(tmp_path: Path) -> None:
    authority = Authority(tmp_path, name="ca")
    client = authority.issue("admin", subject=Subject("admin", ("system:masters",)))
    path = tmp_path / "kubeconfig"
    write_kubeconfig(
        path, cluster="x", server="https://10.1.0.2:6443", authority=authority.pair, client=client
    )
    document = yaml.safe_load(path.read_text())
    (cluster,), (user,) = document["clusters"], document["users"]
    assert document["current-context"] == "cabildo-x"
    assert cluster["cluster"]["server"] == "https://10.1.0.2:6443"
    embedded = base64.b64decode(user["user"]["client-key-data"])
    assert embedded == client.key.read_bytes()
    assert path.stat().st_mode & 0o077 == 0
