"""Weights and prompts are fetched from a server on this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from erasebench import cli, fetching
from erasebench.concepts import Catalogue, Hub, PromptSet, Selection
from erasebench.errors import EraseBenchError
from erasebench.fetching import list_files
from erasebench.judges import weights_files
from erasebench.judges.resnet50 import ResNet50
from erasebench.judges.weights_files import FOLDER, WeightFile
from erasebench.prompt_sets import fetched_file, state

CONTENT = bytes(range(256)) * 40


@dataclass
class Server:
    """A server of one file.

    Attributes:
        url: of the file.
        ranges: whether it continues.
        stops_after: bytes after which it hangs up, once.
        asked: the ranges that were asked for.
    """

    url: str = ""
    ranges: bool = True
    stops_after: int | None = None
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers["Range"]
            state.asked.append(wanted)
            if self.path != "/net.pth":
                return self.send_error(404)
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and state.ranges else 0
            if start >= len(CONTENT):
                return self.send_error(416)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.end_headers()
            stop, state.stops_after = state.stops_after, None
            self.wfile.write(CONTENT[start:stop])

        def log_message(self, format: str, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        state.url = f"http://127.0.0.1:{http.server_port}/net.pth"
        yield state
        http.shutdown()
        thread.join()


@pytest.fixture
def file(server: Server, monkeypatch: pytest.MonkeyPatch) -> WeightFile:
    """The file that resnet50 needs, as the server has it."""
    made = WeightFile("net.pth", server.url, sha256(CONTENT).hexdigest()[:8])
    monkeypatch.setattr(ResNet50, "weights", (made,))
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of weights, which does not exist."""
    monkeypatch.setenv(FOLDER, str(tmp_path / "weights"))
    return tmp_path / "weights"


def fetch(name: str, into: Path | None = None) -> list[str]:
    """Fetch, and return what was told."""
    told: list[str] = []
    fetching.fetch(name, into, told.append, lambda done, total: None)
    return told


def test_a_file_is_fetched_once(file: WeightFile, folder: Path, server: Server) -> None:
    steps: list[tuple[int, int | None]] = []
    assert file.fetch(folder, lambda *step: steps.append(step)) == folder / "net.pth" == file.find()
    assert (folder / "net.pth").read_bytes() == CONTENT and [path.name for path in folder.iterdir()] == ["net.pth"]
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert fetch("resnet50") == [f"there already: {folder / 'net.pth'}"]
    assert file.fetch(folder, lambda *step: None) == folder / "net.pth"
    assert server.asked == [None]


def test_what_broke_off_is_continued(file: WeightFile, folder: Path, server: Server) -> None:
    server.stops_after = 3000
    with pytest.raises(EraseBenchError) as error:
        fetch("resnet50")
    message = str(error.value)
    assert message.startswith(f"cannot fetch net.pth from {server.url} into {folder}: ")
    assert "3,000" in message and "what came is kept, to go on from" in message
    assert not (folder / "net.pth").exists()
    fetch("resnet50")
    assert (folder / "net.pth").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=3000-"]


def test_a_server_that_does_not_continue_sends_all_again(file: WeightFile, folder: Path, server: Server) -> None:
    folder.mkdir()
    (folder / "net.pth.partial").write_bytes(b"something else")
    server.ranges = False
    fetch("resnet50")
    assert (folder / "net.pth").read_bytes() == CONTENT


def test_all_bytes_but_no_name_yet(file: WeightFile, folder: Path) -> None:
    folder.mkdir()
    (folder / "net.pth.partial").write_bytes(CONTENT)
    fetch("resnet50")
    assert (folder / "net.pth").read_bytes() == CONTENT


@pytest.mark.parametrize("partial", [b"something else", bytes(len(CONTENT))])
def test_another_file_is_removed(file: WeightFile, folder: Path, server: Server, partial: bytes) -> None:
    folder.mkdir()
    (folder / "net.pth.partial").write_bytes(partial)  # of another version, say
    with pytest.raises(EraseBenchError, match=rf"cut short or another one: .* not with {file.sha256}; it is removed"):
        fetch("resnet50")
    assert not list(folder.iterdir())
    fetch("resnet50")
    assert (folder / "net.pth").read_bytes() == CONTENT


def test_a_file_of_the_users_own_is_left_alone(file: WeightFile, folder: Path) -> None:
    folder.mkdir()
    (folder / "net.pth").write_bytes(b"mine")
    with pytest.raises(EraseBenchError, match=r"cut short or another one: .*; remove it, then fetch it again"):
        fetch("resnet50")
    assert (folder / "net.pth").read_bytes() == b"mine"


