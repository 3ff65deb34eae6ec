"""What each request passes before it is read: who asks, how often, and whether it may."""

import math
import time
from collections.abc import Callable

from crdt_service.access.audit import audit
from crdt_service.access.buckets import Buckets, Taken
from crdt_service.access.keyring import Keyring
from crdt_service.access.limit import Limit
from crdt_service.access.principal import STRANGER, Principal, Scope
from crdt_service.api.asgi import Scope as AsgiScope
from crdt_service.api.asgi import read_address
from crdt_service.api.call import Call
from crdt_service.api.route import Access
from crdt_service.kernel.error import OperationError, ServiceError

# Of each address: so many failures at once, and so many more a minute, are answered with 401 and logged.
FAILURES = Limit(requests_per_minute=10, burst_limit=20)
_SCOPES = {Access.READ: Scope.READ, Access.WRITE: Scope.WRITE, Access.ADMIN: Scope.ADMIN}
_CHALLENGE = b'Bearer realm="jarvis"'


class Authentication:
    """Finds the caller by the API key; public pages need none."""

    def __init__(self, keyring: Keyring, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._keyring = keyring
        self._monotonic = monotonic
        self._failures = Buckets()

    async def admit(self, call: Call) -> None:
        """Set the call's principal.

        Raises:
            ServiceError: There is no key, or it is not good; or too many from this address were not.
        """
        if call.route.access is Access.PUBLIC:
            call.principal = STRANGER
            return
        token = _read_token(call.scope)
        try:
            if not token:
                raise ServiceError(
                    "unauthenticated", "an API key is needed", "send `Authorization: Bearer jarvis_…` with a key"
                )
            principal = self._keyring.authenticate(token)
        except ServiceError as error:
            self._refuse(call, token, error)
            raise
        call.principal = principal
        call.is_admitted = lambda: self._keyring.is_good(principal)

    def _refuse(self, call: Call, token: bytes, error: ServiceError) -> None:
        address = read_address(call.scope)
        taken = self._failures.take(address, FAILURES, self._monotonic())
        if not taken.is_allowed:
            raise _limit(call, taken, f"{address} sent too many requests without a good API key")
        invalid = b', error="invalid_token"' if token else b""
        call.headers.append((b"www-authenticate", _CHALLENGE + invalid))
        audit(
            "authentication_failed",
            reason=error.message,
            key=self._keyring.known_id(token),
            address=address,
        )


class RateLimiting:
    """Takes a token from the bucket of the API key, or of the address where keys are off; public pages cost none."""

    def __init__(
        self, buckets: Buckets, limit: Limit, parts: Callable[[], int], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Limit callers without a limit of their own to `limit`; `parts` is as `Buckets.take` wants it."""
        self._buckets = buckets
        self._limit = limit
        self._parts = parts
        self._monotonic = monotonic

    async def admit(self, call: Call) -> None:
        """Take one token, and tell in headers what is left.

        Raises:
            ServiceError: There is none.
        """
        if call.route.access is not Access.PUBLIC:
            self._take(call, 1)
            call.charge = lambda cost: self._charge(call, cost)

    def _charge(self, call: Call, cost: int) -> None:
        """Take more, of a request that turns out to be several.

        Raises:
            ServiceError: There are not so many; the one of `admit` is gone.
        """
        call.headers = [header for header in call.headers if not header[0].startswith(b"ratelimit")]
        self._take(call, cost)

    def _take(self, call: Call, cost: int) -> None:
        limit = call.principal.limit or self._limit
        taken = self._buckets.take(call.caller, limit, self._monotonic(), cost=cost, parts=self._parts())
        _, burst, remaining, full, _ = taken
        call.headers += [
            (b"ratelimit-policy", b'"default";q=%d;w=%d' % (burst, limit.window_seconds)),
            (b"ratelimit", b'"default";r=%d;t=%d' % (remaining, full)),
            (b"ratelimit-limit", b"%d" % burst),
            (b"ratelimit-remaining", b"%d" % remaining),
            (b"ratelimit-reset", b"%d" % full),
        ]
        if not taken.is_allowed:
            raise _limit(call, taken, f"more than {limit.requests_per_minute} requests a minute")


class Authorization:
    """Compares what the route asks for with what the caller may do."""

    async def admit(self, call: Call) -> None:
        """Let the call through.

        Raises:
            ServiceError: The scope is too low, or the key in the path is not the caller's to touch.
        """
        route, principal = call.route, call.principal
        if route.access is Access.PUBLIC:
            return
        needed = _SCOPES[route.access]
        is_allowed = principal.scope >= needed
        if needed is Scope.ADMIN:
            audit(
                "admin_request",
                allowed=is_allowed,
                operation=route.name,
                target=call.rest[:64],
                key=principal.id,
                address=read_address(call.scope),
            )
        if not is_allowed:
            raise _forbid(principal, needed)
        if route.path.endswith("{key}"):
            principal.check(call.rest)


def _read_token(scope: AsgiScope) -> bytes:
    """Return what is given as an API key, empty if nothing is.

    Raises:
        OperationError: Two are.
    """
    found = None
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            given = token.strip() if scheme.lower() == b"bearer" else b""
        elif name == b"x-api-key":
            given = value
        else:
            continue
        if found is not None:
            raise OperationError("the API key is given twice", "send one header with it", "invalid_header")
        found = given
    return found or b""


def _forbid(principal: Principal, needed: Scope) -> ServiceError:
    has, needs = principal.scope.name.lower(), needed.name.lower()
    return ServiceError(
        "forbidden", f"the API key is of scope {has}, this needs {needs}", f"use a key of scope {needs}"
    )


def _limit(call: Call, taken: Taken, message: str) -> ServiceError:
    if math.isinf(taken.retry_seconds):
        return ServiceError(
            "rate_limited", f"the request costs more than the {taken.burst_limit} allowed at once", "send less in one"
        )
    seconds = max(1, math.ceil(taken.retry_seconds))
    call.headers.append((b"retry-after", b"%d" % seconds))
    return ServiceError("rate_limited", message, f"retry after {seconds} s")
