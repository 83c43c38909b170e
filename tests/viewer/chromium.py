"""A headless Chromium, spoken to in its DevTools protocol."""

import base64
import io
import itertools
import json
import shutil
import subprocess
import time
import urllib.request

import numpy as np
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--enable-unsafe-swiftshader", "--remote-debugging-port=0"),
    "--proxy-server=127.0.0.1:9",  # nothing but this machine is reached
    "--proxy-bypass-list=127.0.0.1",
)


def found():
    """The program; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """Chromium with an empty profile; a context manager."""

    def __init__(self, profile, width=800, height=600):
        size = f"--window-size={width},{height}"
        self.process = subprocess.Popen(
            [found(), *FLAGS, size, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        file = profile / "DevToolsActivePort"
        until(lambda: file.is_file() and file.read_text().count("\n"))
        self.port = int(file.read_text().split()[0])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(10)

    def open(self, address):
        """A new tab."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/json/new?{address}", method="PUT"
        )
        with urllib.request.urlopen(request) as answer:
            return Tab(json.load(answer)["webSocketDebuggerUrl"])


class Tab:
    """A tab, by the address of its debugger."""

    def __init__(self, address):
        from websockets.sync.client import connect  # comes with viser

        self.socket = connect(address, max_size=1 << 27)
        self.numbers = itertools.count()

    def ask(self, method, **parameters):
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv(timeout=60))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def run(self, script):
        """The value of an expression of JavaScript."""
        found = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def text(self):
        """All that can be read."""
        return self.run("document.body ? document.body.innerText : ''")

    def screenshot(self):
        """(H, W, 3) uint8."""
        data = base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def press(self, key, code, times=1):
        """Presses a key on whatever has the focus."""
        for _ in range(times):
            for kind in ("keyDown", "keyUp"):
                self.ask(
                    "Input.dispatchKeyEvent",
                    type=kind,
                    key=key,
                    code=key,
                    windowsVirtualKeyCode=code,
                )

    def drag(self, start, end, steps=8):
        """Moves the mouse with its button down; points are pixels of the window."""
        at = dict(zip("xy", start, strict=True))
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", **at)
        self.ask("Input.dispatchMouseEvent", type="mousePressed", button="left", clickCount=1, **at)
        for step in range(1, steps + 1):
            x, y = (a + (b - a) * step / steps for a, b in zip(start, end, strict=True))
            self.ask("Input.dispatchMouseEvent", type="mouseMoved", button="left", x=x, y=y)
        self.ask(
            "Input.dispatchMouseEvent", type="mouseReleased", button="left", clickCount=1, x=x, y=y
        )

    def click(self, words):
        """Clicks the button that says so."""
        script = (
            "[...document.querySelectorAll('button')].find("
            f"b => b.innerText.trim() === {json.dumps(words)}).click()"
        )
        self.run(script)


def until(holds, seconds=60):
    """Waits; the value that is not empty."""
    end = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return value
