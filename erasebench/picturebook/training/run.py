"""``erasebench picturebook train``: every stage, from nothing to shipped weights."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from erasebench.errors import EraseBenchError
from erasebench.files import prepare_folder, replace_folder
from erasebench.models.export import forget_origin
from erasebench.picturebook.tokenizer import save_tokenizer, train_tokenizer
from erasebench.picturebook.training import loop
from erasebench.picturebook.training import unet as unet_stage
from erasebench.picturebook.training import vae as vae_stage
from erasebench.picturebook.training.data import Renders, cached_renders, caption_ids, join, save_array
from erasebench.picturebook.training.loop import fit
from erasebench.picturebook.weights import WEIGHTS, judge_path, pipeline_path, vae_path, write_manifest

SEED = 20_261_122
SCENES = 40_000
TOKENIZER_CAPTIONS = 20_000
RECONSTRUCTIONS = 12_000
"""The number of training scenes that the judges also see through the VAE."""
STAGES = ("vae", "unet", "judges")
TrainingData = tuple[Tensor, Tensor, Tensor]
"""Latents, token ids and odds of the training scenes, as ``UnetObjective`` takes them."""


def train(
    stage: str = "all",
    device: str = "auto",
    resume: bool = True,
    folder: Path = Path("picturebook-training"),
    threads: int | None = None,
    out: Path = WEIGHTS,
    start: str = "scratch",
    steps: int | None = None,
    processes: int = 1,
) -> None:
    """Train one stage or all of them, and ship what was trained.

    Args:
        stage: ``"vae"``, ``"unet"`` (with the text encoder), ``"judges"`` or ``"all"``.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        resume: go on from the checkpoints in ``folder``; otherwise each stage starts anew.
        folder: working folder: rendered scenes, checkpoints, logs and loss curves.
        threads: CPU threads for torch; its own choice if omitted.
        out: receives the weights and their manifest; a stage needs the earlier stages' weights there.
        start: where a stage without a checkpoint starts: ``"scratch"``, or ``"shipped"`` to train the weights in
            ``out`` further.
        processes: CPU processes that share the batches of the U-Net; several processes with one thread each are faster
            than one process with several threads.
        steps: optimiser steps of the stage instead of its recipe's, for ``"vae"`` and ``"unet"``.

    Raises:
        EraseBenchError: an argument does not fit, the device is not there, weights that a stage needs are missing or
            corrupt, or a folder cannot be written, all found before any work; or training diverged.
    """
    if stage not in (*STAGES, "all"):
        raise EraseBenchError(f"unknown stage '{stage}'; stages: {', '.join(STAGES)}, all")
    if start not in ("scratch", "shipped"):
        raise EraseBenchError(f"unknown start '{start}'; scratch or shipped")
    if steps is not None and stage not in ("vae", "unet"):
        raise EraseBenchError("--steps needs --stage vae or --stage unet")
    if device == "cuda" and not torch.cuda.is_available():
        raise EraseBenchError("no CUDA device is available; use --device cpu")
    target = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    if processes > 1 and stage not in ("unet", "all"):
        raise EraseBenchError("--processes is for the U-Net; use it with --stage unet or all")
    if processes > 1 and target.type == "cuda":
        raise EraseBenchError("--processes is for CPUs; a GPU is kept busy by one process")
    stages = STAGES if stage == "all" else (stage,)
    if start == "shipped" and resume:
        for name in stages:
            _check_unstarted(folder / name)
    _check_needed(stage, start, out)
    # Rendering takes minutes: a folder that cannot be written must not be found after it.
    for path in (folder, out):
        prepare_folder(path)
    if threads:
        torch.set_num_threads(threads)
    renders = cached_renders(folder / "renders", 0, SCENES)
    for name in stages:
        work = folder / name
        if not resume:
            shutil.rmtree(work, ignore_errors=True)
        torch.manual_seed(SEED)
        if name == "vae":
            train_vae(renders, work, target, out, start, steps)
        elif name == "unet":
            train_unet(renders, work, target, out, start, steps, processes)
        else:
            from erasebench.picturebook.training.judges import PEOPLE, train_judges

            count = min(RECONSTRUCTIONS, len(renders))
            reconstructions = cached_reconstructions(renders, count, folder, target, out)
            people = cached_renders(folder / "renders", SCENES, PEOPLE, people=PEOPLE)
            train_judges(join(renders, people), reconstructions, work, target, out, SEED, further=start == "shipped")
        write_manifest(out)
        print(f"{name}: written to {out}", flush=True)


def _check_unstarted(work: Path) -> None:
    if paths := sorted(work.rglob("checkpoint.pt")):
        raise EraseBenchError(
            f"{paths[0]} would be resumed, not the shipped weights: drop --start to go on with it or add --no-resume"
        )


def _check_needed(stage: str, start: str, out: Path) -> None:
    """Verify the weights in ``out`` that a stage reads."""
    shipped = start == "shipped"
    if shipped or stage in ("unet", "judges"):
        _shipped_vae_path(out)
    # The judges read the pipeline's tokenizer.
    if stage == "judges" or (shipped and stage != "vae"):
        pipeline_path(out)
    if shipped and stage in ("judges", "all"):
        for name in ("detector", "clip"):
            judge_path(name, out)


def train_vae(renders: Renders, work: Path, device: torch.device, out: Path, start: str, steps: int | None) -> None:
    """Solve the VAE's encoder, train its decoder and write it."""
    vae = _solved_vae(renders, out, start).to(device)
    recipe = replace(vae_stage.RECIPE, steps=steps or vae_stage.RECIPE.steps)
    fit(vae_stage.VaeObjective(vae, renders, SEED), recipe, work)
    _save_part(vae.half(), out / "pipeline" / "vae")


