"""The commands of judges: ``fetch``, which brings prompt sets too, ``train-judge`` and ``validate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from erasebench.completion import complete_name
from erasebench.errors import EraseBenchError
from erasebench.terminal import write_result


@click.command()
@click.argument("name", required=False, shell_complete=complete_name("judges", "prompt-sets"))
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the files.  [default: $ERASEBENCH_WEIGHTS or ~/.cache/erasebench/weights]",
)
def fetch(name: str | None, into: Path | None) -> None:
    """Download a judge's weights or a prompt set.

    Checks what comes, and goes on where a download broke off.  Without a name: list what each judge needs and which
    prompt sets there are, where they come from, and whether they are there.
    """
    from erasebench.fetching import fetch, list_files

    if name is None:
        if into is not None:
            raise EraseBenchError("--into needs a judge or a prompt set to fetch")
        write_result("\n".join(list_files()))
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    with Progress(
        BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task(name, total=None)
        fetch(name, into, write_result, lambda done, total: bar.update(task, completed=done, total=total))


@click.command()
@click.argument("judge")
@click.option(
    "--images",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of training images: for yolov8-imagenette Imagenette as it is distributed, with train and val.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File for the weights.  [default: where the judge looks for them]",
)
@click.option("--epochs", type=click.IntRange(min=1), default=100, help="Passes over the training images.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the first weights and the order of images.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
def train_judge(judge: str, images: Path, out: Path | None, epochs: int, seed: int, device: str) -> None:
    """Train a judge whose weights nobody publishes.

    There is one, yolov8-imagenette: YOLOv8n-cls on your copy of Imagenette (https://github.com/fastai/imagenette).
    """
    from erasebench.errors import check_name
    from erasebench.judges.weights_files import weights_folder
    from erasebench.judges.yolov8_imagenette import NAME, WEIGHTS, train

    check_name("judge that can be trained", judge, (NAME,))
    path = weights_folder() / WEIGHTS.name if out is None else out
    train(images, path, epochs, seed, device, write_result)
    write_result(f"wrote {path}")


@click.command()
@click.argument("judges", metavar="JUDGE...", nargs=-1, required=True, shell_complete=complete_name("judges"))
@click.option(
    "--images",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder with the folders positive and negative, or with labels.csv (columns file, shows: 1 or 0).  [default: "
    "renders of Picturebook's world]",
)
@click.option("--scenes", type=click.IntRange(min=2), default=200, help="Renders that show each label.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="CSV file for the counts.")
def validate(judges: Sequence[str], images: Path | None, scenes: int, device: str, out: Path | None) -> None:
    """Measure how often a judge is right.

    Sensitivity, specificity and AUC on images of which you know what they show: erasebench validate
    "nudenet[label=FACE_FEMALE;threshold=0.5]" --images faces.  Label, threshold or profile stand in brackets, as in
    run's --judges.
    """
    from erasebench.validation import validate, write_validations

    validations = [one for judge in judges for one in validate(judge, images, scenes, device)]
    for one in validations:
        write_result("\n".join(one.lines()))
    if out is not None:
        write_validations(out, validations)
