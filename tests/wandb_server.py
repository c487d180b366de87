"""A W&B server on this machine, as much of it as W&B's client asks: runs with their history, and ways to be away."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class WandbServer(ThreadingHTTPServer):
    """Keeps what runs send.

    Attributes:
        runs: the history of each run by its id: a row for each line that came, in that order.
        summaries: the last summary of each run.
        files: what was uploaded, by its name in the run.
        hangs: whether requests wait, as those to a server that is overloaded or behind a dead connection.
        hangs_after: the operation with whose answer that begins.
        asked: names of the operations that were asked for.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.runs: dict[str, list[dict[str, Any]]] = {}
        self.summaries: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.named: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.hangs, self.hangs_after = False, ""
        self.away = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def environment(self) -> dict[str, str | None]:
        """What a command needs in its environment to log here."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": "0" * 40, "WANDB_MODE": None, "WANDB_ENTITY": "someone"}

    def answer(self, operation: str, asked: dict[str, Any]) -> dict[str, Any]:
        """Answer a GraphQL operation."""
        self.asked.append(operation)
        project = {"id": "1", "name": asked.get("project"), "entity": {"id": "1", "name": "someone"}}
        if operation == "UpsertBucket":
            name = asked["name"]
            new = name not in self.runs
            self.runs.setdefault(name, [])
            self.named.setdefault(name, {}).update({key: value for key, value in asked.items() if value is not None})
            bucket = {"id": name, "name": name, "displayName": asked["displayName"], "project": project}
            return {"upsertBucket": {"bucket": bucket | {"historyLineCount": len(self.runs[name])}, "inserted": new}}
        if operation == "RunResumeStatus":
            rows = self.runs.get(asked["name"])
            bucket = None if rows is None else self._status(asked["name"])
            return {"model": {"id": "1", "name": asked["project"], "entity": project["entity"], "bucket": bucket}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in asked["files"]]
            return {"createRunFiles": {"runID": asked["run"], "uploadHeaders": [], "files": files}}
        if operation == "Viewer":
            someone = {"id": "1", "entity": "someone", "username": "someone", "flags": "{}", "teams": {"edges": []}}
            return {"viewer": someone}
        return {}

    def _status(self, name: str) -> dict[str, Any]:
        rows = self.runs[name]
        tail = json.dumps([json.dumps(row) for row in rows[-1:]])
        return {
            "name": name, "id": name, "historyLineCount": len(rows), "eventsLineCount": 0, "logLineCount": 0,
            "historyTail": tail, "summaryMetrics": "{}", "displayName": name, "config": "{}", "eventsTail": "[]",
            "tags": [], "wandbConfig": json.dumps({"t": 1}),
        }  # fmt: skip

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WandbServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.server.hangs:
            self.server.away.wait()
            self.close_connection = True
            return
        found: dict[str, Any] = {}
        if self.path == "/graphql":
            asked = json.loads(body)
            self.server.hangs = asked.get("operationName") == self.server.hangs_after
            found = {"data": self.server.answer(asked.get("operationName", ""), asked.get("variables") or {})}
        elif self.path.startswith("/upload/"):
            self.server.files[self.path.removeprefix("/upload/")] = body
        elif self.path.endswith("/file_stream"):
            files = json.loads(body).get("files", {})
            history = files.get("wandb-history.jsonl")
            for text in files.get("wandb-summary.json", {}).get("content", ()):
                self.server.summaries[self.path.split("/")[-2]] = json.loads(text)
            rows = self.server.runs.setdefault(self.path.split("/")[-2], [])
            if history:
                rows[history["offset"] :] = map(json.loads, history["content"])
        self._send(json.dumps(found).encode())

    do_PUT = do_POST

    def do_GET(self) -> None:
        self.do_POST()

    def _send(self, text: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """A server that answers until the context ends."""
    server = WandbServer()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.away.set()
        server.shutdown()
        server.server_close()
