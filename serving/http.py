"""Requests to a serving engine over HTTP: every way in which one can fail ends as one error."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from contracts.errors import EngineUnavailable, ModelMissing
from serving.engine import EngineBusy, ModelFailed

if TYPE_CHECKING:
    import requests

NO_PROXIES: dict[str, Any] = {"http": None, "https": None, "all": None}
"""For requests: an engine is on this host or beside it, where a proxy of the environment cannot
reach it."""
SHORT_S = 30
"""Limit of calls that only look something up."""
ALIVE_S = 5
"""Limit of a call that asks whether a server is there: what it was asked before waits for it."""
_CONNECT_S = 10
_LONGEST_BYTES = 4 << 20
"""Of an answer that is read whole: hundreds of times what a model says, and bounded all the same,
because the other side may be anything."""
_CHUNK = 1 << 16
_BUSY = frozenset({429, 502, 503})
"""Statuses that speak of the server, whatever it was asked."""
_FAILED = frozenset({400, 500})
"""Ollama's where a model cannot do what is asked, where it cannot load one, or its runner ends."""
_LATER = frozenset({408, 425, 429})
"""Those of the 4xx that do not blame the request, but its moment (RFC 9110, 8470 and 6585)."""

ITS_LOG = (
    "It answers, so it runs: its own log says more (`journalctl -u ollama -e`, or the log of its "
    "container). Mend what that names, and run again."
)
"""What to do about a server that has refused."""


class Connection:
    """Speaks to one server. `server` is what people call it, `todo` what helps if it is down."""

    def __init__(self, server: str, address: str, *, todo: str = "", token: str = "") -> None:
        self.address = address
        self._server = f"{server} at {address}"
        self._kind = server
        self._todo = todo
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def json(
        self, method: str, path: str, timeout_s: float, *, body: Any = None, model: str = ""
    ) -> dict[str, Any]:
        """Return the JSON object of an answer that comes as one, within `timeout_s` in all.

        Raises `ModelMissing` for a 404 where `model` is named, else `EngineUnavailable`, which is
        `EngineBusy` where the server says that it is its own trouble, and `ModelFailed` where it
        is there and fails at what it was asked.
        """
        deadline = time.monotonic() + timeout_s
        with (
            self.request(method, path, timeout_s, body=body, model=model) as response,
            self._named_errors(),
        ):
            found = _parsed(self._read(response, deadline))
        if not isinstance(found, dict) or found.get("error") is not None:
            raise EngineUnavailable(
                f"{self._kind} failed at {path}", why=str(found)[:500], todo=ITS_LOG
            )
        return found

    def lines(self, response: requests.Response) -> Iterator[dict[str, Any]]:
        """Yield the JSON objects of a stream, one a line."""
        with self._named_errors():
            for line in response.iter_lines():
                if line:
                    found = _parsed(line)
                    if not isinstance(found, dict):
                        raise ValueError(f"a line that is no object: {line[:80]!r}")
                    yield found

    def request(
        self,
        method: str,
        path: str,
        timeout_s: float,
        *,
        body: Any = None,
        model: str = "",
        accept: tuple[int, ...] = (),
    ) -> requests.Response:
        """Send a request; raises for a status that is neither a success nor in `accept`.

        The body is still to be read; `timeout_s` is the longest silence of the server.
        """
        import requests

        send: dict[str, Any] = {"json": body} if isinstance(body, dict) else {"data": body}
        with self._named_errors():
            response = requests.request(
                method,
                self.address + path,
                timeout=(_CONNECT_S, timeout_s),
                stream=True,
                proxies=NO_PROXIES,
                headers=self._headers,
                **send,
            )
        if response.ok or response.status_code in accept:
            return response
        with response:
            why = f"{response.status_code}: {self._error_text(response)}"
        if response.status_code == 404 and model:
            raise ModelMissing(f"{self._server} has no model {model}", why=why)
        passing = may_pass(response.status_code)
        refused = f"{self._kind} refused {method} {path}"
        raise _kind(response.status_code)(refused, why=why, todo=ITS_LOG, passing=passing)

    def _read(self, response: requests.Response, deadline: float) -> bytes:
        """Return the whole body; a server that trickles is as late as a silent one."""
        import requests

        content = b""
        while part := response.raw.read1(_CHUNK, decode_content=True):
            content += part
            if len(content) > _LONGEST_BYTES:
                raise ValueError(f"more than {_LONGEST_BYTES} bytes")
            if time.monotonic() > deadline:
                raise requests.Timeout("the answer was still coming")
        return content

    def _error_text(self, response: requests.Response) -> str:
        """Return what an answer says of its failure, shortened; nothing if it cannot be read."""
        try:
            with self._named_errors():
                text = self._read(response, time.monotonic() + SHORT_S)
            found = _parsed(text)
        except EngineUnavailable as error:
            return error.why
        except ValueError:
            return text.decode(errors="replace")[:300]
        return str(found.get("error", found) if isinstance(found, dict) else found)[:300]

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Turn what can go wrong on the way into `EngineUnavailable`."""
        import requests
        import urllib3.exceptions

        try:
            yield
        except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
            raise EngineUnavailable(
                f"{self._server} did not answer in time", why=str(error)
            ) from error
        except requests.ConnectionError as error:
            raise EngineUnavailable(
                f"{self._server} cannot be reached", why=_root_cause(error), todo=self._todo
            ) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            raise EngineUnavailable(
                f"{self._server} answers with something else", why=str(error)
            ) from error


def _kind(status: int) -> type[EngineUnavailable]:
    if status in _BUSY:
        return EngineBusy
    return ModelFailed if status in _FAILED else EngineUnavailable


def may_pass(status: int) -> bool:
    """Return whether the same request may succeed a little later, by the status that refused it.

    The other 4xx blame the request (RFC 9110, 15.5), which would be the same again.
    """
    return status >= 500 or status in _LATER


@contextlib.contextmanager
def expected_shape(server: str) -> Iterator[None]:
    """Turn what comes of an answer in another shape than documented into `EngineUnavailable`."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise EngineUnavailable(f"{server}'s answer has another shape", why=str(error)) from error


def text_in(message: Mapping[str, Any]) -> str:
    """Return the text of a chat message, "" for none; raises TypeError for another content."""
    text = message.get("content")
    if text is not None and not isinstance(text, str):
        raise TypeError(f"the content is a {type(text).__name__}, not a text")
    return text or ""


def waited_s(found: Mapping[str, Any], seconds: float) -> float | None:
    """Return how long a request waited for a slot of llama.cpp's server, by its `timings` (ms)."""
    timings = found.get("timings")
    if not isinstance(timings, Mapping):
        return None
    worked_ms = sum(float(timings.get(name) or 0) for name in ("prompt_ms", "predicted_ms"))
    return min(seconds, max(0.0, seconds - worked_ms / 1000))


def _parsed(text: bytes) -> Any:
    """Return the value of a JSON text; raises ValueError.

    The standard library's parser recurses without a limit of its own, takes NaN, and lets halves
    of surrogate pairs through, which can then be written nowhere.
    """
    return from_json(text, allow_inf_nan=False)


def _root_cause(error: BaseException) -> str:
    """Return the innermost message: what requests and urllib3 wrap around it says nothing new."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error)
