"""Certificates, keys and kubeconfig files of one cluster.

Here: a CA, what it signs (servers, clients, nodes), a second CA for the aggregation layer,
the service account key. Made once per life of a cluster and kept until `down`, because the
CA is what running pods and the kubeconfig trust. Never here: the operator's certificates.
"""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cabildo_local.configuration import write_configuration

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

VALIDITY_DAYS = 3650


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Where a certificate and its key lie."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a certificate is for.

    Attributes:
        user: Common name, the user name for the API server.
        groups: Organisations, the user's groups.
        names: DNS names of a server.
        addresses: IP addresses of a server.
    """

    user: str
    groups: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


class Authority:
    """A certificate authority in a folder.

    Args:
        folder: Where everything it makes lies; made if missing.
        name: Its file name and common name.
    """

    def __init__(self, folder: Path, *, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self.pair = KeyPair(folder / f"{name}.crt", folder / f"{name}.key")
        if not self.pair.certificate.exists():
            self._make_own(name)

    def issue(self, name: str, *, subject: Subject) -> KeyPair:
        """Return a signed key pair, made if it is not there.

        Args:
            name: File name without its ending.
            subject: Whom it is for; usable as a client, and as a server if it has names.
        """
        pair = KeyPair(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        if pair.certificate.exists():
            return pair
        issuer = x509.load_pem_x509_certificate(self.pair.certificate.read_bytes())
        issuer_key = serialization.load_pem_private_key(self.pair.key.read_bytes(), password=None)
        assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = _builder(_name(subject.user, subject.groups), issuer.subject, key)
        alternatives = _alternatives(subject)
        if alternatives:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
            builder = builder.add_extension(
                x509.SubjectAlternativeName(alternatives), critical=False
            )
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        builder = builder.add_extension(
            x509.BasicConstraints(ca=False, path_length=None), critical=True
        )
        _write(pair, builder.sign(issuer_key, hashes.SHA256()), key)
        return pair

    def _make_own(self, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        own_name = _name(f"cabildo-{name}", ())
        builder = _builder(own_name, own_name, key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        _write(self.pair, builder.sign(key, hashes.SHA256()), key)


def service_account_key(folder: Path) -> Path:
    """Return the key that signs service account tokens, made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / "service-account.key"
    if not path.exists():
        _write_private(path, _key_pem(ec.generate_private_key(ec.SECP256R1())))
    return path


def write_kubeconfig(
    path: Path, *, cluster: str, server: str, authority: KeyPair, client: KeyPair
) -> None:
    """Write a kubeconfig file with one cluster, one user and one context, all embedded."""
    context = f"cabildo-{cluster}"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": context,
                "cluster": {
                    "server": server,
                    "certificate-authority-data": _base64(authority.certificate),
                },
            }
        ],
        "users": [
            {
                "name": context,
                "user": {
                    "client-certificate-data": _base64(client.certificate),
                    "client-key-data": _base64(client.key),
                },
            }
        ],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
        "current-context": context,
    }
    write_configuration(path, text=yaml.safe_dump(document, sort_keys=False))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(tz=dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks of one machine may still be set back a little.
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=VALIDITY_DAYS))
    )


def _name(user: str, groups: Sequence[str]) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _alternatives(subject: Subject) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in subject.names]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in subject.addresses]
    return names


def _write(pair: KeyPair, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    # The certificate comes last: its presence says that the pair is whole.
    _write_private(pair.key, _key_pem(key))
    _write_private(pair.certificate, certificate.public_bytes(serialization.Encoding.PEM))


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        # Kubernetes finds public keys in this form of private keys only.
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _write_private(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.touch(mode=0o600)
    temporary.write_bytes(content)
    temporary.rename(path)


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
