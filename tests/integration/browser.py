"""A real Chromium for tests of pages, driven by its own protocol over two pipes.

Nothing has to be installed but the browser, and no port is opened.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")

PATIENCE_S = 30.0
"""For one answer of the browser, or for what a page is to become."""

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-lcd-text",
    "--font-render-hinting=none",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--no-first-run",
    "--remote-debugging-pipe",
)

FIXED_CLOCK = """
(() => {
  const Real = Date, now = %d;
  globalThis.Date = class extends Real {
    constructor(...given) { if (given.length) super(...given); else super(now); }
    static now() { return now; }
  };
})();
"""


def find() -> str | None:
    """The browser of this machine."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One process; pages share nothing but it.

    Args:
        profile: an empty folder.
    """

    def __init__(self, command: str, profile: Path) -> None:
        self._to_read, ours_out = os.pipe()
        ours_in, self._to_write = os.pipe()
        self._write, self._read = ours_out, ours_in
        # The browser reads at descriptor 3 and writes at 4.
        move = 'exec "$@" 3<&"$IN" 4>&"$OUT"'
        theirs = (self._to_read, self._to_write)
        environment = {"IN": str(theirs[0]), "OUT": str(theirs[1]), "TZ": "UTC", "LANG": "C.UTF-8"}
        self._process = subprocess.Popen(
            ["bash", "-c", move, "-", command, *OPTIONS, f"--user-data-dir={profile}"],
            pass_fds=theirs,
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in theirs:
            os.close(end)
        self._number = 0
        self._buffer = b""
        self._pages: dict[str, Page] = {}

    def page(self, size: tuple[int, int], *, dark: bool = False, now: float | None = None) -> Page:
        """A new tab.

        Args:
            size: width and height of what is seen, CSS pixels; below 700 wide it is a phone.
            dark: whether the person prefers it dark.
            now: seconds since the epoch that its clock stands at; None: the real time.
        """
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        attach = {"targetId": target, "flatten": True}
        session = self.call("Target.attachToTarget", attach)["sessionId"]
        page = self._pages[session] = Page(self, session, target)
        page.prepare(size, dark, now)
        return page

    def call(self, method: str, given: dict[str, Any], session: str | None = None) -> Any:
        """Ask the browser, and take what it tells meanwhile."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": given}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE_S
        while True:
            answer = self._next(deadline)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            page = self._pages.get(answer.get("sessionId", ""))
            if page is not None and "method" in answer:
                page.note(answer["method"], answer["params"])

    def forget(self, session: str) -> None:
        """A page is closed."""
        self._pages.pop(session, None)

    def close(self) -> None:
        """End it."""
        for end in (self._write, self._read):
            os.close(end)
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _next(self, deadline: float) -> Any:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError("the browser does not answer")
            piece = os.read(self._read, 1 << 20)
            if not piece:
                raise RuntimeError("the browser has ended")
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


class Page:
    """A tab.

    Attributes:
        asked: addresses of everything it has asked for.
        problems: errors and warnings of its console, and errors nobody caught.
    """

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser = browser
        self._session = session
        self._target = target
        self._width = 0
        self.asked: list[str] = []
        self.problems: list[str] = []

    def prepare(self, size: tuple[int, int], dark: bool, now: float | None) -> None:
        """Before anything is opened."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.resize(*size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.call("Emulation.setEmulatedMedia", features=[scheme, still])
        if now is not None:
            clock = FIXED_CLOCK % round(now * 1000)
            self.call("Page.addScriptToEvaluateOnNewDocument", source=clock)

    def call(self, method: str, **given: Any) -> Any:
        """See Chromium's protocol."""
        return self._browser.call(method, given, self._session)

    def note(self, method: str, told: dict[str, Any]) -> None:
        """Something that the page did."""
        if method == "Network.requestWillBeSent":
            self.asked.append(told["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(told["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning"):
            self.problems.append(json.dumps(told["args"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.problems.append(json.dumps(told["entry"]))

    def resize(self, width: int, height: int) -> None:
        """As if the person had another screen."""
        self._width = width
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 700,
        )

    def open(self, address: str) -> None:
        """Go there."""
        self.call("Page.navigate", url=address)

    def ask(self, script: str) -> Any:
        """The value of a script, waited for if it is a promise."""
        told = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in told:
            raise RuntimeError(json.dumps(told["exceptionDetails"]))
        return told["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait until a script is true.

        Raises:
            TimeoutError: it did not become so.
        """
        deadline = time.monotonic() + PATIENCE_S
        # A page that is being opened may end a script halfway: it is asked anew.
        frame = f"new Promise((d) => setTimeout(() => d(Boolean({condition})), 50))"
        while True:
            try:
                if self.ask(frame):
                    return
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
            if time.monotonic() > deadline:
                raise TimeoutError(f"never true: {condition}")

    def press(self, key: str, code: int, text: str = "") -> None:
        """A key of the keyboard, e.g. "Tab", 9."""
        told = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **told)
        self.call("Input.dispatchKeyEvent", type="keyUp", **told)

    def picture(self) -> bytes:
        """What is seen, as PNG."""
        told = self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(told["data"])

    def whole(self) -> bytes:
        """The whole page as PNG, as long as it is."""
        # Live pictures come only for what is seen.
        self.resize(self._width, self.ask("document.documentElement.scrollHeight"))
        return self.picture()

    def close(self) -> None:
        """Close the tab."""
        self._browser.call("Target.closeTarget", {"targetId": self._target})
        self._browser.forget(self._session)
