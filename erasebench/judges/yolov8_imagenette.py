"""YOLOv8 on Imagenette: which of its ten classes an image shows; trained by the user, since nobody publishes weights.

Only the network and, for training, the trainer of ``ultralytics`` are used; the package is imported where it is needed,
because it is heavy and under the AGPL.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from erasebench.errors import EraseBenchError
from erasebench.files import durably
from erasebench.judges.imagenet import IMAGENETTE
from erasebench.judges.networks import from_pil, run_batches
from erasebench.judges.weights_files import OwnFile
from erasebench.judging import Images, Scores
from erasebench.models.loading import resolve_device
from erasebench.plugins import Judge
from erasebench.registry import JUDGES

NAME = "yolov8-imagenette"
NETWORK = "yolov8n-cls.yaml"
SIZE = 224
"""Pixels of the squares that the network reads."""
EPOCHS = 100
"""Of training, ultralytics' own default."""
SPLITS = ("train", "val")
"""The folders of Imagenette."""
WORDNET = (
    "n01440764",
    "n02102040",
    "n02979186",
    "n03000684",
    "n03028079",
    "n03394916",
    "n03417042",
    "n03425413",
    "n03445777",
    "n03888257",
)
"""Imagenette's names of the folders of :data:`IMAGENETTE`."""


def check_file(path: Path) -> None:
    """Raise unless a file is one that :func:`train` wrote, and whole.

    Raises:
        EraseBenchError: it is not.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            written = (file.metadata() or {}).get("judge")
    except SafetensorError:
        written = None
    if written != NAME:
        raise EraseBenchError(f"{path} is cut short or no file that `erasebench train-judge {NAME}` wrote")


WEIGHTS = OwnFile(f"{NAME}.safetensors", f"erasebench train-judge {NAME} --images IMAGENETTE", check_file)


@JUDGES.register("yolov8-imagenette")
class YoloImagenette(Judge):
    """YOLOv8n-cls trained on Imagenette: the probability of each of its ten classes, in [0, 1] (Jocher et al. 2023).

    Meng et al. (2024, Dark Miner) count objects by a YOLOv8 trained on Imagenette, from a confidence of .5 on; they
    give neither its size nor its training, and whether it classifies or detects.  Imagenette has no boxes, so this
    classifies.  ``erasebench train-judge yolov8-imagenette`` trains one; its seed and epochs make it what it is, so
    that rates of two such files are not comparable, and their hash says which one judged.  It knows ten classes only
    and has to decide for one: of an image of something else its probabilities mean little.

    Images are resized to 224 pixels (bilinear) and the middle 224 x 224 is taken, as ultralytics does.
    """

    labels = IMAGENETTE
    weights = (WEIGHTS,)

    def __init__(self) -> None:
        self._network: Any = None

    def identity(self) -> dict[str, str]:
        """Version, and the hash of the user's weights."""
        return {"version": "1", "weights": WEIGHTS.hash()}

    def scores(self, images: Images, prompts: Sequence[str]) -> Scores:
        """One column for each class."""
        device = resolve_device(self.device)
        if self._network is None:
            self._network = load_network(WEIGHTS.find()).to(device)
        from torchvision import transforms

        transform = transforms.Compose([transforms.Resize(SIZE), transforms.CenterCrop(SIZE), transforms.ToTensor()])
        probabilities = run_batches(
            lambda batch: self._network(batch)[0], images, from_pil(transform), len(IMAGENETTE), device
        )
        return Scores(dict(zip(IMAGENETTE, probabilities.T, strict=True)))


def build_network() -> Any:
    """YOLOv8n-cls of ten classes with random weights; in evaluation it gives probabilities ``[b, 10]`` and logits."""
    from erasebench.picturebook.judges.detector import quiet_ultralytics

    with quiet_ultralytics():
        from ultralytics.nn import tasks

    module: Any = tasks  # without types
    return module.ClassificationModel(NETWORK, nc=len(IMAGENETTE), verbose=False)


