"""The few questions of the OCI distribution API that stacking an image takes.

Here: manifests and small blobs of a registry on this machine, over plain HTTP. Never here:
what is asked of it (images.py), moving images to other registries (skopeo does), or large
layers (buildah writes them).
"""

from __future__ import annotations

import hashlib
import http.client
import json
from dataclasses import dataclass
from typing import Any

from cabildo_local.errors import ImageError

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Image:
    """A manifest and the configuration it names.

    Attributes:
        manifest: The OCI image manifest.
        config: The OCI image configuration.
    """

    manifest: dict[str, Any]
    config: dict[str, Any]


class RegistryClient:
    """Talks to one registry.

    Args:
        address: `host:port`.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def digest(self, name: str, *, reference: str) -> str | None:
        """Return the digest that a tag stands for, None if the registry has no such tag.

        Raises:
            ImageError: The registry does not answer.
        """
        path = f"/v2/{name}/manifests/{reference}"
        status, headers, _ = self._ask("HEAD", path, headers={"Accept": MANIFEST_TYPE})
        return headers.get("docker-content-digest") if status == http.HTTPStatus.OK else None

    def image(self, name: str, *, reference: str) -> Image:
        """Return an image's manifest and configuration.

        Raises:
            ImageError: It is not there.
        """
        path = f"/v2/{name}/manifests/{reference}"
        manifest = json.loads(self._expect("GET", path, headers={"Accept": MANIFEST_TYPE}))
        config = self._expect("GET", f"/v2/{name}/blobs/{manifest['config']['digest']}")
        return Image(manifest=manifest, config=json.loads(config))

    def put_image(
        self, name: str, *, reference: str, layers: list[dict[str, Any]], config: dict[str, Any]
    ) -> str:
        """Store an image whose layers are there already, and return its digest.

        Args:
            name: Repository.
            reference: Tag.
            layers: Descriptors of its layers, lowest first.
            config: Its configuration; encoded the same way each time.

        Raises:
            ImageError: The registry refused it.
        """
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": self.put_blob(name, content=_encode(config), media_type=CONFIG_TYPE),
            "layers": layers,
        }
        body = _encode(manifest)
        self._expect(
            "PUT",
            f"/v2/{name}/manifests/{reference}",
            headers={"Content-Type": MANIFEST_TYPE},
            body=body,
        )
        return _digest(body)

    def put_blob(self, name: str, *, content: bytes, media_type: str) -> dict[str, Any]:
        """Store a small blob and return its descriptor.

        Raises:
            ImageError: The registry refused it.
        """
        digest = _digest(content)
        status, headers, body = self._ask("POST", f"/v2/{name}/blobs/uploads/")
        if status != http.HTTPStatus.ACCEPTED:
            raise self._refusal("POST", name, status=status, body=body)
        location = headers["location"]
        path = location[location.index("/v2/") :]
        separator = "&" if "?" in path else "?"
        self._expect(
            "PUT",
            f"{path}{separator}digest={digest}",
            headers={"Content-Type": "application/octet-stream"},
            body=content,
        )
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def _expect(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> bytes:
        status, _, answer = self._ask(method, path, headers=headers, body=body)
        if status not in {http.HTTPStatus.OK, http.HTTPStatus.CREATED}:
            raise self._refusal(method, path, status=status, body=answer)
        return answer

    def _ask(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self._address, timeout=TIMEOUT_S)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return response.status, found, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ImageError(
                f"the registry at {self._address} does not answer: {error}",
                remedy="See `cabildo cluster status`",
            ) from error
        finally:
            connection.close()

    def _refusal(self, method: str, path: str, *, status: int, body: bytes) -> ImageError:
        text = body.decode(errors="replace").strip()
        return ImageError(f"{self._address}: {method} {path}: HTTP {status} {text}")


def _encode(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