def train_unet(
    renders: Renders,
    work: Path,
    device: torch.device,
    out: Path,
    start: str,
    steps: int | None,
    processes: int = 1,
) -> None:
    """Train text encoder and U-Net together, in one or several processes, and write the whole pipeline."""
    latents = cached_latents(_shipped_vae(out).to(device), renders, work)
    tokenizer = pipeline_path(out) / "tokenizer" if start == "shipped" else _tokenizer(renders, work / "tokenizer")
    print(f"wording {len(renders)} scenes", flush=True)
    ids = torch.from_numpy(caption_ids(renders, tokenizer, unet_stage.CAPTIONS))
    data = latents, ids, unet_stage.scene_odds(renders.scenes())
    if processes == 1:
        _fit_unet(data, tokenizer, work, device, out, start, steps)
        return
    with tempfile.TemporaryDirectory() as meeting:
        threads = max(1, torch.get_num_threads() // processes)
        arguments = (processes, threads, meeting, data, tokenizer, work, device, out, start, steps)
        torch.multiprocessing.spawn(_unet_process, arguments, nprocs=processes)  # type: ignore[no-untyped-call, attr-defined]


def _unet_process(
    rank: int,
    processes: int,
    threads: int,
    meeting: str,
    data: TrainingData,
    tokenizer: Path,
    work: Path,
    device: torch.device,
    out: Path,
    start: str,
    steps: int | None,
) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    dist.init_process_group("gloo", init_method=f"file://{meeting}/rendezvous", rank=rank, world_size=processes)
    _fit_unet(data, tokenizer, work, device, out, start, steps)
    dist.destroy_process_group()


def _fit_unet(
    data: TrainingData,
    tokenizer: Path,
    work: Path,
    device: torch.device,
    out: Path,
    start: str,
    steps: int | None,
) -> None:
    vae = _shipped_vae(out)
    words: CLIPTokenizer = CLIPTokenizer.from_pretrained(tokenizer)
    if start == "shipped":
        model = load_denoiser(pipeline_path(out))
    else:
        model = unet_stage.Denoiser(
            unet_stage.build_text_encoder(words), unet_stage.build_unet(vae.config.latent_channels)
        )
    recipe = replace(unet_stage.RECIPE, steps=steps or unet_stage.RECIPE.steps)
    fit(unet_stage.UnetObjective(model.to(device), *data, SEED, recipe), recipe, work)
    if loop.rank() == 0:
        save_pipeline(model, vae, words, out / "pipeline")


def load_denoiser(folder: Path) -> unet_stage.Denoiser:
    """Text encoder and U-Net of a pipeline's folder, in single precision."""
    text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder")
    return unet_stage.Denoiser(text_encoder, UNet2DConditionModel.from_pretrained(folder / "unet"))


def save_pipeline(model: unet_stage.Denoiser, vae: AutoencoderKL, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write a diffusers pipeline as it is shipped, in place of what the folder held."""
    # The text encoder stays in single precision: transformers computes in the precision of the file, diffusers in
    # single precision, and a pipeline loaded by its folder's name alone has to run.
    pipeline = StableDiffusionPipeline(
        vae=vae.cpu().half(),
        text_encoder=model.text_encoder.cpu(),
        tokenizer=tokenizer,
        unet=model.unet.cpu().half(),
        scheduler=unet_stage.build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    _replace_folder(folder, lambda target: _save_pipeline(pipeline, target))


def cached_latents(vae: AutoencoderKL, renders: Renders, work: Path) -> Tensor:
    """The scaled latents of all training scenes, kept in ``work`` for this very encoder."""
    fingerprint = _fingerprint(vae.encoder)
    path = work / "latents.pt"
    if path.exists():
        cache = torch.load(path, weights_only=True, mmap=True)
        if cache["fingerprint"] == fingerprint and len(cache["latents"]) == len(renders):
            latents: Tensor = cache["latents"]
            return latents
    print(f"encoding {len(renders)} scenes", flush=True)
    latents = vae_stage.encode_all(vae, renders.images) * vae.config.scaling_factor
    work.mkdir(parents=True, exist_ok=True)
    loop.save_atomically({"fingerprint": fingerprint, "latents": latents}, path)
    return latents


def cached_reconstructions(
    renders: Renders, count: int, folder: Path, device: torch.device, out: Path
) -> NDArray[np.uint8]:
    """The first ``count`` training scenes after a round trip through the shipped VAE."""
    vae = _shipped_vae(out).to(device)
    path = folder / "renders" / f"reconstructions-{count}-{_fingerprint(vae)}.npy"
    if not path.exists():
        save_array(vae_stage.reconstruct(vae, renders.images[:count]), path)
    loaded: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return loaded


def _tokenizer(renders: Renders, folder: Path) -> Path:
    """The folder, with a tokenizer of the scenes' captions in it."""
    if not (folder / "tokenizer.json").exists():
        save_tokenizer(train_tokenizer(renders.captions(np.arange(min(TOKENIZER_CAPTIONS, len(renders))), 0)), folder)
    return folder


def _shipped_vae_path(out: Path) -> Path:
    folder = out / "pipeline" / "vae"
    if not (folder / "config.json").exists():
        raise EraseBenchError(f"no trained VAE in {folder}; run `erasebench picturebook train --stage vae` first")
    return vae_path(out)


def _shipped_vae(out: Path) -> AutoencoderKL:
    vae: AutoencoderKL = AutoencoderKL.from_pretrained(_shipped_vae_path(out))
    return vae.float().eval().requires_grad_(False)


def _solved_vae(renders: Renders, out: Path, start: str) -> AutoencoderKL:
    if start == "shipped":
        vae = _shipped_vae(out)
        vae.decoder.requires_grad_(True)
        vae.post_quant_conv.requires_grad_(True)
        return vae
    vae = vae_stage.build_vae()
    vae_stage.solve_encoder(vae, renders.images[:: max(1, len(renders) // 2048)])
    return vae


def _fingerprint(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for tensor in module.state_dict().values():
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def _save_pipeline(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    pipeline.save_pretrained(folder, safe_serialization=True)
    save_tokenizer(pipeline.tokenizer, folder / "tokenizer")


def _save_part(module: AutoencoderKL, folder: Path) -> None:
    _replace_folder(folder, lambda target: module.save_pretrained(target, safe_serialization=True))


def _replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    def write_without_origin(partial: Path) -> None:
        write(partial)
        forget_origin(partial)

    replace_folder(folder, write_without_origin)
