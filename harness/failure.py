"""The one family of errors that the harness raises for people to read."""


class Failure(Exception):  # noqa: N818 -- it is a failure that the caller reports, not a bug.
    """Something outside went wrong; says what, and what to do about it.

    Args:
        message: One sentence for a person, without a trailing newline.
        remedy: What to do next; empty when nothing sensible can be said.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  remedy: {self.remedy}" if self.remedy else self.message
