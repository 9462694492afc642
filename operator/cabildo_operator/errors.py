"""Every error the operator raises on purpose.

::

    OperatorError
    ├── SettingsError            a setting is missing or wrong: names it, its value, the remedy
    ├── CertificateError         the certificate Secret holds something else
    ├── LeaseLostError           another replica leads now; the process must end
    ├── ChildNameConflictError   a child's name is taken by an object of somebody else's
    ├── ReportRefusedError       a trainer's report is answered with a 4xx
    └── ApiError                 the API server did not do what was asked
        ├── NotFoundError        404
        ├── AlreadyExistsError   409, on create
        ├── ConflictError        409, somebody else wrote first: observe again
        ├── ExpiredError         410, the watch or list must start over
        ├── RefusedError         400, 403, 413, 422...: asking again gives the same answer
        └── UnavailableError     no answer, 401, 429, 5xx: ask again later

`reason` is CamelCase and appears in logs and metrics; what a user sees in a condition is
chosen by a kind's `explain`.
"""


class OperatorError(Exception):
    """Base of all."""

    reason = "OperatorError"


class SettingsError(OperatorError):
    """A setting is missing or wrong."""

    reason = "InvalidSettings"

    def __init__(self, name: str, *, value: str, remedy: str) -> None:
        super().__init__(f"{name}={value!r}: {remedy}")


class CertificateError(OperatorError):
    """The certificate Secret holds something else than a CA and a leaf of it."""

    reason = "InvalidCertificate"


class LeaseLostError(OperatorError):
    """Another replica leads now, or the API server could not be asked for too long."""

    reason = "LeaseLost"


class ChildNameConflictError(OperatorError):
    """A child's name is taken by an object that is not ours."""

    reason = "ChildNameConflict"

    def __init__(self, kind: str, *, namespace: str, name: str) -> None:
        super().__init__(
            f"{kind} {namespace}/{name} exists already and belongs to somebody else;"
            " delete or rename it"
        )
        self.kind = kind
        self.name = name


class ReportRefusedError(OperatorError):
    """A trainer's report is not accepted."""

    def __init__(self, message: str, *, code: int, reason: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class ApiError(OperatorError):
    """The API server did not do what was asked."""

    def __init__(
        self, message: str, *, code: int = 0, reason: str = "", retry_after_s: float = 0.0
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason or type(self).__name__.removesuffix("Error")
        self.retry_after_s = retry_after_s


class NotFoundError(ApiError):
    """There is no such object."""


class AlreadyExistsError(ApiError):
    """An object of that name is there already."""


class ConflictError(ApiError):
    """Somebody else wrote first, or a precondition does not hold."""


class ExpiredError(ApiError):
    """The resourceVersion is too old; list again."""


class RefusedError(ApiError):
    """The request itself is not acceptable."""


class UnavailableError(ApiError):
    """No answer, or one that says: later."""
