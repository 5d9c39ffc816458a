"""Lists come in pages: `limit` and an opaque `cursor`, answered with `next_cursor` and a `Link` to the next page."""

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, Query, Request, Response
from pydantic import Field

from sparring.contract.base import Frozen
from sparring.contract.resources import Page


class PageQuery(Frozen):
    """Which page of a list."""

    limit: Annotated[int, Field(ge=1, le=200)] = 50
    """Items a page holds at most."""
    cursor: Annotated[str, Field(pattern=r"^[\w\-=]{1,200}$")] | None = None
    """`next_cursor` of the page before."""


Paging = Annotated[PageQuery, Query()]
"""Parameter type of an endpoint that lists."""


class Links:
    """Adds the `Link` header that leads to the next page."""

    def __init__(self, request: Request, response: Response) -> None:
        self._request, self._response = request, response

    def to_next(self, page: Page[Any]) -> None:
        """Does nothing on the last page."""
        if page.next_cursor:
            query = urlencode({**self._request.query_params, "cursor": page.next_cursor})
            self._response.headers["Link"] = f'<{self._request.url.path}?{query}>; rel="next"'


Linking = Annotated[Links, Depends()]
"""Parameter type of an endpoint that lists."""
