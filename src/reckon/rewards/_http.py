"""A reward function behind a URL."""

from __future__ import annotations

import json
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reckon.errors import InputError, MissingError, RunError
from reckon.rewards._columns import columns, rewards_from
from reckon.types import Batch, Stream

if TYPE_CHECKING:
    import httpx

TOO_MANY_REQUESTS = 429


@dataclass(frozen=True, kw_only=True)
class Http:
    """Asks a server: POST {"prompts": [...], "completions": [...], <columns>} and back {"rewards": [...]}.

    The columns are those a `Function` may ask for, `completion_ids` left out; null among the rewards = does not apply.
    What may pass by itself (no answer in time, no connection, status 429 or 5xx) is tried again, each time after twice
    as long; any other status ends the run at once. Needs httpx (`pip install 'reckon-rl[http]'`).
    """

    url: str
    timeout: float = 30.0  # seconds to wait for a connection, and for the server's next byte
    retries: int = 3  # tries after the first
    backoff: float = 0.5  # seconds before the first of them, then twice as long each time

    def __post_init__(self) -> None:
        if not _is_url(self.url):
            raise InputError(f"http: `url` is {self.url!r}; it must be http:// or https:// and a host.")
        if not self.timeout > 0:
            raise InputError(f"http: `timeout` is {self.timeout} seconds; it must be above 0.")
        if self.retries < 0 or self.backoff < 0:
            raise InputError(f"http: `retries` ({self.retries}) and `backoff` ({self.backoff}) must be 0 or more.")

    def score(self, batch: Batch) -> Mapping[str, Stream]:
        """One stream [N].

        Raises:
            RunError: the server was not reached, refused, or answered something else.
            MissingError: httpx is not installed.
        """
        table = {name: cells for name, cells in columns(batch).items() if name != "completion_ids"}
        answer = self._post(json.dumps(table).encode())
        if not isinstance(answer, dict) or "rewards" not in answer:
            raise RunError(f'{self.url} answered without `rewards`. It must answer with JSON {{"rewards": [...]}}.')
        return {"http": Stream(values=rewards_from(f"the reward at {self.url}", answer["rewards"], batch))}

    def _post(self, body: bytes) -> object:
        try:
            import httpx
        except ImportError as error:
            raise MissingError(
                "httpx is not installed, and the reward `http` needs it: pip install 'reckon-rl[http]'"
            ) from error
        problem = ""
        with httpx.Client(timeout=self.timeout) as client:
            for attempt in range(self.retries + 1):
                if attempt:
                    time.sleep(self.backoff * 2 ** (attempt - 1))
                try:
                    response = client.post(self.url, content=body, headers={"content-type": "application/json"})
                except httpx.RequestError as error:
                    problem = f"gave {type(error).__name__} ({error})" if str(error) else f"gave {type(error).__name__}"
                    continue
                if response.status_code == TOO_MANY_REQUESTS or response.is_server_error:
                    problem = f"answered with status {response.status_code}"
                    continue
                return self._read(response)
        raise RunError(
            f"{self.url} {problem}, {self.retries + 1} time(s) running. Is the server up, and the URL right?"
        )

    def _read(self, response: httpx.Response) -> object:
        if not response.is_success:
            start = " ".join(response.text[:200].split())
            raise RunError(f"{self.url} refused with status {response.status_code}: {start!r}.")
        try:
            return response.json()
        except ValueError as error:
            raise RunError(f"{self.url} answered with something that is not JSON: {error}.") from error


def _is_url(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)
