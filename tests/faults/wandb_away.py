"""W&B's server away in every way, and W&B's own process killed: a run ends with its numbers, and soon."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kills import RUN, undisturbed
from small_run import Trial, begin, compare
from wandb_server import Handler, WandbServer

PATIENCE = 60.0
"""Seconds within which such a run ends, with two for each of W&B's time limits."""

LOGGED = [word for word in RUN if word != "logger=none"] + ["logger.init_timeout=2", "logger.finish_timeout=2"]

MOODS = (
    "refuses", "hangs", "answers 500", "answers 401", "answers HTML", "answers with nothing", "closes midway",
    "hangs after the start", "is gone at the end",
)  # fmt: skip


class MoodyHandler(Handler):
    """Answers as its server's mood is."""

    server: MoodyServer

    def do_POST(self) -> None:
        mood = self.server.mood
        if mood == "hangs":
            self.server.away.wait()
            self.close_connection = True
        elif mood.startswith("answers"):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            code = int(mood.split()[1]) if mood[-1].isdigit() else 200
            text = b"<html><body>Sign in to the hotel's network</body></html>" if mood.endswith("HTML") else b""
            self.send_response(code)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
        elif mood == "closes midway":
            self.send_response(200)
            self.send_header("content-length", "100000")
            self.end_headers()
            self.wfile.write(b'{"data": ')
            self.close_connection = True
        else:
            super().do_POST()

    do_PUT = do_POST

    def do_GET(self) -> None:
        self.do_POST()


class MoodyServer(WandbServer):
    """A W&B server with one of MOODS."""

    def __init__(self, mood: str) -> None:
        super().__init__()
        self.RequestHandlerClass = MoodyHandler
        self.mood = mood
        self.hangs_after = "UpsertBucket" if mood == "hangs after the start" else ""
        threading.Thread(target=self.serve_forever, daemon=True).start()
        if mood == "refuses":
            self.leave()

    def leave(self) -> None:
        self.away.set()
        self.shutdown()
        self.server_close()


def try_moods(root: Path, times: int, moods: Sequence[str] = MOODS) -> Iterator[Trial]:
    """A run with each mood of the server, and those whose W&B process is killed."""
    for mood in moods:
        yield try_mood(root, mood)
    for number in range(max(1, times // 12)):
        yield kill_service(root / f"service{number}", root, number)


def try_mood(root: Path, mood: str) -> Trial:
    """A run whose server is in this mood."""
    expected = undisturbed(root / "undisturbed", *RUN)[0]
    place, server, began = root / mood.replace(" ", "_"), MoodyServer(mood), time.monotonic()
    run = begin(place, *LOGGED, **server.environment)
    if mood == "is gone at the end":
        while run.poll() is None and not (place / "r" / "test_tasks.npz").exists():
            time.sleep(0.005)
        server.leave()
    try:
        code = run.wait(PATIENCE)
    except TimeoutError as error:
        raise AssertionError(f"{mood}: {place}") from error
    finally:
        if mood not in ("refuses", "is gone at the end"):
            server.leave()
    said = "\n".join(run.communicate())
    return _judge(f"W&B's server {mood}", place, expected, code, said, time.monotonic() - began)


def kill_service(place: Path, root: Path, number: int) -> Trial:
    """Kill W&B's own process while a run logs offline, at its N-th line or so."""
    expected, began = undisturbed(root / "undisturbed", *RUN)[0], time.monotonic()
    run = begin(place, *LOGGED, WANDB_MODE="offline")
    metrics = place / "r" / "metrics.jsonl"
    while run.poll() is None and not (metrics.exists() and len(metrics.read_bytes().splitlines()) > number):
        time.sleep(0.002)
    for pid in find_services(place):
        os.kill(pid, signal.SIGKILL)
    code = run.wait(PATIENCE)
    said = "\n".join(run.communicate())
    return _judge("W&B's own process is killed", place, expected, code, said, time.monotonic() - began)


def find_services(place: Path) -> list[int]:
    """W&B's processes that work in this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"wandb-core") and Path(os.readlink(process / "cwd")) == place:
                found.append(int(process.name))
        except OSError:
            continue
    return found


def _judge(fault: str, place: Path, expected: dict[str, Any], code: int, said: str, seconds: float) -> Trial:
    if code or "Traceback" in said:
        return Trial(fault, "", f"ended with {code}: {said[-2600:]}")
    results = place / "r" / "results.json"
    told = json.loads(results.read_text())
    told |= {key: expected["results.json"][key] for key in ("overrides", "settings_sha256")}  # the logger was typed
    results.write_text(json.dumps(told))
    return Trial(fault, f"{seconds:.0f} s", compare(expected, place / "r"))
