"""The page in a browser, Debian's Chromium: nothing fails or is asked for, and a click answers."""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archspec.spec.hashing import trial_hash
from archspec.spec.load import load
from search.report.write import report_json, write_report
from search.retrain.confirm import TABLE
from search.trials.cases import Predicted
from search.trials.pictures import PICTURES, draw, three_of, write_pictures

RELEASE = Path(__file__).parents[2] / "fixtures" / "releases" / "047295c" / "finished"
FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
)
HANGS = 120
"""Seconds without a word after which the browser is given up."""


class Browser:
    """Chromium with one page, spoken to over its pipe; `events` are what it told of it."""

    def __init__(self, program: str, home: Path) -> None:
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        # the browser reads what it is told from 3 and writes to 4
        shell = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        line = ["bash", "-c", shell, "bash", program, *FLAGS, f"--user-data-dir={home}"]
        self._process = subprocess.Popen(
            [*line, "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._ids, self._rest, self._session = itertools.count(), b"", ""
        self.events: list[dict[str, Any]] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(one["targetId"] for one in targets if one["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **arguments: Any) -> Any:
        """Return what the browser answers; what else it says is kept."""
        number = next(self._ids)
        session = {"sessionId": self._session} if self._session else {}
        told = json.dumps({"id": number, "method": method, "params": arguments, **session})
        os.write(self._to, told.encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._from], [], [], 2 * HANGS)[0], "the browser hangs"
            read = os.read(self._from, 1 << 20)
            assert read, "the browser ended"
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def open(self, file: Path) -> None:
        """Open a page, and wait until all of it is there."""
        self.call("Page.navigate", url=file.as_uri())
        while not self.seen("Page.loadEventFired"):
            self.events.append(self._next())

    def seen(self, method: str) -> list[dict[str, Any]]:
        """Return what was told under this name."""
        return [one["params"] for one in self.events if one.get("method") == method]

    def value(self, script: str) -> Any:
        """Return what a script comes to, which may be a promise."""
        found = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def comes_true(self, condition: str) -> bool:
        """Wait until the page answers, and say whether it does."""
        look = f"const look = () => {condition} ? done(true) : setTimeout(look, 20)"
        waiting = f"done => {{ {look}; look(); setTimeout(() => done(false), {1000 * HANGS}); }}"
        return bool(self.value(f"new Promise({waiting})"))

    def click(self, x: float, y: float) -> None:
        for kind, button in (("Moved", "none"), ("Pressed", "left"), ("Released", "left")):
            arguments = {"type": f"mouse{kind}", "button": button, "clickCount": 1}
            self.call("Input.dispatchMouseEvent", x=x, y=y, **arguments)

    def set_width(self, width: int) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def picture(self, file: Path) -> None:
        """Write a picture of the whole page, for whoever wants to look at it."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(found["data"]))

    def close(self) -> None:
        os.close(self._to)
        self._process.terminate()
        self._process.wait()
        os.close(self._from)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("needs Debian's package chromium")
    found = Browser(program, tmp_path / "home")
    yield found
    found.close()


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """Return the page of a run whose front was trained again, with pictures."""
    run = shutil.copytree(RELEASE, tmp_path / "run")
    label = np.zeros((1, 40, 40), int)
    label[:, 10:30, 12:28] = 1
    drawn = draw(Predicted("a", np.roll(label, 3, 1), label, np.indices((1, 1, 40, 40))[2]))
    for number in report_json(run)["front"]:
        spec = load(run / "trials" / f"{number:04d}" / "spec.yaml")
        folder = run / TABLE.with_suffix("") / f"{trial_hash(spec).replace(':', '-')}-1-9"
        folder.mkdir(parents=True)
        part = report_json(run)["confirmed"]["compared_on"]
        write_pictures(folder / PICTURES, part, three_of({"a": {"mean": 0.8}}, {"a": drawn}))
    return write_report(run)[-1]


def test_the_page_loads_and_its_front_answers_a_click(browser: Browser, page: Path) -> None:
    browser.set_width(1300)
    browser.open(page)
    drawn = browser.value(
        "[...document.querySelectorAll('.figure')].map(one => one.id + ' ' + "
        "one.querySelectorAll('svg path').length)"
    )
    assert len(drawn) == 5 and not [one for one in drawn if one.endswith(" 0")], drawn
    shown = browser.value("[...document.images].map(one => [one.complete, one.naturalWidth])")
    assert shown and all(done and width == 200 for done, width in shown)

    point = "document.querySelector('#figure-pareto .scatterlayer .trace:last-child path.point')"
    browser.value(f"{point}.scrollIntoView({{block: 'center'}})")
    box = browser.value(f"{point}.getBoundingClientRect().toJSON()")
    browser.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    opened = "[...document.querySelectorAll('details[id][open]')].map(one => '#' + one.id)"
    assert browser.comes_true("location.hash")
    assert browser.value(opened) == [browser.value("location.hash")] != []

    for width in (1300, 380):
        browser.set_width(width)
        assert browser.comes_true(f"document.documentElement.scrollWidth <= {width}")

    asked = [one["request"]["url"] for one in browser.seen("Network.requestWillBeSent")]
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
    assert not browser.seen("Runtime.exceptionThrown")
    told = [one["entry"] for one in browser.seen("Log.entryAdded")]
    told += [one for one in browser.seen("Runtime.consoleAPICalled") if one["type"] == "error"]
    assert not told
