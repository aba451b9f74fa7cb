"""A server on this machine that speaks as much of the Hub's API as its client needs to push and load models."""

import hashlib
import json
import re
import threading
from base64 import b64decode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

USER = "tester"
# The Hub takes larger files by LFS; here all that are not text.
LFS_SUFFIXES = (".safetensors", ".bin", ".png")


class Hub:
    """Repositories in memory: commits are dicts of files, branches point at commits.

    Attributes:
        repos: By id: "branches" (name to sha), "commits" (sha to files), "private".
        uploads: Names of files that commits sent, in order, LFS files among them.
        break_commits: Whether commits fail, after the uploads.
    """

    def __init__(self):
        self.repos = {}
        self.blobs = {}
        self.uploads = []
        self.break_commits = False

    def __enter__(self):
        handler = type("Handler", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()

    def files(self, repo_id, revision="main"):
        """Files at a branch or commit, or None."""
        repo = self.repos.get(repo_id)
        return repo and repo["commits"].get(repo["branches"].get(revision, revision))

    def commit(self, repo_id, branch, files):
        """Add a commit; an identical one changes nothing."""
        repo = self.repos[repo_id]
        if repo["commits"].get(repo["branches"].get(branch)) != files:
            sha = hashlib.sha1(f"{len(repo['commits'])}{sorted(files)}".encode()).hexdigest()
            repo["commits"][sha] = files
            repo["branches"][branch] = sha
        return repo["branches"][branch]


class Handler(BaseHTTPRequestHandler):
    """One request; each method below answers one kind."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        """Stay silent."""

    def do_GET(self):
        self.answer(
            (r"/api/whoami-v2", self.whoami),
            (r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", self.tree),
            (r"/api/models/([^/]+/[^/]+?)(?:/revision/([^/]+))?", self.info),
            (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.resolve),
        )

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(
            (r"/api/repos/create", self.create),
            (r"/api/validate-yaml", lambda: self.send({"errors": [], "warnings": []})),
            (r"/api/models/([^/]+/[^/]+)/branch/(.+)", self.branch),
            (r"/api/models/([^/]+/[^/]+)/preupload/(.+)", self.preupload),
            (r"/api/models/([^/]+/[^/]+)/paths-info/(.+)", self.paths_info),
            (r"/api/models/([^/]+/[^/]+)/commit/(.+)", self.commit),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self.lfs_batch),
        )

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.blobs[self.path.rsplit("/", 1)[1]] = body
        self.send({})

    def answer(self, *routes):
        path = unquote(urlsplit(self.path).path)
        for pattern, method in routes:
            match = re.fullmatch(pattern, path)
            if match:
                return method(*match.groups())
        return self.send({"error": f"unknown request {self.command} {path}"}, 501)

    def send(self, content, status=200, headers=()):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self, code):
        self.send({"error": code}, 404, [("X-Error-Code", code), ("X-Error-Message", code)])

    def whoami(self):
        self.send({"name": USER, "type": "user", "orgs": [], "auth": {"type": "access_token"}})

    def create(self):
        request = json.loads(self.body)
        repo_id = f"{request.get('organization') or USER}/{request['name']}"
        if repo_id in self.hub.repos:
            return self.send({"url": f"{self.hub.url}/{repo_id}", "error": "exists"}, 409)
        self.hub.repos[repo_id] = {"branches": {}, "commits": {}, "private": request.get("visibility") == "private"}
        self.hub.commit(repo_id, "main", {".gitattributes": b""})
        return self.send({"url": f"{self.hub.url}/{repo_id}", "id": repo_id})

    def branch(self, repo_id, name):
        branches = self.hub.repos[repo_id]["branches"]
        if name in branches:
            return self.send({"error": "exists"}, 409)
        branches[name] = branches["main"]
        return self.send({})

    def info(self, repo_id, revision):
        files = self.hub.files(repo_id, revision or "main")
        if files is None:
            return self.missing("RepoNotFound" if repo_id not in self.hub.repos else "RevisionNotFound")
        repo = self.hub.repos[repo_id]
        sha = repo["branches"].get(revision or "main", revision)
        siblings = [{"rfilename": name} for name in files]
        return self.send({"id": repo_id, "sha": sha, "siblings": siblings, "private": repo["private"], "tags": []})

    def entries(self, files):
        return [{"type": "file", "oid": git_oid(data), "size": len(data), "path": n} for n, data in files.items()]

    def tree(self, repo_id, revision):
        files = self.hub.files(repo_id, revision)
        return self.missing("RepoNotFound") if files is None else self.send(self.entries(files))

    def paths_info(self, repo_id, revision):
        files = self.hub.files(repo_id, revision)
        wanted = json.loads(self.body)["paths"]
        self.send(self.entries({name: data for name, data in files.items() if name in wanted}))

    def preupload(self, repo_id, revision):
        files = self.hub.files(repo_id, revision)
        answers = []
        for file in json.loads(self.body)["files"]:
            mode = "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular"
            old = files.get(file["path"])
            oid = None if old is None else hashlib.sha256(old).hexdigest() if mode == "lfs" else git_oid(old)
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.send({"files": answers})

    def lfs_batch(self, repo_id):
        objects = []
        for item in json.loads(self.body)["objects"]:
            known = item["oid"] in self.hub.blobs
            upload = {"upload": {"href": f"{self.hub.url}/upload/{item['oid']}", "header": {}}}
            objects.append(item if known else {**item, "actions": upload})
        self.send({"transfer": "basic", "objects": objects})

    def commit(self, repo_id, revision):
        if self.hub.break_commits:
            return self.send({"error": "broken"}, 400)
        files = dict(self.hub.files(repo_id, revision))
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
            if entry["key"] in ("file", "lfsFile"):
                self.hub.uploads.append(value["path"])
        sha = self.hub.commit(repo_id, revision, files)
        url = f"{self.hub.url}/{repo_id}/commit/{sha}"
        return self.send({"success": True, "commitOid": sha, "commitUrl": url})

    def resolve(self, repo_id, revision, name):
        files = self.hub.files(repo_id, revision)
        if files is None:
            return self.missing("RepoNotFound" if repo_id not in self.hub.repos else "RevisionNotFound")
        if name not in files:
            return self.missing("EntryNotFound")
        repo = self.hub.repos[repo_id]
        sha = repo["branches"].get(revision, revision)
        etag = hashlib.sha256(files[name]).hexdigest()
        return self.send(files[name], headers=[("X-Repo-Commit", sha), ("ETag", f'"{etag}"')])


def git_oid(data):
    """What git calls a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
