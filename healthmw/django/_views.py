"""The endpoint as a view, to stand among other routes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from django.contrib.auth.decorators import login_not_required
from django.http import HttpResponse
from django.views.decorators.csrf import csrf_exempt

from healthmw._drain import DRAINER
from healthmw._http import Endpoint
from healthmw._request import Request, caller_of_environ, words_of_environ

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from django.http import HttpRequest

    from healthmw._health import Health
    from healthmw._response import Response
    from healthmw.access import Authorizer

__all__ = ("health_view",)


def health_view(
    health: Health,
    *,
    show: str = "names",
    authorize: Authorizer | Iterable[Authorizer] | None = None,
    drain_delay: float | None = None,
) -> Callable[..., HttpResponse]:
    """Return a view that answers for `health`, by WSGI and by ASGI.

    Where the route captures `name`, the view answers for the group or check of that name:

        re_path(r"^health_check(?:/(?P<name>[^/]+))?/?$", health_view(health))

    A route is behind Django's own middleware. Where a load balancer is to get past ALLOWED_HOSTS,
    the redirect to HTTPS and the session, put `healthmw.wsgi.HealthMiddleware` (or that of
    `healthmw.asgi`) around the whole app. The options are as there; the `raw` of the
    caller is Django's own request: `authorize=lambda caller: caller.raw.user.is_staff`.
    """
    # The path is given by the route.
    endpoint = Endpoint(health, "/health_check", show=show, authorize=authorize, sync=True)
    drains = DRAINER.add(health, drain_delay)
    if drains:
        DRAINER.arm(again=True)

    @login_not_required  # who polls has none
    @csrf_exempt  # a POST is to hear that it is not allowed, rather than that it lacks a token
    def view(request: HttpRequest, name: str = "") -> HttpResponse:
        if drains:
            DRAINER.arm()  # where the view was made before the server set its handler
        words, if_none_match = words_of_environ(request.META, f"/{name}")
        asked = Request(*words, if_none_match)
        caller = partial(caller_of_environ, request.META, request)
        return as_django(endpoint.answer_sync(asked, caller))

    return view


def as_django(answer: Response) -> HttpResponse:
    """Return the response as Django's."""
    headers = dict(answer.headers)
    response = HttpResponse(answer.body, status=answer.status, headers=headers)
    if "Content-Type" not in headers:  # a 304, and Django would say that it is HTML
        del response.headers["Content-Type"]
    # Or Django would log each 503, and mail it to the ADMINS, poll after poll: what is wrong has
    # been logged as it began.
    response._has_been_logged = True  # type: ignore[attr-defined]  # noqa: SLF001 - see log_response()
    return response
