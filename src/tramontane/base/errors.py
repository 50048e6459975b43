"""The errors a user can meet, as one tree with stable codes.

    TramontaneError
    ├── InvalidRequest      the input is wrong; ``path`` names the field
    ├── Unauthenticated     no valid credential was given
    ├── Forbidden           a valid credential that does not allow this
    ├── RefusedByPolicy     a residency rule does not allow this
    ├── NotFound            the named object does not exist
    ├── Conflict            the object changed meanwhile, or the name is taken
    ├── BuildFailed         the user's source did not build; the tool's own words are in ``detail``
    ├── SourceFailed        where a model comes from refuses, fails, or does not answer
    ├── Unsupported         this machine lacks what was asked for; the message says what to install
    ├── TimedOut            the work goes on, but the caller's patience ended
    └── Unavailable         worth trying again after ``retry_after_s``

``code`` is part of the public contract: ``wire`` maps it to an HTTP status and to an exit code of
the command line. A message says what failed, which object, and the next step; lower case first
letter, no full stop, the cause chained with ``from``. A bug is an assertion, never one of these.
The command line shows a next step of its own for each code; ``next_step`` says a better one.
"""


class TramontaneError(Exception):
    """Base of all errors shown to a user; ``code`` is stable, ``message`` is for people."""

    code = "internal"

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        detail: str | None = None,
        retry_after_s: float | None = None,
        next_step: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.next_step = next_step


class InvalidRequest(TramontaneError):
    """The input is wrong; ``path`` names the field, as in ``services[0].scale.max``."""

    code = "invalid_request"


class Unauthenticated(TramontaneError):
    """No valid credential was given."""

    code = "unauthenticated"


class Forbidden(TramontaneError):
    """The credential is valid but does not allow this."""

    code = "forbidden"


class RefusedByPolicy(TramontaneError):
    """A residency rule does not allow this; the message names the rule."""

    code = "refused_by_policy"


class NotFound(TramontaneError):
    """The named object does not exist."""

    code = "not_found"


class Conflict(TramontaneError):
    """The object changed meanwhile, or the name is taken."""

    code = "conflict"


class BuildFailed(TramontaneError):
    """The user's source did not build; ``detail`` holds the end of the tool's own output."""

    code = "build_failed"


class SourceFailed(TramontaneError):
    """Where a model's weights come from refuses, fails, or does not answer."""

    code = "source_failed"


class Unsupported(TramontaneError):
    """This machine lacks what was asked for; the message says what to install."""

    code = "unsupported"


class TimedOut(TramontaneError):
    """The work goes on, but the caller's patience ended."""

    code = "timed_out"


class Unavailable(TramontaneError):
    """A part is not reachable now; trying again after ``retry_after_s`` may succeed."""

    code = "unavailable"
