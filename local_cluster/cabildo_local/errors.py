"""The exceptions of the local cluster; nothing else.

    LocalClusterError
    ├── PrerequisiteError     the machine lacks something: root, cgroups, space, Go
    ├── SettingsError         a name, range or number that was given cannot be used
    ├── ProcessError          a program of the cluster did not start, or ended
    ├── CommandError          a command such as `ip` or `mount` failed
    ├── BinaryError           a program could not be found, fetched or built
    │   └── DownloadError     a release file could not be had; it is built instead
    ├── ImageError            an image could not be built or moved
    ├── NetworkError          no free address range, or a link that is not there
    ├── NotACheckoutError     the command runs outside of a checkout
    └── ReadinessError        something did not become ready in time

Every message says what was wrong and every remedy what to do about it; the CLI prints
both. Raised everywhere in this package, caught in `cabildo_cli.cluster` only.
"""


class LocalClusterError(Exception):
    """Anything that stops a local cluster from doing what was asked.

    Args:
        message: What is wrong, with the name and value at fault.
        remedy: What the reader can do about it; empty when nothing is known.
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message if not remedy else f"{message}. {remedy}")
        self.message = message
        self.remedy = remedy


class PrerequisiteError(LocalClusterError):
    """The machine lacks something that a local cluster needs."""


class SettingsError(LocalClusterError):
    """A setting cannot be used as given."""


class ProcessError(LocalClusterError):
    """A program of the cluster did not start, or ended when it should run."""


class CommandError(LocalClusterError):
    """A command ended with another exit status than 0."""


class NetworkError(LocalClusterError):
    """No free address range, or a link that should be there is not."""


class NotACheckoutError(LocalClusterError):
    """The sources that a local cluster is built from are not there."""


class ReadinessError(LocalClusterError):
    """Something did not become ready in time."""


class BinaryError(LocalClusterError):
    """A program could not be found, fetched or built."""


class DownloadError(BinaryError):
    """A release file could not be had, or is not what its checksum says.

    Args:
        message: What is wrong, with the site and the file.
        asked: False where the site was not asked again after it had not answered before.
    """

    def __init__(self, message: str, *, asked: bool = True) -> None:
        super().__init__(message)
        self.asked = asked


class ImageError(LocalClusterError):
    """An image could not be built or moved."""
