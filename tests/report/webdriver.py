"""A headless Chromium, driven over the W3C WebDriver protocol with nothing but the standard library."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the driver is on this machine
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key under which the protocol names an element


def find() -> tuple[str, str] | None:
    """The browser and its driver, or None where they are not installed."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


class Browser:
    """`with Browser(width, height, dark=False) as browser: browser.open(path)`."""

    def __init__(self, width: int = 1200, height: int = 900, *, dark: bool = False, mobile: bool = False) -> None:
        self.size, self.dark, self.mobile = (width, height), dark, mobile

    def __enter__(self) -> Browser:
        found = find()
        assert found is not None
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._driver = subprocess.Popen(
            [found[1], "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            self._begin(found[0])
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _begin(self, browser: str) -> None:
        assert self._driver.stdout is not None
        for line in self._driver.stdout:
            if port := re.search(r"successfully on port (\d+)", line):
                self._url = f"http://127.0.0.1:{port[1]}"
                break
        options: dict[str, Any] = {
            "binary": browser,
            "args": [*FLAGS, f"--user-data-dir={self._profile.name}", "--window-size={},{}".format(*self.size)],
        }
        if self.mobile:
            width, height = self.size
            options["mobileEmulation"] = {"deviceMetrics": {"width": width, "height": height, "pixelRatio": 2}}
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._url += f"/session/{session['sessionId']}"
        self.devtools(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if self.dark else "light"}],
        )

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if "/session/" in getattr(self, "_url", ""):
                self._call("DELETE", "", None)
        finally:
            self._driver.terminate()
            self._driver.wait(10)
            self._profile.cleanup()

    def _call(self, method: str, path: str, body: object) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._url + path, data, {"Content-Type": "application/json"} if data else {}, method=method
        )
        try:
            with _DIRECT.open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from None

    def devtools(self, command: str, **parameters: object) -> Any:
        """A command of Chrome's own protocol."""
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def open(self, path: Path) -> None:
        """Loads a file and waits until it is there."""
        self._call("POST", "/url", {"url": path.resolve().as_uri()})

    def run(self, script: str, *arguments: object) -> Any:
        """What a function body in JavaScript returns."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, selector: str) -> str:
        """The first element that fits."""
        return str(self._call("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT])

    def click(self, selector: str) -> None:
        """Clicks as a person does: it fails if something lies over the element."""
        self._call("POST", f"/element/{self.find(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        """Types into a field."""
        self._call("POST", f"/element/{self.find(selector)}/value", {"text": text})

    def press(self, *keys: str) -> None:
        """Presses keys one after another, wherever the focus is."""
        strokes = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": strokes}]})

    def hover(self, selector: str) -> None:
        """Moves the mouse to the middle of an element."""
        move = {"type": "pointerMove", "duration": 0, "x": 0, "y": 0, "origin": {ELEMENT: self.find(selector)}}
        self._call("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": [move]}]})

    def text(self, selector: str) -> str:
        """The text of an element as it is shown."""
        return str(self._call("GET", f"/element/{self.find(selector)}/text", None))

    def log(self, kind: str = "browser") -> list[str]:
        """What the browser has to say: errors, refused scripts; with kind="performance" every request too."""
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": kind})]

    def screenshot(self, path: Path, *, full: bool = False) -> None:
        """The window as PNG, or the whole page."""
        data = self.devtools("Page.captureScreenshot", captureBeyondViewport=full)["data"]
        path.write_bytes(base64.b64decode(data))
