"""A headless Chromium, driven over its own DevTools protocol; no package but the lock's is needed."""

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

import http_kit

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless=new", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--disable-extensions", "--hide-scrollbars", "--remote-debugging-port=0",
    "--remote-allow-origins=*", "--window-size=1100,900",
)  # fmt: skip
TIMEOUT_S = 120.0


def find_chromium() -> str:
    """The browser's path; skips the test that asks where there is none."""
    named = os.environ.get("CLEARWAY_CHROMIUM", "")
    found = named or next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        pytest.skip("no Chromium here; install one (Debian: apt-get install chromium) or name it: CLEARWAY_CHROMIUM=…")
    return found


class Page:
    """One tab."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.do("Page.enable")

    def do(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its answer; events in between are not waited for."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv(timeout=TIMEOUT_S))
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer)
                return dict(answer["result"])

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.do("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, (expression, answer["exceptionDetails"])
        return answer["result"].get("value")

    def text(self) -> str:
        """All that can be read; "" between two pages."""
        return str(self.ask("document.body ? document.body.innerText : ''"))

    def open(self, url: str) -> None:
        """Go there and wait until it is drawn."""
        answer = self.do("Page.navigate", url=url)
        assert not answer.get("errorText"), (url, answer)
        self.until(lambda: self.ask("document.readyState") == "complete" and self.ask("location.href") != "about:blank")

    def click(self, selector: str) -> None:
        """Press and release the mouse in the middle of an element, as a hand does."""
        script = f"""(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView();
            const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()"""
        x, y = self.ask(script)
        for kind in ("mousePressed", "mouseReleased"):
            self.do("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text: str) -> None:
        """Into whatever has the focus."""
        self.do("Input.insertText", text=text)

    def until(self, condition: Callable[[], Any]) -> None:
        """Wait for something to become true."""
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, f"waited {TIMEOUT_S} s in vain"
            time.sleep(0.05)

    def picture(self) -> bytes:
        """What is seen, as PNG."""
        return base64.b64decode(self.do("Page.captureScreenshot", format="png")["data"])


@contextlib.contextmanager
def open_browser(*, has_javascript: bool = True) -> Iterator[Page]:
    """A browser with one tab and a profile of its own, for the length of a block."""
    profile = Path(tempfile.mkdtemp(prefix="clearway-chromium-"))
    # Chromium's own sandbox refuses to start as root, which is what a container's tests are.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    command = [find_chromium(), *FLAGS, *sandbox, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with connect(_tab_of(profile, process), max_size=None, compression=None) as socket:
            page = Page(socket)
            page.do("Emulation.setScriptExecutionDisabled", value=not has_javascript)
            yield page
    finally:
        process.terminate()
        process.wait(TIMEOUT_S)
        shutil.rmtree(profile, ignore_errors=True)


def _tab_of(profile: Path, process: "subprocess.Popen[bytes]") -> str:
    """Where the first tab listens."""
    file, deadline = profile / "DevToolsActivePort", time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the browser ended with {process.returncode}"
        with contextlib.suppress(OSError, httpx.HTTPError, StopIteration, IndexError):
            port = file.read_text(encoding="utf-8").split()[0]
            tabs = http_kit.get(f"http://127.0.0.1:{port}/json/list").json()
            return str(next(tab for tab in tabs if tab["type"] == "page")["webSocketDebuggerUrl"])
        time.sleep(0.05)
    raise AssertionError(f"the browser opened no tab in {TIMEOUT_S} s")
