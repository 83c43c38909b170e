"""The page in a real browser, end to end, and what is said where it cannot be."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.viewer import chromium
from tests.viewer.chromium import Browser, until
from utils.errors import UserError
from viewer.page import Page, clamped, escaped, is_own, require_address
from viewer.studio import Studio
from viewer.watch import ENDED

WIDTH = 1000  # of the window, of which the controls take a third
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def served(trained, networks, tmp_path):
    """The studio, the page, and the program's loop in a thread of its own."""
    pytest.importorskip("viser")
    studio = Studio(None, networks)
    page = Page(studio, "127.0.0.1", 18787, tmp_path)
    page.exhibit(trained("--style", "a"))
    over = threading.Event()

    def loop():
        while not over.is_set():
            if studio.turn() is None:
                studio.wait(0.1)

    thread = threading.Thread(target=loop)
    thread.start()
    yield studio, page
    over.set()
    thread.join()
    page.close()


@pytest.fixture
def browser(tmp_path):
    if chromium.found() is None:
        pytest.skip("no Chromium here: the page is not tested in a browser")
    with Browser(tmp_path / "profile", WIDTH, 600) as browser:
        yield browser


def status(tab):
    """The line below the picture's controls."""
    return next((s for s in tab.text().splitlines() if " ms" in s), "")


def still(tab):
    """The left of the page, beside the controls, once all of it stands still: a browser without a
    graphics card draws a second late."""
    until(lambda: "(still)" in status(tab))
    seen = []

    def same():
        seen.append(tab.screenshot())
        time.sleep(0.4)
        return len(seen) > 4 and all(np.array_equal(seen[-1], s) for s in seen[-4:-1])

    until(same)
    return seen[-1][:, : WIDTH - 340].astype(int)


def changed(one, other):
    """Share of the pixels that are clearly others."""
    return float((np.abs(one - other).max(2) > 40).mean())


def test_the_page_comes_up_and_the_strength_changes_the_picture(served, browser):
    studio, page = served
    tab = browser.open(page.address)
    painted = still(tab)
    assert "No picture" not in tab.text()
    assert changed(painted, np.full_like(painted, 255)) > 0.03  # there is a ball
    thumb = "document.querySelectorAll('[role=slider]')[{}]"
    labels = [s for s in tab.text().splitlines() if s in ("strength", "split", "finest")]
    number = labels.index("strength") + tab.run(
        "[...document.querySelectorAll('[role=slider]')].findIndex(e => e.ariaValueNow == 1)"
    )
    tab.run(thumb.format(number) + ".focus()")
    tab.press("Home", 36)
    until(lambda: tab.run(thumb.format(number) + ".ariaValueNow") == "0")
    photographic = still(tab)
    assert changed(photographic, painted) > 0.03
    # another browser is not told, and has its own camera
    other = browser.open(page.address)
    assert changed(still(other), painted) < 0.01
    other.drag((150, 300), (250, 330))
    until(lambda: changed(still(other), painted) > 0.02)
    assert changed(still(tab), photographic) < 0.01
    assert len(studio._windows) == 2


def test_a_failing_render_shows_on_the_page_and_the_page_goes_on(served, browser, monkeypatch):
    studio, page = served
    tab = browser.open(page.address)
    still(tab)
    with monkeypatch.context() as patch:

        def fail(*_):
            raise RuntimeError("of all things")

        patch.setattr(type(studio.exhibit), "subject", fail)
        tab.drag((150, 300), (250, 330))
        until(lambda: "No picture: RuntimeError: of all things" in tab.text())
    tab.drag((250, 330), (200, 300))
    until(lambda: "No picture" not in tab.text())
    still(tab)


def test_who_can_see_it(served, tmp_path):
    _, page = served
    assert "on this machine alone" in page.announcement
    page.host = "0.0.0.0"
    assert "whoever reaches this machine" in page.announcement
    assert str(tmp_path) in page.announcement
    assert page.server.request_share_url() is None  # no way in from the internet


@pytest.mark.parametrize(
    ("origin", "asked", "host", "own"),
    [
        (None, "127.0.0.1:8080", "127.0.0.1", True),  # no page at all
        ("http://127.0.0.1:8080", "127.0.0.1:8080", "127.0.0.1", True),
        ("http://localhost:9", "localhost:9", "127.0.0.1", True),  # through a tunnel
        ("http://[::1]:8080", "[::1]:8080", "::1", True),
        ("https://evil.example", "127.0.0.1:8080", "127.0.0.1", False),
        ("http://evil.example:8080", "evil.example:8080", "127.0.0.1", False),  # a rebound name
        ("null", "127.0.0.1:8080", "127.0.0.1", False),
        ("http://[", "127.0.0.1:8080", "127.0.0.1", False),
        ("http://box:8080", "box:8080", "0.0.0.0", True),
        ("https://evil.example", "box:8080", "0.0.0.0", False),
        ("null", "box:8080", "0.0.0.0", False),
    ],
)
def test_whose_page_may_connect(origin, asked, host, own):
    assert is_own(origin, asked, host) is own


def test_another_sites_page_is_refused(served):
    """By the server itself, whatever viser does: with its protocol, as its own page has it."""
    import viser
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    _, page = served
    protocol = [f"viser-v{viser.__version__}"]
    address = page.address.replace("http", "ws")
    with connect(address, origin=page.address, subprotocols=protocol) as socket:
        assert socket.recv(timeout=10)
    with pytest.raises(InvalidStatus, match="403"):
        connect(address, origin="https://evil.example", subprotocols=protocol)


def test_a_page_whose_program_has_ended_says_so(networks, trained, browser, tmp_path):
    pytest.importorskip("viser")
    page = Page(Studio(None, networks), "127.0.0.1", 18797, tmp_path)
    page.exhibit(trained("--style", "a"))
    tab = browser.open(page.address)
    until(lambda: "screenshot" in tab.text())
    page.close(ENDED)
    until(lambda: "The training has ended." in tab.text())
    assert "view.py" in tab.text()
    assert "Connecting" not in tab.text()


def test_an_address_that_is_not_this_machines():
    with pytest.raises(UserError, match=r"--host 203\.0\.113\.7: no address of this machine"):
        require_address("203.0.113.7")


def test_without_viser_it_says_what_to_install(tmp_path):
    """In a Python that finds everything but viser."""
    code = (
        "import sys; sys.modules['viser'] = None; sys.argv = sys.argv[1:]; "
        "import runpy; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    for script, words in (
        ("view.py", ["--ckpt_path", "none.ckpt"]),
        ("pipeline.py", ["--stage", "geometry", "--root_dir", "none", "--view"]),
    ):
        run = subprocess.run(
            [sys.executable, "-c", code, str(ROOT / script), *words],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        )
        assert run.returncode == 2
        assert run.stderr == (
            "error: the page needs viser, which is not installed; "
            "pip install -r requirements-viewer.txt\n"
        )


def test_what_comes_from_a_browser_is_not_trusted(served):
    from viewer.page import Visitor

    visitor = Visitor.__new__(Visitor)
    visitor.page = served[1]
    for name in ("../evil", "/etc/x", "", "..", "a\\b"):
        visitor.name = type("Text", (), {"value": name})
        with pytest.raises(UserError, match="name: must be a plain name"):
            visitor._file(".mp4")
    assert clamped(float("nan"), 2, 9) == 2
    assert clamped(1e300, 2, 9) == 9
    assert escaped("a_b<c>") == "a\\_b\\<c\\>"
