"""What storage refuses, in words a user can act on."""


class StorageError(Exception):
    """Anything storage refuses; its text is meant for the user."""


class Missing(StorageError):
    """There is no such thing in this project."""


class InUse(StorageError):
    """A job that is not final still needs it."""


class KeyReused(StorageError):
    """The idempotency key already stands for another job."""


class NotFinal(StorageError):
    """The job has not ended yet."""


class AlreadyFinal(StorageError):
    """The job has ended already."""


class BadCursor(StorageError):
    """The cursor of a list is not one that storage gave out."""


class TooLarge(StorageError):
    """More bytes than allowed."""


class DigestMismatch(StorageError):
    """The bytes that arrived are not those that were announced."""


class Corrupt(StorageError):
    """A stored blob is no longer what was stored."""


class Full(StorageError):
    """The disk is full."""


class Taken(StorageError):
    """There is one like it already."""


class TooMany(StorageError):
    """A project may have no more of these."""


class Unfit(StorageError):
    """The job asks for what cannot be done to its model."""

    def __init__(self, pointer: str, why: str) -> None:
        """`pointer` is the JSON pointer of what cannot."""
        super().__init__(f"{pointer.lstrip('/').replace('/', '.')}: {why}")
        self.pointer, self.why = pointer, why


class Forbidden(StorageError):
    """An endpoint that may not be asked."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        """`code` is the finer one: not_allowed, address_forbidden or secret_missing."""
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint
