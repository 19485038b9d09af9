"""Opens pages in a headless Chromium, cut off from the network, and tells what happened there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
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
