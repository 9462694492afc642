"""Official release files, taken only with the checksum that is published beside them.

Here: one download, its check and the binary out of its archive; a site that did not answer
is not asked again. Never here: what to do without the file (binaries.py builds it).
"""

from __future__ import annotations

import hashlib
import http.client
import os
import queue
import tarfile
import threading
import urllib.error
import urllib.request
from typing import IO, TYPE_CHECKING

from cabildo_local.errors import DownloadError

if TYPE_CHECKING:
    from pathlib import Path

    from cabildo_local.reporter import Reporter
    from cabildo_local.upstreams import Release

CHUNK_BYTES = 1 << 20
CONNECT_TIMEOUT_S = 4.0
READ_TIMEOUT_S = 30.0
CHECKSUM_LIMIT_BYTES = 1 << 20


class ReleaseSite:
    """Fetches release files; safe to use from several threads.

    Args:
        mirror: Base address that stands in for `https://`, such as `http://mirror.local/pub`:
            the site's own host becomes its first folder. None for the sites themselves.
        connect_timeout_s: How long a silent site is waited for.
    """

    def __init__(
        self, *, mirror: str | None = None, connect_timeout_s: float = CONNECT_TIMEOUT_S
    ) -> None:
        self._base = "https://" if mirror is None else mirror.rstrip("/") + "/"
        self._connect_timeout_s = connect_timeout_s
        self._silent: dict[str, str] = {}
        self._guard = threading.Lock()

    def fetch(
        self, release: Release, *, fill: dict[str, str], target: Path, reporter: Reporter
    ) -> None:
        """Write the checked binary to `target`, executable.

        Args:
            release: Where the file lies.
            fill: `version`, `arch` and `name` for its templates.
            target: Path that is written; a temporary one, since a failure may leave a part.
            reporter: Hears when a download begins.

        Raises:
            DownloadError: The file could not be had or is not what its checksum says.
        """
        path = release.path.format(**fill)
        with self._guard:
            if reason := self._silent.get(release.site):
                raise DownloadError(f"{release.site}: {reason}", asked=False)
        expected = _find_checksum(
            self._read(release.site, path=release.checksums.format(**fill)),
            file_name=path.rsplit("/", 1)[-1],
        )
        reporter.note(f"downloading {self._base}{release.site}/{path}")
        archive = target.with_name(target.name + ".download")
        try:
            found = self._save(release.site, path=path, target=archive)
            if found != expected:
                raise DownloadError(
                    f"{release.site}/{path}: SHA-256 is {found}, published is {expected}"
                )
            _unpack(archive, release=release, fill=fill, target=target)
        finally:
            archive.unlink(missing_ok=True)

    def _read(self, site: str, *, path: str) -> str:
        try:
            with self._open(site, path=path) as body:
                return body.read(CHECKSUM_LIMIT_BYTES).decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise DownloadError(f"{site}/{path}: {_reason(error)}") from error

    def _save(self, site: str, *, path: str, target: Path) -> str:
        digest = hashlib.sha256()
        try:
            with self._open(site, path=path) as body, target.open("wb") as file:
                while chunk := body.read(CHUNK_BYTES):
                    digest.update(chunk)
                    file.write(chunk)
        except (OSError, http.client.HTTPException) as error:
            raise DownloadError(f"{site}/{path}: {_reason(error)}") from error
        return digest.hexdigest()

    def _open(self, site: str, *, path: str) -> IO[bytes]:
        request = urllib.request.Request(  # noqa: S310 - the base is https or the user's mirror
            f"{self._base}{site}/{path}", headers={"User-Agent": "cabildo"}
        )
        try:
            response = _answer(request, limit_s=self._connect_timeout_s)
        except urllib.error.HTTPError as error:
            error.close()
            raise DownloadError(f"{site}/{path}: HTTP {error.code}") from error
        except (OSError, http.client.HTTPException) as error:
            reason = _reason(error)
            with self._guard:
                self._silent[site] = reason
            raise DownloadError(f"{site}: {reason}") from error
        _allow_slow_body(response)
        return response


def _answer(request: urllib.request.Request, *, limit_s: float) -> http.client.HTTPResponse:
    """Return the response, or raise within the limit.

    A socket's own limit covers neither the name's look-up nor the tries of several addresses:
    so the request runs in a thread that is left behind when it takes too long.
    """
    outcome: queue.SimpleQueue[http.client.HTTPResponse | BaseException] = queue.SimpleQueue()

    def ask() -> None:
        try:
            outcome.put(urllib.request.urlopen(request, timeout=limit_s))  # noqa: S310
        except BaseException as error:  # noqa: BLE001 - handed to the waiting thread
            outcome.put(error)

    threading.Thread(target=ask, daemon=True, name="release site").start()
    try:
        answer = outcome.get(timeout=limit_s)
    except queue.Empty:
        raise TimeoutError(f"no answer within {limit_s:g} s") from None
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _allow_slow_body(response: http.client.HTTPResponse) -> None:
    """Give a body that comes slowly longer than a site that does not answer."""
    raw = getattr(response.fp, "raw", None)
    socket = getattr(raw, "_sock", None)
    if socket is not None:
        socket.settimeout(READ_TIMEOUT_S)


def _reason(error: BaseException) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(cause) or type(cause).__name__


def _find_checksum(text: str, *, file_name: str) -> str:
    """Return the SHA-256 of a file from a published list, or the only one there is."""
    rows = [line.split() for line in text.splitlines() if line.strip()]
    for row in rows:
        if len(row) > 1 and row[-1].lstrip("*").rsplit("/", 1)[-1] == file_name:
            return row[0].lower()
    if len(rows) == 1 and len(rows[0]) == 1:
        return rows[0][0].lower()
    raise DownloadError(f"{file_name}: its published checksums do not name it")


def _unpack(archive: Path, *, release: Release, fill: dict[str, str], target: Path) -> None:
    if release.member is None:
        archive.replace(target)
    else:
        member = release.member.format(**fill)
        try:
            with tarfile.open(archive) as bundle, target.open("wb") as file:
                body = bundle.extractfile(member)
                if body is None:
                    raise DownloadError(f"{archive.name}: {member} is no file")
                while chunk := body.read(CHUNK_BYTES):
                    file.write(chunk)
        except (KeyError, tarfile.TarError, OSError) as error:
            raise DownloadError(f"{archive.name}: no {member} in it: {error}") from error
    target.chmod(0o755)
    _flush(target)


def _flush(path: Path) -> None:
    """Have the bytes on the disk before a rename makes them count."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
