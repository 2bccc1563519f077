"""The site's REST API, as its commands ask it."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from webhooks import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

API = "/api/v1/"
TIMEOUT = 30.0  # seconds
# The site is there, but cannot answer now: the same question may be asked again.
LATER = frozenset({429, 500, 502, 503, 504})
USER_AGENT = f"signalpost-cli/{__version__}"
TEST = "test"
LEFT = object()  # there is more to delete
# Of one answer, whatever the site sends: bytes, and seconds.
MOST, DEADLINE = 64 * 1024 * 1024, 120.0
LONGEST_WAIT = 3_600.0  # seconds, whatever it asks for
NO_API = "no_api"
# Of what is read already.
OF_THE_WAY = frozenset({"content-encoding", "content-length", "transfer-encoding"})


class RefusedError(Exception):
    """The site's answer is no. `text` says why, in its own words."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status, self.code = status, code


class AwayError(Exception):
    """The site cannot be reached, or not now; `seconds` to wait, if it says."""

    def __init__(self, text: str, *, seconds: float = 0.0) -> None:
        super().__init__(text)
        self.seconds = seconds


class Part(dict[str, Any]):
    """An object of an answer. Where the site leaves out what our API has, it is another site."""

    def __missing__(self, name: str) -> Any:
        raise RefusedError(0, NO_API, f"The site answers, but not as Signalpost's API does: without {name!r}.")


@dataclass
class Backoff:
    """Longer and longer pauses, each a little off: many may wait for one site."""

    first: float = 0.5  # seconds
    longest: float = 30.0
    times: int = 0

    def pause(self, *, at_least: float = 0.0) -> float:
        seconds = min(self.first * 2.0 ** min(self.times, 16), self.longest)
        self.times += 1
        return max(at_least, seconds * random.uniform(0.8, 1.2))  # noqa: S311 - no secret

    def wait(self, *, at_least: float = 0.0) -> None:
        time.sleep(self.pause(at_least=at_least))


def is_address(text: str) -> bool:
    """Whether a request can be made to it."""
    try:
        address = httpx.URL(text)
        return address.scheme in {"http", "https"} and bool(address.host) and address.port != 0
    except (httpx.InvalidURL, ValueError):  # the latter of a name that is none
        return False


