"""Sessions of browsers: a signed cookie that stands for an API key, a token for every form, and words that share one thing.

The cookie holds the id of a key, never the key; what it lets in ends when the key is revoked or expires, or after LASTS seconds.
"""

import hmac
import os
import re
import secrets
import time
from base64 import urlsafe_b64encode
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

LASTS = 7 * 24 * 3600
"""Seconds after which one has to log in again."""

_SECRET = 32
_COOKIE = re.compile(r"((?:key_[0-9a-z]{20})?)\.([0-9]{1,12})\.([\w\-]{16,64})\.([\w\-]{43})", re.ASCII)


class Session(NamedTuple):
    """One browser."""

    key: str
    """Id of the API key it logged in with; empty before that, and where no key is asked for."""
    until: int
    """When it ends, in seconds since 1970."""
    nonce: str


class Sessions:
    """Makes and reads the cookies of one installation.

    Args:
        secret: what all processes that serve the same pages share, and nobody else knows.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        # Browsers send the cookies of a host to all its ports: two stacks of one machine must not take each other's.
        self.cookie = f"sparring_{sha256(secret).hexdigest()[:8]}"
        """Name of the cookie."""

    def begin(self, key: str = "") -> Session:
        """A new session, of whoever holds the key with this id."""
        return Session(key, int(time.time()) + LASTS, secrets.token_urlsafe(16))

    def seal(self, session: Session) -> str:
        """The session as the text of a cookie."""
        told = f"{session.key}.{session.until}.{session.nonce}"
        return f"{told}.{self._sign('session', told)}"

    def open(self, cookie: str) -> Session | None:
        """The session of a cookie; None unless it is one that was sealed here and has not ended."""
        parts = _COOKIE.fullmatch(cookie)
        if parts is None:
            return None
        session = Session(parts[1], int(parts[2]), parts[3])
        return session if hmac.compare_digest(self.seal(session), cookie) and session.until > time.time() else None

    def token(self, session: Session) -> str:
        """What a form of this session carries, so that no other site can send it."""
        return self._sign("form", f"{session.key}.{session.nonce}")

    def share(self, what: str, id: str) -> str:
        """A word that lets whoever knows it see one thing without a key, such as the badge of a model. It cannot be guessed."""
        return f"{id}.{self._sign(f'share-{what}', id)}"

    def shared(self, what: str, word: str) -> str | None:
        """The id in such a word; None unless it was made here."""
        id = word.partition(".")[0]
        return id if hmac.compare_digest(self.share(what, id).encode(), word.encode()) else None

    def _sign(self, purpose: str, text: str) -> str:
        digest = hmac.digest(self._secret, f"{purpose}:{text}".encode(), "sha256")
        return urlsafe_b64encode(digest).rstrip(b"=").decode()


def shared_secret(data: Path) -> bytes:
    """The secret that the processes of one data folder share, made by the first that asks. Raises OSError."""
    place = data / "session.secret"
    if not place.exists():
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = data / f"session.secret.{os.getpid()}.{secrets.token_hex(4)}"
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(_SECRET))
        # Whoever is second takes what the first has written, which is whole by then.
        with suppress(FileExistsError):
            os.link(draft, place)
        draft.unlink()
    return place.read_bytes()
