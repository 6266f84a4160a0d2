"""The Hub over real HTTP: a small server on this machine speaks what huggingface_hub needs of its protocol."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import torch
from tiny_models import TINY, assert_same_weights, random_model

from electra_fast import ElectraConfig, ElectraForPreTraining, ElectraModel
from electra_fast.hub import files
from electra_fast.hub.files import find_file, push_directory
from electra_fast.tokenizer import ElectraTokenizer


class Hub:
    """Repositories in memory behind HTTP: `repos[name][revision][path]` is a file's content."""

    def __init__(self):
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.tokens: set[str | None] = set()
        self.requests: list[str] = []
        self.private: set[str] = set()
        self.broken = False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                hub.resolve(self)

            def do_GET(self):
                hub.resolve(self)

            def do_POST(self):
                hub.write(self)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def add(self, repo: str, directory: Path, revision: str = "main", subfolder: str = "") -> None:
        tree = self.repos.setdefault(repo, {}).setdefault(revision, {})
        tree |= {f"{subfolder}{path.name}": path.read_bytes() for path in directory.iterdir()}

    def answer(self, handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    def note(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append(f"{handler.command} {handler.path}")
        self.tokens.add(handler.headers.get("Authorization"))

    def resolve(self, handler: BaseHTTPRequestHandler) -> None:
        asked = re.fullmatch(r"/(.+)/resolve/([^/]+)/(.+)", handler.path)
        if asked is None:  # what the library asks now and then of its own accord
            return self.answer(handler, 404)
        self.note(handler)
        if self.broken:
            return self.answer(handler, 403, X_Error_Message="the server says no")
        repo, revision, path = asked.groups()
        if repo not in self.repos:
            return self.answer(handler, 404, X_Error_Code="RepoNotFound")
        if repo in self.private and handler.headers.get("Authorization") != "Bearer secret":
            return self.answer(handler, 403, X_Error_Code="GatedRepo")
        if revision not in self.repos[repo]:
            return self.answer(handler, 404, X_Error_Code="RevisionNotFound")
        commit = hashlib.sha1(revision.encode()).hexdigest()
        body = self.repos[repo][revision].get(path)
        if body is None:
            return self.answer(handler, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        etag = f'"{hashlib.sha1(body).hexdigest()}"'
        return self.answer(handler, 200, body, ETag=etag, X_Repo_Commit=commit)

    def write(self, handler: BaseHTTPRequestHandler) -> None:
        self.note(handler)
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        if handler.path == "/api/repos/create":
            request = json.loads(body)
            repo = f"{request.get('organization') or 'me'}/{request['name']}"
            known, self.repos[repo] = repo in self.repos, self.repos.get(repo, {"main": {}})
            if request.get("private") or request.get("visibility") == "private":
                self.private.add(repo)
            reply = json.dumps({"url": f"{self.url}/{repo}", "name": repo}).encode()
            return self.answer(handler, 409 if known else 200, reply)
        repo, action, revision = re.fullmatch(r"/api/models/(.+)/(\w+)/([^/?]+)(\?.*)?", handler.path).groups()[:3]
        if action == "branch":
            self.repos[repo].setdefault(revision, {})
            return self.answer(handler, 200, b"{}")
        if action == "preupload":
            paths = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
            return self.answer(handler, 200, json.dumps({"files": modes}).encode())
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.repos[repo][revision][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        reply = {"success": True, "commitOid": "0" * 40, "commitUrl": f"{self.url}/{repo}/commit/{'0' * 40}"}
        return self.answer(handler, 200, json.dumps(reply).encode())


@pytest.fixture
def hub(monkeypatch, tmp_path):
    server = Hub()
    constants = huggingface_hub.constants
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    huggingface_hub.close_session()
    yield server
    huggingface_hub.close_session()
    server.close()


@pytest.fixture
def model(tmp_path) -> ElectraForPreTraining:
    model = random_model(ElectraForPreTraining)
    model.save_pretrained(tmp_path / "saved")
    return model


@pytest.mark.parametrize(
    "options",
    [{}, {"max_shard_size": 8000}, {"safe_serialization": False}, {"variant": "fp16"}],
    ids=["safetensors", "shards", "bin", "variant"],
)
def test_downloads_once(hub, tmp_path, options):
    model = random_model(ElectraForPreTraining)
    model.save_pretrained(tmp_path / "saved", **options)
    hub.add("owner/tiny", tmp_path / "saved")
    variant = {"variant": options.get("variant")}
    assert_same_weights(ElectraForPreTraining.from_pretrained("owner/tiny", **variant), model.state_dict())
    assert hub.tokens == {None}

    hub.requests.clear()
    again = ElectraForPreTraining.from_pretrained("owner/tiny", local_files_only=True, **variant)
    assert_same_weights(again, model.state_dict())
    assert hub.requests == []
    ElectraForPreTraining.from_pretrained("owner/tiny", **variant)
    assert not [request for request in hub.requests if request.startswith("GET")]
    ElectraForPreTraining.from_pretrained("owner/tiny", force_download=True, **variant)
    assert [request for request in hub.requests if request.startswith("GET")]


def test_revision_subfolder_cache_and_token(hub, tmp_path, model):
    hub.repos["owner/tiny"] = {"main": {}}
    hub.add("owner/tiny", tmp_path / "saved", revision="v2", subfolder="deep/er/")
    loaded = ElectraForPreTraining.from_pretrained(
        "owner/tiny", revision="v2", subfolder="deep/er", cache_dir=tmp_path / "mine", token="secret"
    )
    assert_same_weights(loaded, model.state_dict())
    assert hub.tokens == {"Bearer secret"}
    assert (tmp_path / "mine" / "models--owner--tiny").is_dir() and not (tmp_path / "cache").exists()
    path = find_file("owner/tiny", "config.json", revision="v2", subfolder="deep/er")
    assert ElectraConfig.from_pretrained(path) == ElectraConfig.from_pretrained(tmp_path / "saved")


def test_a_directory_comes_before_the_hub(hub, tmp_path, model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_same_weights(ElectraForPreTraining.from_pretrained("saved"), model.state_dict())
    (tmp_path / "saved").rename(tmp_path / "inner")
    assert_same_weights(ElectraForPreTraining.from_pretrained(".", subfolder="inner"), model.state_dict())
    assert hub.requests == []


def test_what_is_missing_is_named(hub, tmp_path, model):
    hub.add("owner/tiny", tmp_path / "saved")
    load = ElectraForPreTraining.from_pretrained
    with pytest.raises(FileNotFoundError, match="'owner/none' is neither a directory nor a model on the Hub"):
        load("owner/none")
    with pytest.raises(FileNotFoundError, match="owner/tiny on the Hub has no revision 'v9'"):
        load("owner/tiny", revision="v9")
    with pytest.raises(FileNotFoundError, match=r"owner/tiny must hold weights, one of model\.fp16\.safetensors"):
        load("owner/tiny", variant="fp16")
    with pytest.raises(FileNotFoundError, match=r"owner/tiny on the Hub must hold vocab\.txt, which is missing"):
        find_file("owner/tiny", "vocab.txt")
    assert find_file("owner/tiny", "vocab.txt", required=False) is None
    with pytest.raises(FileNotFoundError, match=r"config\.json is not in the cache, and local_files_only=True"):
        load("owner/other", local_files_only=True)


def test_an_error_of_the_hub_is_told(hub, tmp_path, model):
    hub.add("owner/tiny", tmp_path / "saved")
    hub.private.add("owner/tiny")
    with pytest.raises(FileNotFoundError, match="owner/tiny on the Hub is gated"):
        ElectraModel.from_pretrained("owner/tiny")
    hub.broken = True
    with pytest.raises(FileNotFoundError, match="the Hub cannot be asked: 403 Forbidden: the server says no"):
        find_file("owner/tiny", "config.json")


def test_without_network_the_cache_serves(hub, tmp_path, model, monkeypatch):
    hub.add("owner/tiny", tmp_path / "saved")
    ElectraForPreTraining.from_pretrained("owner/tiny")
    hub.close()
    huggingface_hub.close_session()  # which would keep its connection to the server that was
    assert_same_weights(ElectraForPreTraining.from_pretrained("owner/tiny"), model.state_dict())
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("nothing is asked a second time"))
    monkeypatch.setattr(files, "_heard", {})
    cannot = (
        r"'owner/other' is no directory, .* and the Hub cannot be asked: .*HF_HUB_OFFLINE=1 uses what is in the cache"
    )
    with pytest.raises(FileNotFoundError, match=cannot):
        ElectraForPreTraining.from_pretrained("owner/other")
    monkeypatch.setattr(huggingface_hub, "get_session", lambda: pytest.fail("the answer is remembered"))
    with pytest.raises(FileNotFoundError, match=cannot):
        find_file("owner/other", "tokenizer.json")
    assert find_file("owner/other", "tokenizer.json", required=False) is None


def test_a_damaged_download_is_refused(hub, tmp_path, model):
    hub.add("owner/tiny", tmp_path / "saved")
    hub.repos["owner/tiny"]["main"]["model.safetensors"] = b"version https://git-lfs.github.com/spec/v1\n"
    with pytest.raises(ValueError, match=r"model\.safetensors must be a whole safetensors file"):
        ElectraForPreTraining.from_pretrained("owner/tiny")


def test_push_to_hub(hub, model):
    result = model.push_to_hub("me/pushed", token="secret", private=True, commit_message="First")
    assert result.commit_url == f"{hub.url}/me/pushed/commit/{'0' * 40}"
    assert hub.repos["me/pushed"]["main"].keys() == {"config.json", "model.safetensors"}
    assert hub.tokens == {"Bearer secret"} and hub.private == {"me/pushed"}
    loaded = ElectraForPreTraining.from_pretrained("me/pushed", token="secret")
    assert_same_weights(loaded, model.state_dict())


def test_push_to_a_branch_in_shards(hub, model):
    model.push_to_hub("me/pushed", token="secret", revision="v2", max_shard_size=8000)
    assert hub.repos["me/pushed"]["main"] == {}
    assert_same_weights(ElectraForPreTraining.from_pretrained("me/pushed", revision="v2"), model.state_dict())


def test_save_and_push_uploads_what_it_saved_only(hub, tmp_path, model):
    (tmp_path / "me").mkdir()
    (tmp_path / "me" / "optimizer.pt").write_bytes(b"private")
    model.save_pretrained(tmp_path / "me", push_to_hub=True, token="secret")
    assert hub.repos["me/me"]["main"].keys() == {"config.json", "model.safetensors"}
    model.save_pretrained(tmp_path / "me", push_to_hub=True, token="secret", repo_id="us/other", private=True)
    assert hub.repos["us/other"]["main"].keys() == {"config.json", "model.safetensors"}


def test_everything_that_is_saved_and_pushed_leaves_the_rest_at_home(hub, tmp_path, model):
    """A directory may hold anything: keys, data, the weights of another network."""
    tokenizer = ElectraTokenizer(
        {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"])}
    )
    config = {"config.json"}
    text = {"tokenizer.json", "tokenizer_config.json", "vocab.txt"}
    for name, saved, expected in (
        ("model", model, config | {"model.safetensors"}),
        ("tokenizer", tokenizer, text),
        ("config", model.config, config),
    ):
        directory = tmp_path / name
        (directory / "data").mkdir(parents=True)
        for private in (".env", "data/train.csv", "data/config.json", "optimizer.pt", "vocab.txt.old"):
            (directory / private).write_text("private")
        saved.save_pretrained(directory, push_to_hub=True, token="secret")
        assert hub.repos[f"me/{name}"]["main"].keys() == expected
        saved.save_pretrained(directory, push_to_hub=True, token="secret", repo_id="us/other")
    tokenizer.save_pretrained(tmp_path / "tokenizer", filename_prefix="[a]*", push_to_hub=True, token="secret")
    assert hub.repos["me/tokenizer"]["main"].keys() == text | {f"[a]*-{name}" for name in text}
    tokenizer.push_to_hub("me/alone", token="secret")
    assert hub.repos["me/alone"]["main"].keys() == text


def test_push_directory_uploads_what_it_is_told_only(hub, tmp_path):
    ElectraConfig(**TINY).save_pretrained(tmp_path / "c")
    (tmp_path / "c" / ".saving-x").mkdir()
    (tmp_path / "c" / ".saving-x" / "model.safetensors").write_bytes(b"half")
    (tmp_path / "c" / ".env").write_text("secret")
    (tmp_path / "c" / "config[j].json").write_text("{}")
    push_directory(tmp_path / "c", "me/config", token="secret", files=["config.json", "config[j].json"])
    assert hub.repos["me/config"]["main"].pop("config[j].json")
    assert hub.repos["me/config"]["main"].keys() == {"config.json"}
    assert ElectraConfig.from_pretrained("me/config").hidden_size == TINY["hidden_size"]


def test_a_pushed_model_computes_the_same(hub, model):
    model.push_to_hub("me/pushed", token="secret")
    ids = torch.arange(5, 19).reshape(2, 7)
    with torch.no_grad():
        assert torch.equal(ElectraForPreTraining.from_pretrained("me/pushed")(ids).logits, model(ids).logits)
