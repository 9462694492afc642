"""The operator's own certificates: a CA for ten years, a leaf for ninety days, in one Secret.

`CertificateKeeper` makes the Secret when there is none (two replicas may try at once; one wins,
the other reads), renews what has used two thirds of its life and loads the result into a TLS
context that lives as long as the process: new connections get the new certificate. Pods trust
the CA through an annotation that `render/` writes. The cryptography is in `issue_*`, pure but
for randomness and clock.
"""

import asyncio
import base64
import ipaddress
import logging
import ssl
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cabildo_operator import errors
from cabildo_operator.kube.client import ApiClient
from cabildo_operator.kube.objects import Secret
from cabildo_operator.kube.resources import SECRETS

CA_LIFE: Final = timedelta(days=3650)
LEAF_LIFE: Final = timedelta(days=90)
CLOCK_SKEW: Final = timedelta(minutes=5)
CHECK_INTERVAL_S: Final = 600.0
RETRY_S: Final = 5.0

CA_CERTIFICATE: Final = "ca.crt"
CA_KEY: Final = "ca.key"
LEAF_CERTIFICATE: Final = "tls.crt"
LEAF_KEY: Final = "tls.key"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key as PEM (PKCS #8)."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def is_due(self, now: datetime) -> bool:
        """Whether two thirds of its life are over."""
        begin = self.certificate.not_valid_before_utc
        life = self.certificate.not_valid_after_utc - begin
        return now >= begin + life * 2 / 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What the Secret holds.

    Attributes:
        ca: The CA that signs now.
        leaf: The serving certificate.
        previous: Former CAs that are still valid: pods started under them still trust theirs.
    """

    ca: Pair
    leaf: Pair
    previous: tuple[x509.Certificate, ...] = ()

    @property
    def trust_pem(self) -> bytes:
        """All CAs to trust, the current one first."""
        encoding = serialization.Encoding.PEM
        return b"".join(c.public_bytes(encoding) for c in (self.ca.certificate, *self.previous))

    def to_data(self) -> dict[str, str]:
        """The Secret's data."""
        values = {
            CA_CERTIFICATE: self.trust_pem,
            CA_KEY: self.ca.key_pem,
            LEAF_CERTIFICATE: self.leaf.certificate_pem,
            LEAF_KEY: self.leaf.key_pem,
        }
        return {name: base64.b64encode(value).decode() for name, value in values.items()}

    @classmethod
    def from_data(cls, data: dict[str, bytes]) -> "Bundle":
        """Read a Secret's data.

        Raises:
            CertificateError: It is something else, or CA and leaf do not belong together.
        """
        try:
            ca, *previous = x509.load_pem_x509_certificates(data[CA_CERTIFICATE])
            leaf = x509.load_pem_x509_certificate(data[LEAF_CERTIFICATE])
            bundle = cls(
                ca=Pair(certificate=ca, key=_key(data[CA_KEY])),
                leaf=Pair(certificate=leaf, key=_key(data[LEAF_KEY])),
                previous=tuple(previous),
            )
            leaf.verify_directly_issued_by(ca)
        except (KeyError, ValueError, TypeError) as error:
            raise errors.CertificateError(f"{type(error).__name__}: {error}") from error
        except Exception as error:  # cryptography's InvalidSignature has no common base
            raise errors.CertificateError(f"the leaf is not of the CA: {error!r}") from error
        return bundle


def renewed(bundle: Bundle | None, *, hosts: Sequence[str], now: datetime) -> Bundle | None:
    """The bundle that should be there; None when the given one will do."""
    if bundle is None:
        ca = issue_ca(now=now)
        return Bundle(ca=ca, leaf=issue_leaf(ca, hosts=hosts, now=now))
    if bundle.ca.is_due(now):
        old = (bundle.ca.certificate, *bundle.previous)
        ca = issue_ca(now=now)
        return Bundle(
            ca=ca,
            leaf=issue_leaf(ca, hosts=hosts, now=now),
            previous=tuple(c for c in old if c.not_valid_after_utc > now),
        )
    if bundle.leaf.is_due(now) or not set(hosts) <= hosts_of(bundle.leaf.certificate):
        leaf = issue_leaf(bundle.ca, hosts=hosts, now=now)
        return Bundle(ca=bundle.ca, leaf=leaf, previous=bundle.previous)
    return None


def issue_ca(*, now: datetime) -> Pair:
    """A new self-signed CA, ECDSA on P-256."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"Cabildo CA {now:%Y-%m-%d}")
    usage = _usage(signs_certificates=True)
    certificate = (
        _builder(name, issuer=name, key=key, now=now, life=CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pair(certificate=certificate, key=key)


def issue_leaf(ca: Pair, *, hosts: Sequence[str], now: datetime) -> Pair:
    """A serving certificate for DNS names and IP addresses."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = ca.certificate.subject
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    certificate = (
        _builder(_name(hosts[0][:64]), issuer=issuer, key=key, now=now, life=LEAF_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(authority, critical=False)
        .add_extension(
            x509.SubjectAlternativeName([_alternative(h) for h in hosts]), critical=False
        )
        .sign(ca.key, hashes.SHA256())
    )
    return Pair(certificate=certificate, key=key)


def hosts_of(certificate: x509.Certificate) -> set[str]:
    """The DNS names and IP addresses a certificate is for."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(names.get_values_for_type(x509.DNSName)) | {
        str(address) for address in names.get_values_for_type(x509.IPAddress)
    }


def service_hosts(service: str, *, namespace: str) -> tuple[str, ...]:
    """The names a Service is reached by."""
    return (
        f"{service}.{namespace}.svc",
        f"{service}.{namespace}.svc.cluster.local",
        f"{service}.{namespace}",
        service,
    )


class CertificateKeeper:
    """Keeps the Secret fresh and the TLS context loaded with it."""

    def __init__(
        self,
        client: ApiClient,
        *,
        namespace: str,
        secret: str,
        hosts: Sequence[str],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._secret = secret
        self._hosts = tuple(hosts)
        self._now = now
        self._loaded: Bundle | None = None
        self._trust_pem = ""
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2

    @property
    def trust_pem(self) -> str:
        """The CAs that pods are to trust; empty before the first `refresh`."""
        return self._trust_pem

    async def run(self) -> None:
        """Refresh now and then until cancelled."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            try:
                await self.refresh()
            except errors.OperatorError as error:
                logger.warning("certificates are not refreshed: %s", error)

    async def start(self) -> None:
        """Refresh until it succeeds once."""
        while True:
            try:
                return await self.refresh()
            except errors.OperatorError as error:
                logger.warning("certificates cannot be had yet: %s", error)
                await asyncio.sleep(RETRY_S)

    async def refresh(self) -> None:
        """Read the Secret, renew what is due, load what is there."""
        secret = await self._read()
        bundle = None
        if secret is not None and secret.data:
            try:
                bundle = Bundle.from_data(secret.data)
            except errors.CertificateError as error:
                logger.warning("Secret %s is made anew: %s", self._secret, error)
        fresh = renewed(bundle, hosts=self._hosts, now=self._now())
        if fresh is not None:
            try:
                await self._write(fresh, replaced=secret)
            except (errors.AlreadyExistsError, errors.ConflictError):
                # Another replica was faster: what it wrote is as good.
                secret = await self._read()
                fresh = Bundle.from_data(secret.data if secret is not None else {})
            else:
                logger.info("Secret %s/%s has new certificates", self._namespace, self._secret)
        self._load(fresh or bundle)

    async def _read(self) -> Secret | None:
        try:
            return await self._client.get(SECRETS, namespace=self._namespace, name=self._secret)
        except errors.NotFoundError:
            return None

    async def _write(self, bundle: Bundle, *, replaced: Secret | None) -> None:
        metadata: dict[str, Any] = {"namespace": self._namespace, "name": self._secret}
        body = {
            "apiVersion": SECRETS.api_version,
            "kind": SECRETS.kind,
            "metadata": metadata,
            "type": "Opaque",
            "data": bundle.to_data(),
        }
        if replaced is None:
            await self._client.create(SECRETS, body=body)
        else:
            # A Secret that the chart or an administrator made keeps its labels.
            metadata["labels"] = replaced.metadata.labels
            metadata["resourceVersion"] = replaced.metadata.resource_version
            await self._client.replace(SECRETS, body=body)

    def _load(self, bundle: Bundle | None) -> None:
        if bundle is None:
            raise errors.CertificateError(f"Secret {self._secret} is empty")
        if self._loaded is not None and self._loaded.leaf.certificate == bundle.leaf.certificate:
            return
        # ssl loads from files only; they are readable by this process alone and gone at once.
        with tempfile.TemporaryDirectory(prefix="cabildo-") as folder:
            certificate, key = Path(folder, "tls.crt"), Path(folder, "tls.key")
            certificate.write_bytes(bundle.leaf.certificate_pem)
            key.touch(mode=0o600)
            key.write_bytes(bundle.leaf.key_pem)
            self.context.load_cert_chain(certificate, key)
        self._loaded, self._trust_pem = bundle, bundle.trust_pem.decode()


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("the key is not an elliptic-curve key")
    return key


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name,
    *,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + life)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