class Site:
    def __init__(self, url: str, key: str, *, tenant: str | None = None) -> None:
        address = httpx.URL(url)
        path = address.path.rstrip("/").removesuffix(API.rstrip("/")) + API
        self.url = str(address.copy_with(path=path, query=None, fragment=None))
        self.tenant = {"tenant": tenant} if tenant else {}
        self.mode = ""  # of the key, once the site has answered
        headers = {"authorization": f"Bearer {key}", "user-agent": USER_AGENT, "accept": "application/json"}
        self.client = httpx.Client(base_url=self.url, headers=headers, timeout=TIMEOUT)

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *args: object) -> None:
        self.client.close()

    def get(self, path: str, **query: Any) -> Any:
        return self._ask("GET", path, query=query)

    def post(self, path: str, body: Any = None, **query: Any) -> Any:
        return self._ask("POST", path, body={} if body is None else body, query=query)

    def patch(self, path: str, body: Any) -> Any:
        return self._ask("PATCH", path, body=body)

    def delete(self, path: str) -> None:
        """Until all of it is gone: the site deletes so much at a time."""
        while self._ask("DELETE", path) is LEFT:
            pass

    def all(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Page by page, as it is read. Only the query of `next` is taken: the
        key goes to no other host than the one that it was given for."""
        while True:
            page = self.get(path, **query)
            rows, after = page["data"], page["next"]
            if not isinstance(rows, list) or not all(isinstance(row, Part) for row in rows):
                raise self._is_another(httpx.codes.OK)
            yield from rows
            if not isinstance(after, str):
                return
            query = dict(httpx.URL(after).params)

    def patiently(self, ask: Callable[[], Any], *, told: Callable[[str], None], back: Callable[[], None]) -> Any:
        """Ask until there is an answer; `told` of the first failure, and `back` after it."""
        backoff = Backoff()
        while True:
            try:
                answer = ask()
            except AwayError as error:
                if not backoff.times:
                    told(str(error))
                backoff.wait(at_least=error.seconds)
            else:
                if backoff.times:
                    back()
                return answer

    def _ask(self, method: str, path: str, *, body: Any = None, query: dict[str, Any] | None = None) -> Any:
        asked = {name: value for name, value in {**(query or {}), **self.tenant}.items() if value is not None}
        try:
            response = self._whole(method, path, params=asked, json=body)
        except httpx.TimeoutException as error:
            raise AwayError(f"{self.url} does not answer.") from error
        except httpx.RequestError as error:
            raise AwayError(f"{self.url} cannot be reached: {str(error) or type(error).__name__}.") from error
        self.mode = response.headers.get("signalpost-mode", self.mode)
        if response.status_code == httpx.codes.ACCEPTED and method == "DELETE":
            time.sleep(_retry_after(response))
            return LEFT
        if response.is_success:
            return self._read(response) if response.content or method != "DELETE" else None
        if response.is_redirect:
            where = response.headers.get("location", "elsewhere")
            raise RefusedError(response.status_code, "redirect", f"The site sends us to {where}: give its address.")
        raise self._error(response)

    def _whole(self, method: str, path: str, **options: Any) -> httpx.Response:
        end, chunks, size = time.monotonic() + DEADLINE, [], 0
        with self.client.stream(method, path, **options) as response:
            for chunk in response.iter_bytes():
                chunks.append(chunk)
                size += len(chunk)
                if size > MOST or time.monotonic() > end:
                    raise RefusedError(response.status_code, NO_API, f"{self.url} answers without an end.")
        headers = [each for each in response.headers.multi_items() if each[0].lower() not in OF_THE_WAY]
        return httpx.Response(response.status_code, headers=headers, content=b"".join(chunks))

    def _read(self, response: httpx.Response) -> Any:
        try:
            found = response.json(object_hook=Part)
        except (ValueError, RecursionError) as error:
            raise self._is_another(response.status_code) from error
        if not isinstance(found, Part):
            raise self._is_another(response.status_code)
        return found

    def _is_another(self, status: int) -> RefusedError:
        return RefusedError(status, NO_API, f"{self.url} answers, but not as Signalpost's API does.")

    def _error(self, response: httpx.Response) -> RefusedError | AwayError:
        problem = _problem(response)
        text = _in_words(problem) or f"{response.status_code} {response.reason_phrase}"
        if response.status_code in LATER:
            return AwayError(f"The site cannot answer now: {text}", seconds=_retry_after(response))
        if not problem and response.status_code == httpx.codes.NOT_FOUND:
            text = f"There is no API of Signalpost at {self.url}"
        return RefusedError(response.status_code, str(problem.get("code", "")), text)


def _problem(response: httpx.Response) -> dict[str, Any]:
    """RFC 9457; empty where it is none."""
    try:
        problem = response.json()
    except (ValueError, RecursionError):
        return {}
    return problem if isinstance(problem, dict) else {}


def _in_words(problem: dict[str, Any]) -> str:
    """`Title: detail`, and a line for each value that is wrong."""
    parts = [str(problem[name]) for name in ("title", "detail") if problem.get(name)]
    errors = problem.get("errors")
    faults = [each for each in errors if isinstance(each, dict)] if isinstance(errors, list) else []
    wrong = [f"{each.get('field') or 'all of it'}: {each.get('detail')}" for each in faults]
    return " ".join([". ".join(part.rstrip(".") for part in parts) + ("." if parts else ""), *wrong]).strip()


def _retry_after(response: httpx.Response) -> float:
    text = response.headers.get("retry-after", "")
    return min(float(text), LONGEST_WAIT) if text.isascii() and text.isdigit() else 0.0