def test_no_network_is_a_clear_error(file: WeightFile, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away = replace(file, url="http://127.0.0.1:9/net.pth")
    monkeypatch.setattr(ResNet50, "weights", (away,))
    with pytest.raises(
        EraseBenchError, match=rf"cannot fetch net\.pth from {away.url} into {folder}: .*bring the file there"
    ):
        fetch("resnet50")


def test_a_file_that_is_gone_is_a_clear_error(
    file: WeightFile, folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = replace(file, url=server.url + "x")
    monkeypatch.setattr(ResNet50, "weights", (gone,))
    with pytest.raises(EraseBenchError, match=r"cannot fetch net\.pth .*: Not Found"):
        fetch("resnet50")
    assert not list(folder.iterdir())


def test_a_server_that_is_silent_is_given_up(file: WeightFile, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(weights_files, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        deaf = replace(file, url=f"http://127.0.0.1:{silent.getsockname()[1]}/net.pth")
        with pytest.raises(EraseBenchError, match=r"cannot fetch net\.pth .*: timed out"):
            deaf.fetch(folder, lambda *step: None)


def test_packages_have_nothing_to_fetch(folder: Path) -> None:
    told = fetch("efficientnet-lite0")
    assert len(told) == 2 and all(line.startswith("there already: ") for line in told)
    assert fetch("picturebook-clip")[0].startswith("nothing to fetch: clip.safetensors, which ships with erasebench")


def test_the_list_says_what_is_there(file: WeightFile, folder: Path) -> None:
    def line() -> str:
        return next(line for line in list_files() if line.startswith("resnet50 "))

    assert re.fullmatch(rf"resnet50 +missing  net\.pth from {file.url}", line())
    fetch("resnet50")
    assert re.fullmatch(rf"resnet50 +there    net\.pth from {file.url}", line())
    assert {line.split()[0] for line in list_files()} >= {"nudenet", "open-nsfw", "q16", "grounded-sam"}


# Prompt sets

MINE = PromptSet(
    name="mine",
    title="my prompts",
    url="https://example.org/mine",
    rows=(2,),
    concepts={"church": Selection()},
    hub=Hub("org/mine", "folder/prompts.csv", "c0ffee"),
)
TABLE = b"prompt\na church\na chapel\n"


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch, server: Server) -> dict[str, PromptSet]:
    """Prompt sets of the hub, of a server, of a page and of the catalogue."""
    elsewhere = replace(MINE, hub=None)
    kept = replace(elsewhere, name="kept", concepts={"church": Selection(prompts=("x",))})
    sets = (MINE, replace(elsewhere, name="served", download=server.url), replace(elsewhere, name="page"), kept)
    monkeypatch.setattr(fetching, "load_catalogue", lambda: Catalogue((), prompt_sets=sets))
    return {each.name: each for each in sets}


def test_prompts_come_from_the_hub_by_its_own_client(
    mine: dict[str, PromptSet], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, str, str]] = []
    (tmp_path / "cached").write_bytes(TABLE)

    def download(dataset: str, file: str, repo_type: str, revision: str) -> str:
        asked.append((dataset, file, repo_type, revision))
        return str(tmp_path / "cached")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    path = folder / "prompt-sets" / "mine.csv"
    assert fetched_file(MINE) == path and state(MINE) == "missing"
    assert fetch("mine")[-1] == f"there now: {path}, 2 prompts"
    assert path.read_bytes() == TABLE and state(MINE) == "there"
    assert fetch("mine") == [f"there already: {path}, 2 prompts"]
    assert asked == [("org/mine", "folder/prompts.csv", "dataset", "c0ffee")]
    told = fetch("mine", tmp_path / "there")
    assert told[-1] == f"name it in runs: --prompt-sets mine={tmp_path / 'there' / 'mine.csv'}"
    assert any(re.fullmatch(r"mine +there +prompts from https://example.org/mine", line) for line in list_files())


def test_prompts_without_a_network(mine: dict[str, PromptSet], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(EraseBenchError) as error:
        fetch("mine")
    assert str(error.value).startswith(
        "cannot fetch folder/prompts.csv of the data set org/mine on the Hugging Face hub"
    )
    assert str(error.value).endswith(
        "where there is a network: hf download --repo-type dataset org/mine folder/prompts.csv --revision c0ffee, and "
        "give the file by --prompt-sets mine=prompts.csv"
    )


def test_prompts_of_a_server_are_checked(
    mine: dict[str, PromptSet], folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "CONTENT", TABLE + b"one too many\n")
    with pytest.raises(EraseBenchError, match=r"served.csv has 3 rows, but served has 2: .*; what came is removed"):
        fetch("served")
    assert not list((folder / "prompt-sets").iterdir())
    monkeypatch.setitem(globals(), "CONTENT", TABLE)
    assert fetch("served")[-1] == f"there now: {folder / 'prompt-sets' / 'served.csv'}, 2 prompts"


def test_prompts_that_cannot_be_fetched_or_need_not(mine: dict[str, PromptSet], folder: Path) -> None:
    with pytest.raises(EraseBenchError, match=r"get the file from https://example.org/mine and give it by --prompt"):
        fetch("page")
    assert fetch("kept") == ["nothing to fetch: the prompts are part of erasebench; --prompt-sets kept=auto asks them"]
    with pytest.raises(EraseBenchError, match="unknown judge or prompt set 'serve'; nearest: served"):
        fetch("serve")


def test_from_the_command_line(
    file: WeightFile, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for args, code in (
        (["fetch", "resnet50", "--into", str(tmp_path / "there")], 0),
        (["fetch"], 0),
        (["fetch", "--into", "x"], 2),
        (["fetch", "resnet"], 2),
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.main(args)
        assert stopped.value.code == code, args
    out, err = capsys.readouterr()
    assert (tmp_path / "there" / "net.pth").read_bytes() == CONTENT
    assert f"let the environment variable {FOLDER} name {tmp_path / 'there'}" in out.replace("\n", " ")
    assert "error: --into needs a judge or a prompt set" in err
    assert "unknown judge or prompt set 'resnet'; nearest: resnet50" in err
