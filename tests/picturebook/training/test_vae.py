"""The autoencoder: its encoder is solved, not trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from erasebench.picturebook.training import vae as vae_stage
from erasebench.picturebook.training.data import Renders, render_many


@pytest.fixture(scope="module")
def renders() -> Renders:
    return render_many(0, 100, workers=1)


@pytest.fixture(scope="module")
def solved(renders: Renders) -> tuple[object, np.ndarray]:
    vae = vae_stage.build_vae()
    images = renders.images
    vae_stage.solve_encoder(vae, images)
    return vae, vae_stage.encode_all(vae, images).float().numpy()


@pytest.mark.slow
def test_the_encoder_is_a_patch_pca(solved: tuple[object, np.ndarray], renders: Renders) -> None:
    # The reference: a singular value decomposition of all 4x4x3 patches, which the weights never see.
    patches = renders.images.reshape(-1, 16, 4, 16, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 48) / 127.5 - 1.0
    centred = patches - patches.mean(axis=0)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    scores = centred @ axes[:8].T
    latents = solved[1].transpose(0, 2, 3, 1).reshape(-1, 8)
    for k in range(8):
        correlation = np.corrcoef(scores[:, k], latents[:, k])[0, 1]
        # Neighbouring components of nearly equal variance may mix, since the encoder first drops 4 of 12 dimensions.
        assert abs(correlation) > (0.99 if k < 3 else 0.9), (k, correlation)
    design = np.c_[latents, np.ones(len(latents))]
    residual = patches - design @ np.linalg.lstsq(design, patches, rcond=None)[0]
    optimum = (values[8:] ** 2).sum()
    assert optimum <= (residual**2).sum() < 1.15 * optimum


def test_latents_have_unit_variance_and_the_stated_posterior(
    solved: tuple[object, np.ndarray], renders: Renders
) -> None:
    vae: object = solved[0]
    assert solved[1].std() == pytest.approx(1, abs=0.05)
    images = vae_stage.to_unit(renders.images[:4], torch.device("cpu"))
    posterior = vae.encode(images).latent_dist  # type: ignore[attr-defined]
    assert torch.allclose(posterior.std, torch.tensor(vae_stage.POSTERIOR_STD), rtol=1e-4)
    assert not any(p.requires_grad for p in vae.encoder.parameters())  # type: ignore[attr-defined]
    assert all(p.requires_grad for p in vae.decoder.parameters())  # type: ignore[attr-defined]


def test_psnr_against_the_definition() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, size=(3, 64, 64, 3), dtype=np.uint8) for _ in range(2))
    expected = [
        20 * np.log10(255)
        - 10 * np.log10(np.mean([(float(p) - float(q)) ** 2 for p, q in zip(x.flat, y.flat, strict=True)]))
        for x, y in zip(a, b, strict=True)
    ]
    assert vae_stage.psnr(a, b) == pytest.approx(expected)
    assert vae_stage.psnr(a, a).min() > 100
