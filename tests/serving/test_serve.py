"""`dltrain serve`: clients on loopback; a process that has only what the Dockerfile installs; limits, a clean end."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import Page, needs_browser
from conftest import REPOSITORY
from evaluating import invoke
from PIL import Image

pytest.importorskip("uvicorn")
INSTALLED = re.findall(r"pip install --no-cache-dir ([a-z ]+)", (REPOSITORY / "Dockerfile").read_text())[0].split()
"""What the image for serving has."""
NEEDED = re.findall(r'^    "([\w-]+)>=', (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE)
"""What dltrain needs for all else, by its project file."""
ABSENT = [name.replace("scikit-learn", "sklearn") for name in NEEDED if name not in INSTALLED]
PROGRAM = f"import sys; sys.modules |= dict.fromkeys({ABSENT}); from dltrain.__main__ import main; main()"
LIMITS = ["--max-bytes", "300000", "--max-pixels", "1000000", "--seconds", "2"]


class Serving:
    """A server's process, and requests to it."""

    def __init__(self, file: Path, *options: str) -> None:
        command = [sys.executable, "-c", PROGRAM, "serve", str(file), "--port", "0", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert found, line
        self.port = int(found[1])

    def ask(self, body: bytes = b"", path: str = "/predict", method: str = "POST", **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        is_json = response.headers["content-type"].startswith("application/json")
        return response.status, json.loads(content) if is_json else content.decode()

    def open(self, sent: bytes) -> socket.socket:
        """A connection on which something was sent."""
        client = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        client.sendall(sent)
        return client

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """The exit code, and what it said last."""
        self.process.send_signal(number)
        said = self.process.communicate(timeout=60)[1]
        return self.process.returncode, said


@pytest.fixture(scope="module")
def serving(exported: Path) -> Iterator[Serving]:
    server = Serving(exported, *LIMITS)
    yield server
    server.process.kill()
    server.process.communicate()


@pytest.fixture(scope="module")
def answers(exported: Path, photo_run: Path) -> dict[bytes, dict[str, Any]]:
    """What `predict` says of the content of each file."""
    result = invoke("predict", exported, photo_run.parent.parent / "data", "--format", "jsonl")
    found = [json.loads(line) for line in result.stdout.splitlines()]
    return {Path(row.pop("path")).read_bytes(): row for row in found}


def requests_of(serving: Serving, answers: dict[bytes, dict[str, Any]], count: int, clients: int) -> None:
    files = (list(answers) * (count // len(answers) + 1))[:count]
    with ThreadPoolExecutor(clients) as pool:
        for file, (status, said) in zip(files, pool.map(serving.ask, files), strict=True):
            assert status == 200, said
            assert said["class"] == answers[file]["class"]
            assert list(said["probabilities"].values()) == pytest.approx(
                list(answers[file]["probabilities"].values()), abs=1e-6
            )


def test_the_image_has_no_torch() -> None:
    assert {"torch", "timm", "sklearn", "optuna", "safetensors"} <= set(ABSENT)
    assert {"numpy", "pillow", "onnxruntime", "starlette", "uvicorn"} <= set(INSTALLED)


def test_many_clients_get_the_answers_of_predict(serving: Serving, answers: dict[bytes, dict[str, Any]]) -> None:
    requests_of(serving, answers, 200, 32)
    status, metrics = serving.ask(path="/metrics", method="GET")
    assert status == 200
    assert 'dltrain_requests_total{status="200"} 200' in metrics
    assert "dltrain_answer_seconds_count 200" in metrics and 'le="+Inf"} 200' in metrics


@pytest.mark.slow
def test_a_thousand_requests(exported: Path, answers: dict[bytes, dict[str, Any]]) -> None:
    server = Serving(exported)
    requests_of(server, answers, 1000, 32)
    memory = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{server.process.pid}/status").read_text())
    assert memory and int(memory[1]) < 500_000
    assert server.end()[0] == 0


def test_what_is_served_is_told(serving: Serving) -> None:
    status, said = serving.ask(path="/health", method="GET")
    assert status == 200
    assert (said["status"], said["names"], said["inputs"]) == ("ok", ["blau", "grün", "rot"], "images")
    status, page = serving.ask(path="/", method="GET")
    assert status == 200 and "Drop images here" in page and "http" not in page


@pytest.mark.slow
def test_a_temperature_stays_in_8_bits_and_is_told(tmp_path: Path) -> None:
    """The file has it inside, its metadata and /health say it, and the answers are those of `predict`."""
    from dltrain.export.session import Session

    (tmp_path / "x.yaml").write_text("data: digits\nmodel: {name: mlp, hidden: [32]}\ntraining: {epochs: 2}\n")
    assert invoke("fit", tmp_path / "x.yaml", "--runs", tmp_path).exit_code == 0
    run = tmp_path / "x" / "001"
    assert invoke("eval", run, "--split", "validation", "--calibrate").exit_code == 0
    kept = {}
    for name in ("", "--no-calibrate"):
        file = tmp_path / f"model{name}.onnx"
        result = invoke("export", run, "--int8", "--tolerance", 0.2, "--output", file, *([name] if name else []))
        assert result.exit_code == 0, result.stderr
        kept[name] = Session.open(file)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    said = {name: session.run({"images": pixels}) for name, session in kept.items()}
    assert kept["--no-calibrate"].about.calibration is None and kept[""].about.calibration is not None
    temperature = kept[""].about.calibration["temperature"]
    assert temperature != 1
    divided = said["--no-calibrate"]["outputs"] / temperature
    assert np.abs(said[""]["outputs"] - divided).max() < 1e-5
    exponents = np.exp(divided - divided.max(1, keepdims=True))
    assert np.abs(said[""]["probabilities"] - exponents / exponents.sum(1, keepdims=True)).max() < 1e-6
    assert np.array_equal(said[""]["class"], said["--no-calibrate"]["class"])
    Image.fromarray(pixels[0, :, :, 0]).save(tmp_path / "one.png")
    asked = invoke("predict", tmp_path / "model.onnx", tmp_path / "one.png", "--format", "jsonl")
    server = Serving(tmp_path / "model.onnx")
    try:
        assert server.ask(path="/health", method="GET")[1]["temperature"] == temperature
        status, answer = server.ask((tmp_path / "one.png").read_bytes())
    finally:
        assert server.end()[0] == 0
    wanted = json.loads(asked.stdout)
    assert status == 200 and answer["class"] == wanted["class"]
    assert [*answer["probabilities"].values()] == pytest.approx([*wanted["probabilities"].values()], abs=1e-6)


@needs_browser
def test_images_that_are_dropped_on_the_page_are_answered(
    serving: Serving, answers: dict[bytes, dict[str, Any]], tmp_path: Path
) -> None:
    """In a browser, on the frame and beside it; what is no image is told, and the page stays."""
    content, wanted = next(iter(answers.items()))
    (tmp_path / "one.img").write_bytes(content)
    (tmp_path / "none.jpg").write_bytes(b"no image")
    page = Page(f"http://127.0.0.1:{serving.port}/")
    try:
        page.drop([tmp_path / "one.img", tmp_path / "none.jpg"], 300, 100)
        page.wait_for("document.querySelectorAll('article table td').length == 9 && !!document.querySelector('.error')")
        page.drop([tmp_path / "one.img"], 300, 400)
        page.wait_for("document.querySelectorAll('article table td').length == 18")
        said = page.value("document.body.innerText")
        focused = page.value("files.focus(), document.activeElement.id")
    finally:
        page.close()
    assert f"class: {wanted['class']}" in said and f"{100 * wanted['probability']:.1f} %" in said
    assert "the image cannot be read: it is no image file" in said
    assert focused == "files"


def png(width: int, height: int) -> bytes:
    file = BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


def test_wrong_requests_get_a_word(serving: Serving, answers: dict[bytes, dict[str, Any]]) -> None:
    bomb = png(20_000, 20_000)
    assert len(bomb) < 200_000
    for body, status, message in (
        (b"", 400, "the body is empty"),
        (b"no image", 422, "it is no image file"),
        (next(iter(answers))[:200], 422, "the image cannot be read"),
        (bomb, 413, "has 400,000,000 pixels, more than the 1,000,000 that are taken"),
        (b"x" * 300_001, 413, "the body is larger than 300,000 bytes"),
        (b"x" * 30_000_000, 413, "the body is larger than 300,000 bytes"),  # who is still sending learns of it, too
    ):
        found, said = serving.ask(body)
        assert found == status and message in said["error"], said
    assert serving.ask(path="/predict", method="GET")[0] == 405
    assert serving.ask(path="/nowhere", method="GET")[0] == 404
    memory = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{serving.process.pid}/status").read_text())
    assert memory and int(memory[1]) < 500_000


def test_clients_that_stall_hold_nobody_up(serving: Serving, answers: dict[bytes, dict[str, Any]]) -> None:
    begun = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
    stalled = [serving.open(begun + b"Content-Length: 1000\r\n\r\nab") for _ in range(5)]
    endless = serving.open(begun + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    silent = serving.open(b"POST /pre")
    started = time.perf_counter()
    file = next(iter(answers))
    assert serving.ask(file)[1]["class"] == answers[file]["class"]
    assert time.perf_counter() - started < 2
    for client in (*stalled, endless):
        assert client.recv(1000).startswith(b"HTTP/1.1 408")
    assert silent.recv(1000) == b""
    for client in (*stalled, endless, silent):
        client.close()
    large = serving.open(begun + b"Transfer-Encoding: chunked\r\n\r\n" + 7 * (b"C350\r\n" + 50_000 * b"x" + b"\r\n"))
    assert large.recv(1000).startswith(b"HTTP/1.1 413")
    large.close()


def test_connections_that_were_good_once_are_closed_as_well(serving: Serving) -> None:
    """A second request that does not come, and a body that never ends where none is read."""
    endless = b"POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    with serving.open(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n") as again, serving.open(endless) as unread:
        said = b""
        while not said.endswith(b"}"):
            said += again.recv(10_000)
        assert said.startswith(b"HTTP/1.1 200")
        again.sendall(b"POST /pre")
        assert unread.recv(10_000).startswith(b"HTTP/1.1 405")
        again.settimeout(30)
        assert again.recv(100) == b""
        started = time.perf_counter()
        with pytest.raises(ConnectionError):
            while time.perf_counter() - started < 30:
                unread.sendall(b"5\r\nhello\r\n")
                time.sleep(0.1)
    assert serving.ask(path="/health", method="GET")[0] == 200


def test_it_stops_when_it_is_asked_to(exported: Path, answers: dict[bytes, dict[str, Any]]) -> None:
    server = Serving(exported)
    file, answer = next(iter(answers.items()))
    client = server.open(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(file) + file[:100])
    time.sleep(0.3)  # what is being asked when the signal comes is answered
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    client.sendall(file[100:])
    said = b""
    while part := client.recv(10_000):
        said += part
    assert said.startswith(b"HTTP/1.1 200") and f'"class":"{answer["class"]}"'.encode() in said
    client.close()
    last = server.process.communicate(timeout=30)[1]
    assert server.process.returncode == 0 and "stopped: all that was asked is answered" in last


def test_requests_that_cannot_be_served(
    serving: Serving, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = invoke("serve", exported, "--port", serving.port)
    assert taken.exit_code == 2
    assert f"cannot listen on 127.0.0.1:{serving.port}: address already in use; choose another --port" in taken.stderr
    (tmp_path / "x.onnx").write_bytes(b"x")
    assert invoke("serve", tmp_path / "x.onnx").exit_code == 2
    assert invoke("serve", tmp_path / "nowhere.onnx").exit_code == 2
    monkeypatch.setattr("dltrain.commands.serve.find_spec", lambda name: None if name == "uvicorn" else name)
    result = invoke("serve", exported)
    assert result.exit_code == 2 and "`serve` needs uvicorn: pip install 'dltrain[serve]'" in result.stderr
