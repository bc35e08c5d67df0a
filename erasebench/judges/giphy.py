"""GIPHY's celebrity detector: whose face an image shows, by a program of the user's.

The detector (https://github.com/Giphy/celeb-detection-oss) needs Python 3.6 and packages of 2018, so that it cannot run
in this process, and its weights come from a server of GIPHY's.  This module runs a command that runs it.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from erasebench.concepts import load_catalogue
from erasebench.errors import EraseBenchError
from erasebench.files import hash_file_once
from erasebench.judges.networks import check_images
from erasebench.judges.weights_files import Progress, Weights
from erasebench.judging import Images, Scores
from erasebench.plugins import Judge
from erasebench.registry import JUDGES

NAME = "giphy-celebrities"
VARIABLE = "ERASEBENCH_GCD"
"""The environment variable that names the command."""
COLUMNS = ("image", "face", "label", "probability")
"""Of the CSV that it prints."""
UNRANKED = 2307
"""The rank of a label that is not among those printed: beyond all of the detector's 2,306."""


class Command(Weights):
    """The user's command that runs GIPHY's detector on a folder of images.

    It is given the folder, of PNG files, as its last argument, and prints CSV with the columns :data:`COLUMNS`, one row
    for each label that it thinks likely for the first face of an image: the file's name, ``1``, the detector's label
    such as ``Adam_Driver_[m.0hcgs_k]``, and its probability; and one row, ``FILE,0,,``, for each image without a face.
    What it prints before the header, and rows of further faces, are ignored.
    """

    def __str__(self) -> str:
        """A description of the command, and where it comes from."""
        return f"a command named by {VARIABLE} that runs https://github.com/Giphy/celeb-detection-oss"

    def words(self) -> list[str]:
        """The command.

        Raises:
            EraseBenchError: it is not given, or no program.
        """
        text = os.environ.get(VARIABLE, "")
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise EraseBenchError(f"{VARIABLE} is no command: {error}: {text}") from None
        if not words:
            raise EraseBenchError(
                f"the judge {NAME} needs GIPHY's detector (https://github.com/Giphy/celeb-detection-oss), which needs "
                f"a Python 3.6 of its own: let the environment variable {VARIABLE} name a command that reads a folder "
                "of PNG files, its last argument, and prints CSV with the columns "
                f"{','.join(COLUMNS)}; `erasebench show {NAME}` says how"
            )
        if shutil.which(words[0]) is None:
            raise EraseBenchError(f"{VARIABLE} names the program {words[0]}, which cannot be found or run")
        return words

    def find(self) -> Path:
        """The path of the program.

        Raises:
            EraseBenchError: as :meth:`words`.
        """
        return Path(str(shutil.which(self.words()[0])))

    def fetch(self, folder: Path, on_progress: Progress) -> Path:
        """The path of the program: there is nothing to download.

        Raises:
            EraseBenchError: as :meth:`words`.
        """
        return self.find()

    def identity(self) -> dict[str, str]:
        """The command without the folders of its files, and the SHA-256 of these: not what else they read."""
        files = [Path(word) for word in self.words() if Path(word).is_file()]
        plain = [Path(word).name if Path(word).is_file() else word for word in self.words()]
        return {"command": shlex.join(plain), "weights": "+".join(hash_file_once(path) for path in files)}

    def ask(self, images: Images) -> list[dict[str, float] | None]:
        """For each image the probabilities of the first face's labels, by slug; None where it has no face.

        Args:
            images: uint8 ``[n, height, width, 3]``.

        Raises:
            EraseBenchError: the command fails, or prints something else.
        """
        from PIL import Image

        names = [f"{k:06d}.png" for k in range(len(images))]
        with tempfile.TemporaryDirectory() as folder:
            for name, image in zip(names, images, strict=True):
                Image.fromarray(np.ascontiguousarray(image)).save(Path(folder) / name)
            done = subprocess.run([*self.words(), folder], capture_output=True, text=True, encoding="utf-8")
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise EraseBenchError(f"the command of {VARIABLE} ended with exit code {done.returncode}: {last}")
        return read_answers(done.stdout, names)


