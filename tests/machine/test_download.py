"""csl.machine.download and published weights by name, against a server on the loopback address."""

import hashlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from csl import InputError, checkpoint
from csl import __main__ as tools
from csl.inference.sources import checkpoint_path
from csl.machine.download import download, file_sha256
from csl.models import create_model, zoo
from csl.runs.config import TrainConfig

NAME = "csl_opim_86.72"
FILE = "CSL/opim_v6/mtresnet_opim_86.72.pth"
LOCAL = Path("pretrained_weights/mtresnet_opim_86.72.pth")


class Server(ThreadingHTTPServer):
    """Serves `files` (path -> bytes) and notes the Range header of every GET.

    `cuts` are the bytes after which the first answers break off; `ranges` whether it knows Range; `page` makes it answer
    with a web page.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cuts, self.ranges, self.page, self.asked = {}, [], True, False, []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.answer(None)

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        self.answer(asked)

    def answer(self, asked):
        content = self.server.files.get(self.path.lstrip("/"))
        if content is None:
            self.send_error(404)
            return
        start = int(re.match(r"bytes=(\d+)-", asked)[1]) if asked and self.server.ranges else 0
        if start and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if asked and self.server.ranges else 200)
        if asked and self.server.ranges:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Type", "text/html" if self.server.page else "application/octet-stream")
        self.send_header("Content-Length", str(len(content) - start))
        # What the client of timm's hub asks for.
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if self.command == "GET":
            rest = content[start:]
            self.wfile.write(rest[: self.server.cuts.pop(0)] if self.server.cuts else rest)
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A running server that is the zoo, and an empty working folder."""
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("CSL_ZOO_URL", server.url)
        yield server
        server.shutdown()


@pytest.fixture
def small(server, tmp_path):
    """The bytes of a small file of tensors, served as the published file."""
    torch.manual_seed(0)
    torch.save({"model": {"w": torch.randn(50_000)}}, tmp_path / "small.pth")
    server.files[FILE] = (tmp_path / "small.pth").read_bytes()
    return server.files[FILE]


def fetch():
    return zoo.fetch(NAME, check=checkpoint.check_whole)


def nothing_left():
    return not LOCAL.exists() and not LOCAL.with_name(LOCAL.name + ".part").exists()


def test_once_and_recorded(server, small, capsys):
    path = fetch()
    assert path == LOCAL
    assert path.read_bytes() == small
    assert f"downloading {server.url}/{FILE} to {LOCAL}" in capsys.readouterr().out
    assert json.loads(Path("pretrained_weights/hashes.json").read_text()) == {
        LOCAL.name: {"sha256": hashlib.sha256(small).hexdigest(), "bytes": len(small)}
    }
    assert fetch() == path
    assert server.asked == [None]
    assert sorted(p.name for p in LOCAL.parent.iterdir()) == ["hashes.json", LOCAL.name]


def test_a_broken_connection_is_taken_up_where_it_broke(server, small):
    server.cuts = [1000, 20_000]
    assert fetch().read_bytes() == small
    assert server.asked == [None, "bytes=1000-", "bytes=21000-"]


def test_an_earlier_download_is_gone_on_with(server, small):
    LOCAL.parent.mkdir()
    LOCAL.with_name(LOCAL.name + ".part").write_bytes(small[:70_000])
    assert fetch().read_bytes() == small
    assert server.asked == ["bytes=70000-"]


@pytest.mark.parametrize("extra", [b"", b"longer"])
def test_a_part_that_is_whole_or_too_long(server, small, extra):
    LOCAL.parent.mkdir()
    LOCAL.with_name(LOCAL.name + ".part").write_bytes(small + extra)
    assert fetch().read_bytes() == small
    assert server.asked == [f"bytes={len(small + extra)}-"] + ([None] if extra else [])


def test_a_server_without_range_starts_again(server, small):
    server.ranges, server.cuts = False, [1000]
    assert fetch().read_bytes() == small
    assert server.asked == [None, "bytes=1000-"]


def test_a_download_that_never_gets_through_keeps_its_part(server, small):
    server.cuts = [1000, 0]
    with pytest.raises(
        InputError, match=f"{NAME}: not downloaded, .* broke off at 1,000 of .* bytes are kept"
    ) as caught:
        fetch()
    assert "\n" not in str(caught.value)
    assert not LOCAL.exists()
    assert fetch().read_bytes() == small
    assert server.asked == [None, "bytes=1000-", "bytes=1000-"]


def test_no_file_and_no_network_say_where_the_file_goes(server, monkeypatch):
    with pytest.raises(InputError, match=f"404 .*by hand, the file goes to {LOCAL}"):
        fetch()
    monkeypatch.setenv("CSL_ZOO_URL", "http://127.0.0.1:9/mirror/")
    with pytest.raises(InputError, match=f"127.0.0.1:9/mirror/CSL.*refused.*by hand, the file goes to {LOCAL}"):
        fetch()
    assert nothing_left()


