"""Against a real server on this machine."""

import contextlib
import json
import math
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from reckon.errors import InputError, RunError
from reckon.rewards import Http
from reckon.types import Problem

pytest.importorskip("httpx")


@pytest.fixture
def server(monkeypatch):
    """Answers with what stands in `replies`, one a request: (status, body), or seconds to sleep first as a third."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            self.server.requests.append((self.path, self.headers["content-type"], json.loads(body)))
            status, reply, *wait = self.server.replies.pop(0)
            time.sleep(sum(wait))
            self.send_response(status)
            self.end_headers()
            with contextlib.suppress(BrokenPipeError):  # it did not wait for the answer
                self.wfile.write(reply.encode())

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.replies = [], []
    server.url = f"http://127.0.0.1:{server.server_port}/judge"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def batch(make_batch):
    chat = ({"role": "user", "content": "Hi"},)
    problems = [Problem(id="a", prompt="2 + 2?", answer="4", columns={"level": 3}), Problem(id="b", prompt=chat)]
    return make_batch(["4", "Hello"], group=[0, 1], problems=problems)


def test_it_posts_columns_and_reads_rewards(server, batch):
    server.replies.append((200, '{"rewards": [0.5, null]}'))
    ((name, stream),) = Http(url=server.url).score(batch).items()
    assert name == "http"
    assert stream.values[0] == 0.5
    assert math.isnan(stream.values[1])
    assert server.requests == [
        (
            "/judge",
            "application/json",
            {
                "prompts": ["2 + 2?", [{"role": "user", "content": "Hi"}]],
                "completions": ["4", [{"role": "assistant", "content": "Hello"}]],
                "answer": ["4", None],
                "domain": ["default", "default"],
                "id": ["a", "b"],
                "level": [3, None],
            },
        )
    ]


def test_what_may_pass_is_tried_again(server, batch):
    good = '{"rewards": [1, 2]}'
    server.replies += [(503, ""), (429, ""), (200, good, 2.0), (200, good)]
    reward = Http(url=server.url, timeout=0.5, retries=3, backoff=0.01)
    assert reward.score(batch)["http"].values.tolist() == [1, 2]
    assert len(server.requests) == 4


def test_waiting_doubles(server, batch):
    server.replies += [(500, "")] * 3
    began = time.perf_counter()
    with pytest.raises(RunError, match=rf"{server.url} answered with status 500, 3 time\(s\) running"):
        Http(url=server.url, retries=2, backoff=0.1).score(batch)
    assert time.perf_counter() - began >= 0.3  # 0.1 + 0.2
    assert len(server.requests) == 3


def test_a_refusal_is_final(server, batch):
    server.replies += [(422, "no such\nfield")]
    with pytest.raises(RunError, match=rf"{server.url} refused with status 422: 'no such field'"):
        Http(url=server.url).score(batch)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ("<html>", "something that is not JSON"),
        ("[1, 2]", "answered without `rewards`"),
        ('{"scores": [1, 2]}', "answered without `rewards`"),
        ('{"rewards": [1]}', r"the reward at .* returned 1 values for 2 completions"),
        ('{"rewards": [1, "a"]}', r"returned 'a' \(str\) for row 1 \(problem 'b'\)"),
        ('{"rewards": 1}', r"returned 1 \(int\)"),
    ],
)
def test_other_answers_are_refused(server, batch, reply, message):
    server.replies.append((200, reply))
    with pytest.raises(RunError, match=message):
        Http(url=server.url).score(batch)


def test_nobody_there(server, batch):
    url = server.url
    server.server_close()  # nothing listens any more
    with pytest.raises(RunError, match=rf"{url} gave ConnectError .*2 time\(s\) running"):
        Http(url=url, retries=1, backoff=0).score(batch)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "localhost:8000"}, "must be http:// or https://"),
        ({"url": "http://"}, "and a host"),
        ({"url": "http://[x"}, "and a host"),
        ({"url": "http://a", "timeout": 0}, "`timeout` is 0"),
        ({"url": "http://a", "retries": -1}, r"`retries` \(-1\)"),
    ],
)
def test_http_refuses(settings, message):
    with pytest.raises(InputError, match=message):
        Http(**settings)
