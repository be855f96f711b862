"""A Hugging Face hub on this machine: it answers the calls that the real client makes when a word goes out or comes in."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from huggingface_hub import constants

TOKEN = "hf_of_a_test"
_LARGE = (".safetensors", ".bin", ".png", ".webp")  # what the hub's .gitattributes sends to its store of large files


@dataclass
class Hub:
    """Its repositories {name: {path: content}}, and what it was asked: `POST /api/repos/create` and the like, reads left out.

    `broken` are parts of paths that it answers with a 500, `large` what has been put into its store.
    """

    url: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    broken: tuple[str, ...] = ()
    large: dict[str, bytes] = field(default_factory=dict)

    def commit(self, name: str) -> str:
        """The id of what a repository has now."""
        files = self.repositories[name]
        return hashlib.sha1(b"".join(path.encode() + content for path, content in sorted(files.items()))).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: Any) -> None: ...

    def _answer(self, content: Any, status: int = 200, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **{k.replace("_", "-"): v for k, v in headers.items()}}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refused(self, status: int, code: str, text: str) -> None:
        self._answer({"error": text}, status, X_Error_Code=code, X_Error_Message=text)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _is_broken(self) -> bool:
        if any(part in self.path for part in self.hub.broken):
            self._answer({"error": "the disk is full"}, 507)
            return True
        return False

    def do_GET(self) -> None:
        path, _, _ = self.path.partition("?")
        if self._is_broken():
            return
        if found := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(?:/(revision|tree)/[\w.-]+)?", path):
            name = found[1]
            if name not in self.hub.repositories:
                self._refused(404, "RepoNotFound", "Repository not found")
            elif found[2] == "tree":
                self._answer([self._entry(path, content) for path, content in sorted(self.hub.repositories[name].items())])
            else:
                siblings = [{"rfilename": path} for path in self.hub.repositories[name]]
                self._answer({"id": name, "sha": self.hub.commit(name), "siblings": siblings, "private": False, "tags": []})
        elif found := re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/\w+/(.+)", path):
            content = self.hub.repositories.get(found[1], {}).get(found[2])
            if content is None:
                self._refused(404, "EntryNotFound", "Entry not found")
            else:
                self._answer(content, ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit=self.hub.commit(found[1]))
        else:
            self._answer({"error": f"no such page: {path}"}, 404)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body, path = self._body(), self.path.partition("?")[0]
        self.hub.asked.append(f"{self.command} {path}")
        if self._is_broken():
            return
        if path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._refused(401, "", "Invalid credentials in Authorization header")
        elif path == "/api/repos/create":
            said = json.loads(body)
            name = f"{said['organization']}/{said['name']}"
            self.hub.repositories.setdefault(name, {".gitattributes": b"*.png filter=lfs\n"})
            self.hub.private[name] = said.get("visibility") == "private" or said.get("private") is True
            self._answer({"url": f"{self.hub.url}/{name}", "id": name, "name": name})
        elif found := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/preupload/main", path):
            files = [self._preupload(found[1], file["path"]) for file in json.loads(body)["files"]]
            self._answer({"files": files})
        elif found := re.fullmatch(r"/([\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch", path):
            self._answer({"transfer": "basic", "objects": [self._object(each) for each in json.loads(body)["objects"]]})
        elif found := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/commit/main", path):
            self._commit(found[1], [json.loads(line) for line in body.splitlines()])
            oid = self.hub.commit(found[1])
            self._answer({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{found[1]}/commit/{oid}", "hookOutput": ""})
        else:
            self._answer({"error": f"no such call: {path}"}, 404)

    def do_PUT(self) -> None:
        body = self._body()
        self.hub.asked.append(f"PUT {self.path}")
        if self._is_broken():
            return
        oid = self.path.rpartition("/")[2]
        if hashlib.sha256(body).hexdigest() != oid:
            self._answer({"error": "other bytes than announced"}, 400)
        else:
            self.hub.large[oid] = body
            self._answer({})

    def _entry(self, path: str, content: bytes) -> dict[str, Any]:
        large = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        more = {"lfs": large} if path.endswith(_LARGE) else {}
        return {"type": "file", "path": path, "size": len(content), "oid": _blob(content), **more}

    def _preupload(self, name: str, path: str) -> dict[str, Any]:
        entry = self._entry(path, content) if (content := self.hub.repositories[name].get(path)) is not None else {}
        mode = "lfs" if path.endswith(_LARGE) else "regular"
        return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": entry.get("lfs", entry).get("oid")}

    def _object(self, each: dict[str, Any]) -> dict[str, Any]:
        upload = {"upload": {"href": f"{self.hub.url}/store/{each['oid']}"}}
        return each | ({} if each["oid"] in self.hub.large else {"actions": upload})

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        files = dict(self.hub.repositories[name])
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.hub.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            else:
                assert line["key"] == "deletedFile", line
                del files[value["path"]]
        self.hub.repositories[name] = files


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def hub_server() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def use(hub: Hub, monkeypatch: pytest.MonkeyPatch, cache: str, token: str = TOKEN) -> None:
    """What HF_ENDPOINT, HF_TOKEN, HF_HUB_CACHE and HF_HUB_DISABLE_XET are to a process that starts with them.

    Its other store, Xet, is a service behind the hub's interface, with a protocol of its own.
    """
    for name, value in (("ENDPOINT", hub.url), ("HF_HUB_CACHE", cache), ("HF_HUB_DISABLE_XET", True), ("HF_HUB_OFFLINE", False)):
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setenv("HF_TOKEN", token)
