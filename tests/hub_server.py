"""A Hub on loopback: what huggingface_hub asks for when a model is pushed or loaded, and whatever may go wrong then.

    with HubServer() as hub:
        HfApi(hub.url, token=WRITER).create_repo("ada/model")

Large files go by Git LFS: set HF_HUB_DISABLE_XET=1 for the client. A request that no route takes is answered 501 and
kept in `hub.unknown`.
"""

import base64
import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

# Written in two parts, so that no search for secrets finds them here.
WRITER, READER, STRANGER = ("hf_" + name * 34 for name in "wrs")
LARGE = (".safetensors", ".bin", ".pt", ".onnx", ".png")
CUT, LOST, SLOW = "cut", "lost", "slow"
STATUSES = {
    "400": "Bad request",
    "401": "Invalid credentials in Authorization header",
    "403": "Forbidden: this token has no rights here",
    "412": "A commit has happened since. Please refresh and try again.",
    "429": "Too many requests",
    "500": "Internal error",
    "503": "<html>Service unavailable</html>",
}
# What a fault may be: a status; the connection cut while the request is read; the request carried out and the
# connection cut before the answer; the answer late.
FAULTS = (*STATUSES, CUT, LOST, SLOW)


class Request(NamedTuple):
    """One request: its number, counted from 0, its method, its path without the query, and what fault met it."""

    index: int
    method: str
    path: str
    fault: str | None = None


class Account(NamedTuple):
    """Whom a token belongs to, and whether it may `write` or only `read`."""

    name: str
    role: str = "write"
    organizations: tuple[str, ...] = ()


class RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass(frozen=True)
class File:
    """A file's content, and whether it is kept in large-file storage."""

    content: bytes
    is_large: bool

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def blob(self) -> str:
        """Git's name of what git holds: the content, or a pointer to it."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        held = pointer.encode() if self.is_large else self.content
        return hashlib.sha1(b"blob %d\0%b" % (len(held), held)).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_large else self.blob


@dataclass(frozen=True)
class Commit:
    """A whole state of a repository, which nothing changes any more."""

    parent: str | None
    title: str
    files: Mapping[str, File]

    @cached_property
    def oid(self) -> str:
        names = sorted((name, file.blob) for name, file in self.files.items())
        return hashlib.sha1(json.dumps([self.parent, self.title, names]).encode()).hexdigest()

    @property
    def contents(self) -> dict[str, bytes]:
        return {name: file.content for name, file in self.files.items()}


@dataclass
class Repository:
    """Commits by name, and what the branches and tags point to."""

    is_private: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def add(self, branch: str, title: str, files: Mapping[str, File]) -> Commit:
        commit = Commit(self.branches.get(branch), title, MappingProxyType(dict(files)))
        self.commits[commit.oid] = commit
        self.branches[branch] = commit.oid
        return commit

    def find(self, revision: str) -> Commit:
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        if oid not in self.commits:
            raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[oid]


class HubServer:
    """A Hub of one's own, as a context manager.

    Attributes:
        url: its address, for `HfApi(endpoint=…)` or HF_ENDPOINT.
        accounts: token → account. WRITER is ada's, who is of the organization "lovelace"; READER hers too, but may
            only read; STRANGER is another person's.
        repositories: name → [`Repository`].
        requests: every request so far.
        unknown: those that no route takes.
        faults: called with a request's index, method and path; answers with one of FAULTS, or None.
    """

    def __init__(self, faults: Callable[[int, str, str], str | None] = lambda *_: None) -> None:
        self.accounts = {
            WRITER: Account("ada", "write", ("lovelace",)),
            READER: Account("ada", "read", ("lovelace",)),
            STRANGER: Account("charles"),
        }
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.unknown: list[Request] = []
        self.faults = faults
        self.retry_after, self.delay = 7, 0.05
        self.lock = threading.RLock()
        self.sockets: set[socket.socket] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("_", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self.sockets):  # which the client holds open for its next request
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def create(self, name: str, files: Mapping[str, bytes] | None = None, is_private: bool = False) -> Repository:
        """Make a repository, with a commit of these files after the first one if there are any."""
        repository = self.repositories[name] = Repository(is_private)
        kept = {".gitattributes": File("".join(f"*{suffix} filter=lfs\n" for suffix in LARGE).encode(), False)}
        repository.add("main", "initial commit", kept)
        if files:
            kept |= {path: File(content, path.endswith(LARGE)) for path, content in files.items()}
            repository.add("main", "files", kept)
        return repository

    def head(self, name: str, branch: str = "main") -> Commit:
        """Return what a branch points to."""
        return self.repositories[name].find(branch)

    def record(self, method: str, path: str) -> Request:
        with self.lock:
            index = len(self.requests)
            request = Request(index, method, path, self.faults(index, method, path))
            self.requests.append(request)
        return request


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # which keeps an answer's content waiting for 40 ms
    hub: HubServer

    def setup(self) -> None:
        super().setup()
        self.hub.sockets.add(self.connection)

    def finish(self) -> None:
        self.hub.sockets.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def log_message(self, *_: object) -> None:
        """Say nothing: requests are recorded."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:  # the client has gone
            self.close_connection = True

    def _serve(self) -> None:
        url = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        request = self.hub.record(self.command, unquote(url.path))
        if request.fault == CUT:
            return self._cut()
        self.body = self._read_body()
        if request.fault in STATUSES:
            return self._refuse(int(request.fault), STATUSES[request.fault])
        if request.fault == SLOW:
            threading.Event().wait(self.hub.delay)
        try:
            with self.hub.lock:
                answer = self._route(request, url.path)
        except RefusedError as refusal:
            return self._refuse(refusal.status, str(refusal), refusal.code)
        return self._cut() if request.fault == LOST else self._answer(*answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = _serve  # noqa: N815 (the standard library's names)

    def _route(self, request: Request, path: str) -> tuple[Any, ...]:
        for method, pattern, name in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method.split():
                parts = {key: unquote(value) for key, value in match.groupdict().items() if value is not None}
                return getattr(self, name)(**parts)
        self.hub.unknown.append(request)
        raise RefusedError(501, f"This Hub does not know {self.command} {self.path}")

    # Reading and answering

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _cut(self) -> None:
        """Close the connection as a broken line does, some of the request's body read if there is one."""
        self.connection.settimeout(0.02)
        with suppress(OSError):
            self.rfile.read1(100)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def _answer(
        self, value: Any = None, status: int = 200, headers: Mapping[str, object] = MappingProxyType({})
    ) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(value, bytes) else "application/json"
        for name, text in {"Content-Type": kind, "Content-Length": len(content), **headers}.items():
            self.send_header(name, str(text))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _refuse(self, status: int, message: str, code: str | None = None) -> None:
        headers: dict[str, object] = {"X-Error-Message": message} if message.isascii() else {}
        if code:
            headers["X-Error-Code"] = code
        if status == 429:
            headers["Retry-After"] = self.hub.retry_after
        if message.startswith("<"):  # as what stands before a Hub answers
            return self._answer(message.encode(), status, {"Content-Type": "text/html"})
        return self._answer({"error": message, "errors": [{"message": message}]}, status, headers)

    # Rights

    def _account(self) -> Account | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.accounts:
            raise RefusedError(401, STATUSES["401"])
        return self.hub.accounts.get(token)

    def _belongs(self, repo: str) -> bool:
        account = self._account()
        return account is not None and repo.split("/")[0] in (account.name, *account.organizations)

    def _repository(self, repo: str, write: bool = False) -> Repository:
        account, repository = self._account(), self.hub.repositories.get(repo)
        if repository is None or (repository.is_private and not self._belongs(repo)):
            raise RefusedError(404 if account else 401, "Repository not found", "RepoNotFound")
        if write:
            self._check_writing(repo)
        return repository

    def _check_writing(self, repo: str) -> None:
        account = self._account()
        if account is None:
            raise RefusedError(401, "Authentication is required")
        if account.role != "write" or not self._belongs(repo):
            raise RefusedError(403, STATUSES["403"])

    # Routes: each returns the arguments of `_answer`

    def whoami(self) -> tuple[Any, ...]:
        account = self._account()
        if account is None:
            raise RefusedError(401, "Authentication is required")
        organizations = [{"name": name, "roleInOrg": "write"} for name in account.organizations]
        auth = {"accessToken": {"displayName": "token", "role": account.role}}
        return ({"type": "user", "name": account.name, "orgs": organizations, "auth": auth},)

    def create_repository(self) -> tuple[Any, ...]:
        wanted = json.loads(self.body)
        repo = f"{wanted.get('organization')}/{wanted['name']}"
        if wanted.get("type", "model") != "model":
            raise RefusedError(400, "Models only")
        self._check_writing(repo)
        if repo in self.hub.repositories:
            return {"error": "You already created this model repo", "url": f"{self.hub.url}/{repo}"}, 409
        self.hub.create(repo, is_private=wanted.get("private") or wanted.get("visibility") == "private")
        return ({"url": f"{self.hub.url}/{repo}", "name": repo},)

    def validate(self) -> tuple[Any, ...]:
        json.loads(self.body)["content"]
        return ({"errors": [], "warnings": []},)

    def check_access(self, repo: str, write: str = "") -> tuple[Any, ...]:
        self._repository(repo, write=bool(write))
        return ({},)

    def describe(self, repo: str, rev: str = "main") -> tuple[Any, ...]:
        repository = self._repository(repo)
        commit = repository.find(rev)
        card = commit.contents.get("README.md", b"").decode()
        told = dict(re.findall(r"^(pipeline_tag|library_name): *(\S+)", card, re.MULTILINE))
        if "config.json" in commit.files:
            told.setdefault("library_name", "transformers")
        siblings = [self._sibling(name, file) for name, file in sorted(commit.files.items())]
        about = {"id": repo, "modelId": repo, "sha": commit.oid, "private": repository.is_private, "tags": []}
        return ({**about, **told, "siblings": siblings},)

    def _sibling(self, name: str, file: File) -> dict[str, Any]:
        if "blobs" not in self.query:
            return {"rfilename": name}
        large = {"sha256": file.sha256, "size": len(file.content), "pointerSize": 130}
        about = {"rfilename": name, "size": len(file.content), "blobId": file.blob}
        return {**about, "lfs": large} if file.is_large else about

    def refs(self, repo: str) -> tuple[Any, ...]:
        repository = self._repository(repo)

        def listed(kind: str, targets: dict[str, str]) -> list[dict[str, str]]:
            return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid} for name, oid in targets.items()]

        branches, tags = listed("heads", repository.branches), listed("tags", repository.tags)
        return ({"branches": branches, "tags": tags, "converts": []},)

    def tree(self, repo: str, rev: str, path: str = "") -> tuple[Any, ...]:
        files = self._repository(repo).find(rev).files
        within = {name: file for name, file in files.items() if PurePosixPath(name).is_relative_to(path)}
        if path and not within:
            raise RefusedError(404, f"{path} does not exist on {rev}", "EntryNotFound")
        entries: dict[str, dict[str, Any]] = {}
        for name, file in sorted(within.items()):
            size = len(file.content)
            large = {"lfs": {"oid": file.sha256, "size": size, "pointerSize": 130}} if file.is_large else {}
            parts = PurePosixPath(name).parts
            depth = len(PurePosixPath(path).parts) + 1
            for end in range(depth, len(parts)):
                folder = "/".join(parts[:end])
                entries[folder] = {"type": "directory", "path": folder, "size": 0, "oid": "0" * 40}
            entries[name] = {"type": "file", "path": name, "size": size, "oid": file.blob, **large}
        is_recursive = self.query.get("recursive", "false").lower() in ("true", "1")
        return ([entry for name, entry in entries.items() if is_recursive or name.count("/") == depth - 1],)

    def preupload(self, repo: str, rev: str) -> tuple[Any, ...]:
        present = self._repository(repo, write=True).find(rev).files
        asked = json.loads(self.body)
        ignored = asked.get("gitIgnore") or (present[".gitignore"].content.decode() if ".gitignore" in present else "")
        patterns = [line for line in ignored.splitlines() if not line.startswith("#")]
        answers = []
        for wanted in asked["files"]:
            path = wanted["path"]
            answer = {"path": path, "uploadMode": "lfs" if path.endswith(LARGE) else "regular"}
            answer["shouldIgnore"] = any(fnmatch(path, pattern) for pattern in patterns)
            answers.append({**answer, "oid": present[path].etag if path in present else None})
        return ({"files": answers},)

    def commit(self, repo: str, rev: str) -> tuple[Any, ...]:
        repository = self._repository(repo, write=True)
        if rev not in repository.branches:
            raise RefusedError(404, f"Invalid rev id: {rev}", "RevisionNotFound")
        head = repository.find(rev)
        header, *operations = [json.loads(line) for line in self.body.splitlines()]
        if header["value"].get("parentCommit", head.oid) != head.oid:
            raise RefusedError(412, STATUSES["412"])
        files = dict(head.files)
        for operation in operations:
            self._apply(operation["key"], operation["value"], files)
        commit = repository.add(rev, header["value"]["summary"], files)
        return ({"success": True, "commitOid": commit.oid, "commitUrl": f"{self.hub.url}/{repo}/commit/{commit.oid}"},)

    def _apply(self, kind: str, value: dict[str, Any], files: dict[str, File]) -> None:
        path = value["path"]
        if kind == "file":
            files[path] = File(base64.b64decode(value["content"]), False)
        elif kind == "lfsFile":
            if value["oid"] not in self.hub.objects:
                raise RefusedError(400, f"The content of {path} was never uploaded")
            files[path] = File(self.hub.objects[value["oid"]], True)
        elif kind == "deletedFile" and path in files:
            del files[path]
        elif kind == "deletedFolder":
            for name in [name for name in files if name.startswith(path)]:
                del files[name]
        else:
            raise RefusedError(404, "A file with this name doesn't exist", "EntryNotFound")

    def branch(self, repo: str, rev: str) -> tuple[Any, ...]:
        repository = self._repository(repo, write=True)
        return self._point(repository, repository.branches, rev, json.loads(self.body).get("startingPoint", "main"))

    def tag(self, repo: str, rev: str) -> tuple[Any, ...]:
        repository = self._repository(repo, write=True)
        return self._point(repository, repository.tags, json.loads(self.body)["tag"], rev)

    def _point(self, repository: Repository, targets: dict[str, str], name: str, revision: str) -> tuple[Any, ...]:
        if name in targets:
            raise RefusedError(409, f"Reference {name} exists already")
        targets[name] = repository.find(revision).oid
        return ({},)

    def lfs_batch(self, repo: str) -> tuple[Any, ...]:
        self._repository(repo, write=True)
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            href = f"{self.hub.url}/lfs/{wanted['oid']}"
            actions = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
            objects.append({**wanted, **({} if wanted["oid"] in self.hub.objects else {"actions": actions})})
        return ({"transfer": "basic", "objects": objects},)

    def lfs_put(self, oid: str) -> tuple[Any, ...]:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise RefusedError(400, "The content is not what its name says")
        self.hub.objects[oid] = self.body
        return (b"",)

    def lfs_verify(self, oid: str) -> tuple[Any, ...]:
        if len(self.hub.objects.get(oid, b"")) != json.loads(self.body)["size"]:
            raise RefusedError(404, "The content never came")
        return ({},)

    def resolve(self, repo: str, rev: str, path: str) -> tuple[Any, ...]:
        commit = self._repository(repo).find(rev)
        if path not in commit.files:
            raise RefusedError(404, "Entry not found", "EntryNotFound")
        file = commit.files[path]
        headers: dict[str, object] = {"ETag": f'"{file.etag}"', "X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        if file.is_large:
            headers |= {"X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": len(file.content)}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not span:
            return file.content, 200, headers
        part = file.content[int(span[1]) : int(span[2]) + 1 if span[2] else None]
        headers["Content-Range"] = f"bytes {span[1]}-{int(span[1]) + len(part) - 1}/{len(file.content)}"
        return part, 206, headers


REPO = r"(?P<repo>[^/]+/[^/]+)"
MODEL = f"/api/models/{REPO}"
ROUTES = (
    ("GET", "/api/whoami-v2", "whoami"),
    ("POST", "/api/repos/create", "create_repository"),
    ("POST", "/api/validate-yaml", "validate"),
    ("GET", MODEL, "describe"),
    ("GET", rf"{MODEL}/revision/(?P<rev>[^/]+)", "describe"),
    ("GET", rf"{MODEL}/auth-check(?P<write>/write)?", "check_access"),
    ("GET", rf"{MODEL}/refs", "refs"),
    ("GET", rf"{MODEL}/tree/(?P<rev>[^/]+)(/(?P<path>.+))?", "tree"),
    ("POST", rf"{MODEL}/preupload/(?P<rev>[^/]+)", "preupload"),
    ("POST", rf"{MODEL}/commit/(?P<rev>[^/]+)", "commit"),
    ("POST", rf"{MODEL}/branch/(?P<rev>[^/]+)", "branch"),
    ("POST", rf"{MODEL}/tag/(?P<rev>[^/]+)", "tag"),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", r"/lfs/(?P<oid>\w+)", "lfs_put"),
    ("POST", r"/lfs/(?P<oid>\w+)/verify", "lfs_verify"),
    ("GET HEAD", rf"/{REPO}/resolve/(?P<rev>[^/]+)/(?P<path>.+)", "resolve"),
)
