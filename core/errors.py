"""Every error a user can meet: one line that names the value and the remedy."""


class TraderError(Exception):
    """A failure the owner can understand; `exit_code` is what a script returns for it."""

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(f"{message} {remedy}".strip() if remedy else message)
        self.message = message
        self.remedy = remedy


class UsageError(TraderError):
    """Wrong arguments on the command line."""

    exit_code = 2


class ConfigError(TraderError):
    """A configuration that cannot be used; the last good one stays in force."""

    exit_code = 2


class StoreError(TraderError):
    """The database is missing, locked, foreign or damaged."""


class DataError(TraderError):
    """Candles from a file or an exchange that break the law of candles."""


class ExchangeError(TraderError):
    """The exchange answered with something that no retry can mend."""


class ExchangeUnavailable(ExchangeError):  # noqa: N818  (the state, as users say it)
    """The exchange could not be reached in time; the same request may succeed later."""


class ModelError(TraderError):
    """A bundle that is missing, incomplete, foreign or damaged."""


class NotEnoughData(TraderError):  # noqa: N818  (the state, as users say it)
    """Too little history for the step asked for; the message says how much is missing.

    Its text begins with SAID, so that the parent of a process that ends with it can tell it from a
    failure: time mends it.
    """

    SAID = "not enough data yet: "

    def __str__(self) -> str:
        return f"{self.SAID}{super().__str__()}"
