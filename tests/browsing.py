"""Opens pages in a headless Chromium, cut off from the network, and tells what happened there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
QUIET = ("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")


@dataclass(frozen=True)
class Opened:
    """answer: what the script returned. console: its lines. requests: addresses that the page asked for."""

    answer: Any
    console: list[str]
    requests: list[str]


def open_page(html: str, then: str = "null", width: int = 1400) -> Opened:
    """What a page does, and what a script gives that runs in it afterwards: an expression of JavaScript.

    The script could not run under the page's own policy, which is therefore taken out of this copy when there is one.
    """
    assert BROWSER is not None
    if then != "null":
        html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
        code = f'document.body.insertAdjacentHTML("beforeend", "<pre id=answer></pre>"); const answer = ({then});'
        code += 'document.getElementById("answer").textContent = JSON.stringify(answer);'
        html = html.replace("</body>", f"<script>{code}</script></body>")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "page.html").write_text(html, encoding="utf-8")
        command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", *QUIET, "--enable-logging=stderr"]
        command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}"]
        command += [f"--log-net-log={folder / 'net.json'}", f"--window-size={width},1000", "--dump-dom"]
        done = subprocess.run(
            [*command, (folder / "page.html").as_uri()], capture_output=True, text=True, timeout=120, check=False
        )
        assert "</html>" in done.stdout, done.stderr[-2000:]
        requests = _requests(json.loads((folder / "net.json").read_text()))
    found = re.search(r'<pre id="answer">(.*?)</pre>', done.stdout, re.DOTALL)
    answer = json.loads(unescape(found[1])) if found and found[1] else None
    return Opened(answer, re.findall(r":CONSOLE:\d+\] (.*)", done.stderr), requests)


def _requests(log: dict[str, Any]) -> list[str]:
    """What the page asked for: other than the page itself, and than what the browser does for itself."""
    started = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    asked = [
        event["params"] for event in log["events"] if event["type"] == started and "url" in event.get("params", {})
    ]
    return [each["url"] for each in asked if each.get("initiator") != "not an origin"]


class Page:
    """A page in a browser, over its debugging pipe; to be closed."""

    def __init__(self, url: str) -> None:
        assert BROWSER is not None
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        (read, other_write), (other_read, write) = os.pipe(), os.pipe()
        command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", *QUIET, "--remote-debugging-pipe"]
        command += [f"--user-data-dir={self._profile.name}", "about:blank"]
        # the browser reads from descriptor 3 and writes to 4
        shell = f'exec "$@" 3<&{other_read} 4>&{other_write}'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "bash", *command], pass_fds=(other_read, other_write), stderr=subprocess.DEVNULL
        )
        os.close(other_read)
        os.close(other_write)
        self._read, self._write, self._sent = os.fdopen(read, "rb"), os.fdopen(write, "wb"), 0
        self._rest, self._session = b"", ""
        pages = [each for each in self.do("Target.getTargets")["targetInfos"] if each["type"] == "page"]
        attached = self.do("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)
        self._session = attached["sessionId"]
        self.do("Page.navigate", url=url)
        self.wait_for("document.readyState == 'complete' && location.href != 'about:blank'")

    def do(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What the browser answers to a command of its protocol."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        self._write.write(json.dumps(message).encode() + b"\0")
        self._write.flush()
        while True:
            while b"\0" not in self._rest:
                part = os.read(self._read.fileno(), 1 << 16)
                assert part, "the browser has ended"
                self._rest += part
            answer, _, self._rest = self._rest.partition(b"\0")
            said = json.loads(answer)
            if said.get("id") == self._sent:
                assert "error" not in said, said
                return dict(said["result"])

    def value(self, script: str) -> Any:
        """Of an expression of JavaScript."""
        return self.do("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def wait_for(self, script: str, seconds: float = 60.0) -> None:
        """Until an expression is true."""
        until = time.monotonic() + seconds
        while not self.value(script):
            assert time.monotonic() < until, self.value("document.body.innerText")
            time.sleep(0.05)

    def drop(self, files: list[Path], x: int, y: int) -> None:
        """Drop files at a place of the page, as a hand would."""
        data = {"items": [], "files": [*map(str, files)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.do("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def close(self) -> None:
        """End the browser."""
        self._process.kill()
        self._process.wait()
        self._read.close()
        self._write.close()
        self._profile.cleanup()
