"""Does `dltrain serve` keep its promises under load? A process of its own, by default with another Python.

    python benchmarks/serving.py model.onnx PHOTOS
    python benchmarks/serving.py model.onnx PHOTOS --python venv_without_torch/bin/python --requests 1000 --clients 32

Every photo's answer must be that of `dltrain predict model.onnx`. While the clients ask, others send a bomb (a small
file of 400 million pixels), bodies that are too large or never end, and requests that stall. Then come as many full
bodies as are held at once, which are no images. Printed are the answers, how long they took, and the most memory that
the process had.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

BEGUN = b"POST /predict HTTP/1.1\r\nHost: x\r\n"


class Served:
    """The process."""

    def __init__(self, python: str, file: Path, *options: str) -> None:
        command = [python, "-m", "dltrain", "serve", str(file), "--port", "0", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.search(r":(\d+),", line)
        if found is None:
            raise SystemExit(line)
        self.port = int(found[1])

    def ask(self, body: bytes) -> tuple[int, dict[str, object], float]:
        """Status, answer and seconds."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        started = time.perf_counter()
        connection.request("POST", "/predict", body)
        response = connection.getresponse()
        content = json.loads(response.read())
        connection.close()
        return response.status, content, time.perf_counter() - started

    def open(self, sent: bytes) -> socket.socket:
        """A connection on which something was sent."""
        client = socket.create_connection(("127.0.0.1", self.port), timeout=300)
        client.sendall(sent)
        return client

    def memory(self) -> float:
        """The most that it has had, in MB."""
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found is not None
        return int(found[1]) / 1000


def bomb() -> bytes:
    """A PNG file of 20,000 x 20,000 pixels."""
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    return file.getvalue()


def disturb(served: Served, until: threading.Event, found: list[str]) -> None:
    """Bodies and requests that nobody should send, until it is time to stop."""
    small, large = bomb(), b"x" * 21_000_000
    stalled = [served.open(BEGUN + b"Content-Length: 1000\r\n\r\nab") for _ in range(5)]
    stalled += [served.open(BEGUN + b"X-Slow: "), served.open(b"POST /pre")]
    stalled.append(served.open(BEGUN + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"))
    while True:
        found += [f"{name}: {served.ask(body)[0]}" for name, body in (("bomb", small), ("21 MB", large))]
        if until.wait(0.2):
            break
    for client in stalled:
        found.append(f"stalled: {client.recv(12)[9:].decode() or 'closed'}")
        client.close()


def load(served: Served, files: list[bytes], wanted: dict[bytes, dict[str, float]], clients: int) -> None:
    """Ask for every file, and print what came back."""
    until, others = threading.Event(), list[str]()
    disturbing = threading.Thread(target=disturb, args=(served, until, others))
    disturbing.start()
    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        said = list(pool.map(served.ask, files))
    seconds = time.perf_counter() - started
    until.set()
    disturbing.join()
    wrong = lost = 0
    for file, (status, answer, _) in zip(files, said, strict=True):
        lost += status != 200
        if status == 200:
            got = answer["probabilities"]
            assert isinstance(got, dict)
            wrong += max(abs(got[name] - value) for name, value in wanted[file].items()) > 1e-6
    times = sorted(1000 * each[2] for each in said)
    took = f"median {statistics.median(times):.0f} ms, 99 % below {times[int(0.99 * len(times))]:.0f} ms"
    print(
        f"{len(files)} requests of {clients} clients: {wrong} wrong, {lost} lost; {len(files) / seconds:.0f} a second"
    )
    print(f"an answer: {took}")
    counted = {each: others.count(each) for each in sorted({*others})}
    print(f"others meanwhile: {', '.join(f'{count} x {each}' for each, count in counted.items())}")
    print(f"most memory: {served.memory():.0f} MB")


def full_bodies(served: Served, count: int) -> None:
    """Bodies as large as may be that all wait for their last byte; then it comes."""
    size = 20_000_000
    body = BEGUN + b"Content-Length: %d\r\n\r\n" % size + b"x" * (size - 1)
    begun = [served.open(body) for _ in range(count)]
    for client in begun:
        client.sendall(b"x")
    said = [client.recv(12)[9:].decode() for client in begun]
    for client in begun:
        client.close()
    counted = ", ".join(f"{said.count(each)} x {each}" for each in sorted({*said}))
    print(f"{count} bodies of 20 MB at once: {counted}; most memory: {served.memory():.0f} MB")


def main() -> None:
    """Start it, ask it, end it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--python", default=sys.executable, help="that serves; default: this one")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--bodies", type=int, default=64, help="full ones at once; default: as many as are held")
    parser.add_argument("--seconds", default="60", help="as `dltrain serve --seconds`")
    options = parser.parse_args()
    command = [sys.executable, "-m", "dltrain", "predict", options.file, options.photos, "--format", "jsonl"]
    lines = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    wanted = {Path(row["path"]).read_bytes(): row["probabilities"] for row in rows}
    served = Served(options.python, options.file, "--seconds", options.seconds)
    print(f"started; most memory: {served.memory():.0f} MB")
    files = (list(wanted) * (options.requests // len(wanted) + 1))[: options.requests]
    load(served, files, wanted, options.clients)
    full_bodies(served, options.bodies)
    started = time.perf_counter()
    served.process.send_signal(signal.SIGTERM)
    said = served.process.communicate(timeout=60)[1].strip()
    print(f"SIGTERM: exit code {served.process.returncode} after {time.perf_counter() - started:.1f} s; {said}")


if __name__ == "__main__":
    main()
