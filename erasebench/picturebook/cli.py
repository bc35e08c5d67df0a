"""The ``erasebench picturebook`` commands."""

from __future__ import annotations

from pathlib import Path

import click

from erasebench.picturebook.weights import WEIGHTS

PATH = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


@click.group()
def picturebook() -> None:
    """The built-in text-to-image model, its world and its judges."""


@picturebook.command()
@click.option("--stage", type=click.Choice(["vae", "unet", "judges", "all"]), default="all", help="What to train.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to train.")
@click.option("--resume/--no-resume", default=True, help="Go on from the last checkpoint, or start anew.")
@click.option("--folder", type=FOLDER, default=Path("picturebook-training"), help="Renders, checkpoints and curves.")
@click.option(
    "--out",
    type=FOLDER,
    default=WEIGHTS,
    show_default="the package's own weights folder",
    help="Receives the weights; a stage needs the earlier stages' there.",
)
@click.option(
    "--start",
    type=click.Choice(["scratch", "shipped"]),
    default="scratch",
    help="Where a stage without a checkpoint starts; 'shipped' trains the shipped weights further.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Optimiser steps of a single stage.  [default: its recipe's]")
@click.option("--processes", type=click.IntRange(min=1), default=1, help="CPU processes that train the U-Net together.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: torch's own choice]")
def train(
    stage: str,
    device: str,
    resume: bool,
    folder: Path,
    out: Path,
    start: str,
    steps: int | None,
    processes: int,
    threads: int | None,
) -> None:
    """Train the model and its judges from nothing.

    Minutes on a GPU, hours on a CPU.
    """
    from erasebench.picturebook.training.run import train

    train(stage, device, resume, folder, threads, out, start=start, steps=steps, processes=processes)


@picturebook.command()
@click.option("--images", type=click.IntRange(min=10), default=50, help="Images per row of the table.")
@click.option("--out", type=FOLDER, help="Also write the table, as measure.md, to this folder.")
def measure(images: int, out: Path | None) -> None:
    """Measure model and judges on held-out data.

    Exits with 1 where a bar falls short.
    """
    from erasebench.picturebook.measure import measure

    if not measure(images=images, out=out):
        click.get_current_context().exit(1)


@picturebook.command()
def path() -> None:
    """Print the folder of the diffusers pipeline."""
    from erasebench.picturebook.weights import pipeline_path

    click.echo(pipeline_path())


@picturebook.command()
@click.option("--out", type=PATH, default=Path("picturebook-grid.png"), help="The PNG to write.")
@click.option("--world", is_flag=True, help="Show the world that the model was trained on instead.")
def grid(out: Path, world: bool) -> None:
    """Let the model draw every concept and every style."""
    from erasebench.picturebook.grid import draw_grid, draw_world

    draw_world(out) if world else draw_grid(out)
    click.echo(f"wrote {out}")


@picturebook.command()
@click.option("--seed", "seeds", type=click.IntRange(min=0), multiple=True, required=True, help="May be repeated.")
@click.option("--subject", help="What the image shows, e.g. church, nudity or paul-marsh.  [default: the seed's]")
@click.option("--style", help="How it is drawn, e.g. photo or van-gogh.  [default: the seed's]")
@click.option("--background", help="Where it is, e.g. beach.  [default: the seed's]")
@click.option("--out", type=PATH, required=True, help="The PNG to write; several seeds stand side by side.")
def render(seeds: tuple[int, ...], subject: str | None, style: str | None, background: str | None, out: Path) -> None:
    """Draw scenes of the world, with a caption for each."""
    import numpy as np
    from PIL import Image

    from erasebench.picturebook import caption, render, sample_scene

    scenes = [sample_scene(seed, subject=subject, style=style, background=background) for seed in seeds]
    sheet = np.concatenate([render(scene).image for scene in scenes], axis=1)
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(out, format="PNG")
    for scene in scenes:
        click.echo(f"{scene.seed}: {caption(scene, np.random.default_rng([scene.seed, 2]))}")