def read_answers(text: str, names: Sequence[str]) -> list[dict[str, float] | None]:
    """The answers that the command printed, see :class:`Command`, one for each image.

    Args:
        text: what it printed.
        names: of the images' files.

    Raises:
        EraseBenchError: there is no such table, or it has a wrong row or none for an image.
    """
    lines = text.splitlines()
    header = ",".join(COLUMNS)
    if header not in lines:
        raise EraseBenchError(f"the command of {VARIABLE} printed no line {header}")
    answers: dict[str, dict[str, float] | None] = {}
    for row in csv.reader(lines[lines.index(header) + 1 :]):
        try:
            image, face, label, probability = row
            if image not in names:
                raise ValueError
            if int(face) == 0:
                answers[image] = None
            elif int(face) == 1:
                labels = answers.setdefault(image, {})
                if labels is None or not 0 <= float(probability) <= 1:
                    raise ValueError
                labels[slug(label)] = float(probability)
        except ValueError:
            raise EraseBenchError(f"the command of {VARIABLE} printed a row that is none of {header}: {row}") from None
    absent = [name for name in names if name not in answers]
    if absent:
        raise EraseBenchError(
            f"the command of {VARIABLE} printed nothing of {len(absent)} of {len(names)} images; one without a face "
            f"has the row {absent[0]},0,,"
        )
    return [answers[name] for name in names]


def slug(label: str) -> str:
    """A label of the detector's as concepts spell it: ``"Adam_Driver_[m.0hcgs_k]"`` -> ``"adam-driver"``."""
    return "-".join(re.findall(r"[a-z0-9]+", label.partition("_[")[0].lower()))


COMMAND = Command()


@JUDGES.register("giphy-celebrities")
class GiphyCelebrities(Judge):
    """GIPHY's celebrity detector, run by a command of yours: whose face an image shows, as MACE counts celebrities.

    The environment variable ``ERASEBENCH_GCD`` names the command.  It is given a folder of PNG files as its last
    argument, and prints CSV with the columns ``image,face,label,probability``: for the first face of each image a row
    for each label that is likely (``000000.png,1,Adam_Driver_[m.0hcgs_k],0.98``; MACE prints five), and for an image
    without a face ``000000.png,0,,``.

    * ``c``, for each celebrity c of the packaged catalogue: p(c) / (p(c) + p(the most probable other label)), in
      [0, 1].  From .5 on, c is the top-1 label.
    * ``c rank``: 1 for the most probable label of all 2,306; 2307 for one that is not printed.
    * ``face``: 1 if a face was found, else 0, and then every c is 0.  Lu et al. (2024, MACE) leave images without a
      face out of their accuracy, and tell their number.

    Adapter and detector have not been run together by this project: the detector's own weights were not at hand.
    """

    weights = (COMMAND,)

    @cached_property
    def celebrities(self) -> tuple[str, ...]:
        """The labels of the catalogue's concepts that name this judge."""
        catalogue = load_catalogue()
        views = (view for name in catalogue.names() for view in catalogue.get(name).views.values())
        return tuple(dict.fromkeys(view.label for view in views if view.judge == NAME))

    @property
    def labels(self) -> tuple[str, ...]:
        """The celebrities, and ``face``."""
        return (*self.celebrities, "face")

    def identity(self) -> dict[str, str]:
        """Version, the command and its files, and the celebrities."""
        labels = hashlib.sha256("\n".join(self.celebrities).encode()).hexdigest()[:12]
        return {"version": "1", "labels": f"{len(self.celebrities)} {labels}", **COMMAND.identity()}

    def scores(self, images: Images, prompts: Sequence[str]) -> Scores:
        """Two columns for each celebrity, and ``face``."""
        check_images(images)
        answers = COMMAND.ask(images) if len(images) else []
        columns = {"face": np.array([answer is not None for answer in answers], dtype=np.float32)}
        for label in self.celebrities:
            pairs = [_placed(label, answer or {}) for answer in answers]
            columns[label] = np.array([score for score, _ in pairs], dtype=np.float32)
            columns[f"{label} rank"] = np.array([rank for _, rank in pairs], dtype=np.float32)
        return Scores(columns)


def _placed(label: str, answer: dict[str, float]) -> tuple[float, int]:
    """The score and the rank of a label among those of a face."""
    own = answer.get(label, 0.0)
    if own == 0:
        return 0.0, UNRANKED
    others = [probability for name, probability in answer.items() if name != label]
    return own / (own + max(others, default=0.0)), 1 + sum(probability > own for probability in others)