def load_network(path: Path) -> Any:
    """The network with the weights of a file that :func:`train` wrote, on the CPU."""
    from safetensors.torch import load_file

    network = build_network()
    network.load_state_dict(load_file(path))
    return network.eval().requires_grad_(False)


def train(
    images: Path,
    out: Path,
    epochs: int = EPOCHS,
    seed: int = 0,
    device: str = "auto",
    tell: Callable[[str], object] = print,
) -> None:
    """Train the judge on a local copy of Imagenette, from random weights, with ultralytics' own defaults.

    The weights of the epoch that is best on the validation images are kept, as ultralytics does.

    Args:
        images: the folders ``train`` and ``val``, each with a folder of images for each class, called by its WordNet
            number, as Imagenette has them, or by its label.
        out: the safetensors file to write; one that is there is replaced.
        epochs: passes over the training images.
        seed: of the random weights and the order of images.
        device: where to.
        tell: told after each epoch the share of validation images whose most probable class is right.

    Raises:
        EraseBenchError: a folder is missing or empty, or there is no such device.
    """
    import torch
    from safetensors.torch import save_file

    from erasebench.picturebook.judges.detector import quiet_ultralytics

    classes, device = class_folders(images), resolve_device(device)
    out.parent.mkdir(parents=True, exist_ok=True)
    with quiet_ultralytics(), tempfile.TemporaryDirectory() as name:
        from ultralytics.models.yolo.classify import ClassificationTrainer

        folder = Path(name)
        for split, folders in classes.items():
            for k, theirs in enumerate(folders):
                ours = folder / split / f"{k:02d}"  # it takes the folders by name, and writes beside them
                ours.mkdir(parents=True)
                for image in theirs.iterdir():
                    (ours / image.name).symlink_to(image.resolve())
        options = {"model": NETWORK, "data": name, "imgsz": SIZE, "epochs": epochs, "seed": seed, "device": device}
        # Mixed precision would be tried out with weights that have to be downloaded.
        quiet = {"project": name, "name": "run", "pretrained": False, "amp": False, "plots": False, "verbose": False}
        trainer: Any = ClassificationTrainer(overrides={**options, **quiet})
        trainer.callbacks.clear()  # of services to which it might report
        trainer.add_callback("on_fit_epoch_end", lambda state: tell(_progress(state, epochs)))
        trainer.train()
        trained = torch.load(trainer.best, map_location="cpu", weights_only=False)["model"]  # it was written just now
        state = trained.float().state_dict()
        file = folder / WEIGHTS.name
        save_file(state, file, {"judge": NAME})
        with durably(out) as stream:
            stream.write(file.read_bytes())


def _progress(trainer: Any, epochs: int) -> str:
    """The accuracy of the weights after an epoch; after the last one the trainer asks once more, about the best."""
    which = f"epoch {trainer.epoch + 1} of {epochs}" if trainer.epoch < epochs else "the best epoch, which is kept"
    return f"{which}: top-1 {100 * trainer.metrics['metrics/accuracy_top1']:.1f} %"


def class_folders(images: Path) -> dict[str, list[Path]]:
    """For each of :data:`SPLITS`, the folders of the ten classes in the order of :data:`IMAGENETTE`.

    Raises:
        EraseBenchError: one is missing or empty.
    """
    folders: dict[str, list[Path]] = {}
    for split in SPLITS:
        folders[split] = []
        for number, label in zip(WORDNET, IMAGENETTE, strict=True):
            named = images / split / label
            place = named if named.is_dir() else images / split / number
            folders[split].append(place)
            if not place.is_dir() or not any(place.iterdir()):
                raise EraseBenchError(
                    f"{place}, images of the class '{label}', is missing or empty; {images} is to hold Imagenette as "
                    "it is distributed: https://github.com/fastai/imagenette"
                )
    return folders