def test_a_web_page_is_no_file(server, small):
    server.page = True
    with pytest.raises(InputError, match="a web page, expected a file of weights"):
        fetch()
    assert nothing_left()


def test_a_damaged_file_is_refused_and_not_recorded(server, small):
    middle = len(small) // 2
    server.files[FILE] = small[:middle] + bytes(b ^ 0xFF for b in small[middle : middle + 64]) + small[middle + 64 :]
    with pytest.raises(InputError, match="not the right one, and was removed"):
        fetch()
    assert nothing_left()
    assert not Path("pretrained_weights/hashes.json").exists()
    server.files[FILE] = small[: len(small) // 2]  # cut short on the server
    with pytest.raises(InputError, match="not the right one, and was removed .*cut short"):
        fetch()
    server.files[FILE] = small
    assert fetch().read_bytes() == small


def test_a_file_that_changed_is_noticed_here_and_there(server, small, tmp_path):
    fetch()
    LOCAL.write_bytes(small[:-1] + b"x")
    with pytest.raises(InputError, match=rf"{LOCAL}: SHA-256 \w+, expected \w+ as first downloaded; delete the file"):
        fetch()
    LOCAL.unlink()
    torch.save({"model": {"w": torch.zeros(3)}}, tmp_path / "other.pth")
    server.files[FILE] = (tmp_path / "other.pth").read_bytes()
    with pytest.raises(InputError, match="not the right one, and was removed"):
        fetch()
    assert nothing_left()
    server.files[FILE] = small
    assert fetch().read_bytes() == small


def test_two_at_once_fetch_it_once(server, small):
    threads = [threading.Thread(target=download, args=(f"{server.url}/{FILE}", "two.pth")) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.asked == [None]
    assert file_sha256("two.pth") == hashlib.sha256(small).hexdigest()


def test_a_file_put_there_by_hand_is_taken_as_it_is(server):
    LOCAL.parent.mkdir()
    LOCAL.write_bytes(b"anything")
    assert fetch() == LOCAL
    assert server.asked == []


def test_a_published_release_by_name_to_a_network(server, tmp_path, capsys):
    torch.manual_seed(1)
    net = create_model("tresnet_m", 6, bottleneck_head=True).eval()
    state = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    release = {"model": state, "num_classes": 6, "idx_to_class": {i: f"/m/{i}" for i in range(6)}}
    torch.save(release, tmp_path / "release.pth", _use_new_zipfile_serialization=False)  # as files of those years are
    server.files[FILE] = (tmp_path / "release.pth").read_bytes()
    assert checkpoint_path(NAME) == LOCAL
    loaded, read = checkpoint.load_model(NAME)
    assert (read.model_name, read.head, read.num_classes, read.path) == ("tresnet_m", "bottleneck", 6, LOCAL)
    assert read.classes == [f"/m/{i}" for i in range(6)]
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(x), net(x))
    from csl.labels.class_set import ClassSet
    from csl.training.experiment import create_network

    _, line = create_network(TrainConfig(model_path=NAME), ClassSet(list("abc"), list("abc")))
    assert f"{LOCAL}: 372 tensors loaded" in line
    assert len(server.asked) == 1
    assert tools.main(["zoo", "get", NAME]) == 0
    assert tools.main(["zoo", "describe", NAME]) == 0
    out = capsys.readouterr().out
    assert f"{LOCAL}: tresnet_m, bottleneck head, 6 classes" in out
    assert f"parameters     {sum(p.numel() for p in net.parameters()):,}" in out


def test_timm_weights_come_from_its_hub(server, tmp_path, monkeypatch):
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(2)
    net = timm.create_model("resnet18", num_classes=5).eval()
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    repository = timm.get_pretrained_cfg("resnet18").hf_hub_id
    server.files[f"{repository}/resolve/main/model.safetensors"] = (tmp_path / "net.safetensors").read_bytes()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    loaded, _ = checkpoint.load_model("timm/resnet18", "resnet18")
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in loaded.state_dict().items())
    with pytest.raises(
        InputError, match=r"timm/tresnet_m.miil_in1k: not downloaded .*goes to pretrained_weights/tresnet_m.m"
    ):
        zoo.fetch("timm/tresnet_m.miil_in1k")
    with pytest.raises(InputError, match="timm/tresnet_m.other: timm has no weights of this name"):
        zoo.fetch("timm/tresnet_m.other")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    begun = time.monotonic()
    assert zoo.fetch("timm/resnet18").read_bytes() == server.files[f"{repository}/resolve/main/model.safetensors"]
    with pytest.raises(InputError, match="timm/resnet34: not downloaded .*Connection refused"):
        zoo.fetch("timm/resnet34")
    assert time.monotonic() - begun < 3  # the hub's own client tries for half a minute
    by_hand = zoo.local_path("timm/tresnet_m.miil_in1k")
    by_hand.parent.mkdir()
    by_hand.write_bytes(b"anything")
    assert zoo.fetch("timm/tresnet_m.miil_in1k") == by_hand
