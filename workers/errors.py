"""The one way for a worker to say that an upload or a job cannot be served, and why."""

from sparring.contract.states import Code, Reason

MAX_MESSAGE = 4000


class Refused(Exception):
    """What the user gave cannot be used. `reason` travels to them: what was wrong, where, and what to do."""

    def __init__(self, code: Code, message: str, *, hint: str = "", detail: str = "") -> None:
        """Build the reason; `detail` is the finer stable code, such as `unsupported_op`. Overlong messages are cut."""
        super().__init__(code, message, hint, detail)
        self.reason = Reason(code=code, message=message[:MAX_MESSAGE], hint=hint[:MAX_MESSAGE], detail=detail)

    def __str__(self) -> str:
        """Message and hint in one line."""
        return f"{self.reason.message}. {self.reason.hint}" if self.reason.hint else self.reason.message


def shown(given: object, limit: int = 80) -> str:
    """A stranger's string as it may stand in a message: quoted, printable, short."""
    text = ascii(given)
    return text if len(text) <= limit else f"{text[:limit]}…"
