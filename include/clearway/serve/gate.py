"""What stands before the app where settings ask for it: tokens, a limit per caller, a port for admin calls, CORS.

With none of these set there is no gate, and a request pays nothing for it.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from clearway.serve.http import App, Headers, Receive, Scope, Send, send_bytes, send_refusal, with_headers
from clearway.serve.refusal import Refusal
from clearway.serve.tokens import Verifier

MAX_SUBJECTS = 10_000  # callers whose budget is remembered; one forgotten has a full budget again
CORS_MAX_AGE_S = 600
_PREFLIGHT = (
    (b"access-control-allow-methods", b"GET, POST"),
    (b"access-control-allow-headers", b"authorization, content-type, traceparent, x-clearway-sticky-key, x-request-id"),
    (b"access-control-max-age", str(CORS_MAX_AGE_S).encode()),
)
# Whoever asks whether the server lives has no token and no budget; metrics and documentation are for the same network.
_OPEN = frozenset(
    ("/ping", "/healthz", "/metrics", "/docs", "/openapi.json", "/v2", "/v2/health/live", "/v2/health/ready")
)


class Budgets:
    """One token bucket per caller: `burst` requests at once, refilled at `rate_per_s`."""

    def __init__(self, *, rate_per_s: float, burst: int, now_s: Callable[[], float] = monotonic) -> None:
        self._rate_per_s, self._burst, self._now_s = rate_per_s, burst, now_s
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, subject: str) -> None:
        """One request. Raises: Refusal 429."""
        now = self._now_s()
        left, at_s = self._left.get(subject, (float(self._burst), now))
        left = min(float(self._burst), left + (now - at_s) * self._rate_per_s)
        self._left[subject] = (left - 1 if left >= 1 else left, now)
        self._left.move_to_end(subject)
        if len(self._left) > MAX_SUBJECTS:
            self._left.popitem(last=False)
        if left < 1:
            text = f"more than {self._rate_per_s:g} requests a second after {self._burst} at once; retry later"
            raise Refusal(429, "too_many_requests", text)

    @property
    def wait_s(self) -> int:
        """Whole seconds after which a caller without budget has some again."""
        return max(1, round(1 / self._rate_per_s + 0.5))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the gate asks for; None, 0 or empty where it does not.

    Args:
        callers, admins: verify tokens; `admin_token` is then what the app itself wants to see on admin calls.
        admin_port: the only port on which admin calls exist, and on which nothing else but health does.
        origins: web pages that may call, e.g. `https://example.org`.
    """

    callers: Verifier | None = None
    admins: Verifier | None = None
    admin_token: str = ""
    admin_port: int = 0
    budgets: Budgets | None = None
    origins: frozenset[bytes] = frozenset()


class Gate:
    """ASGI app around the model server."""

    def __init__(self, app: App, rules: Rules) -> None:
        self._app, self._rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        origin = headers.get(b"origin", b"")
        if origin in self._rules.origins and not scope["path"].startswith("/admin/"):
            send = with_headers(send, [(b"access-control-allow-origin", origin), (b"vary", b"origin")])
            if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
                await send_bytes(send, 204, b"", list(_PREFLIGHT))
                return
        try:
            scope = self._checked(scope, headers)
        except Refusal as refusal:
            await send_refusal(send, refusal, self._hints(refusal))
            return
        await self._app(scope, receive, send)

    def _checked(self, scope: Scope, headers: dict[bytes, bytes]) -> Scope:
        rules, path = self._rules, scope["path"]
        if path in _OPEN:
            return scope
        is_admin = path.startswith("/admin/")
        if rules.admin_port and ((scope.get("server") or ("", 0))[1] == rules.admin_port) is not is_admin:
            raise Refusal(404, "not_found", "no such path on this port; see /docs")
        subject = (scope.get("client") or ("",))[0]
        if is_admin and rules.admins is not None:
            rules.admins.verify(headers.get(b"authorization", b""))
            kept = [pair for pair in scope["headers"] if pair[0] != b"authorization"]
            own = (b"authorization", b"Bearer " + rules.admin_token.encode("ascii"))
            return {**scope, "headers": [*kept, own]}
        if not is_admin and rules.callers is not None:
            subject = rules.callers.verify(headers.get(b"authorization", b"")).subject
        if not is_admin and rules.budgets is not None:
            rules.budgets.take(subject)
        return scope

    def _hints(self, refusal: Refusal) -> Headers:
        budgets = self._rules.budgets
        if refusal.code == "too_many_requests" and budgets is not None:
            return [(b"retry-after", str(budgets.wait_s).encode())]
        return {401: [(b"www-authenticate", b"Bearer")], 503: [(b"retry-after", b"60")]}.get(refusal.status, [])
