"""The repair of a child that does not compute what its parent does: it learns to put out the parent's logits.

Source: the code released with Cai et al., Path-Level Network Transformation for Efficient Architecture Search, ICML
2018, arXiv 1806.02639. Dimension letters: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_gym.networks.morph.errors import MorphError


def mimic(
    child: nn.Module,
    parent: nn.Module,
    images: Tensor,
    generator: torch.Generator,
    epochs: int = 30,
    learning_rate: float = 0.02,
    batch_size: int = 100,
) -> list[float]:
    """Train a child on the squared difference of its logits to the parent's; no labels are used.

    The defaults are those of TreeCell's code, which takes about 1,000 images out of the validation set. Plain SGD with
    a constant learning rate. The parent is evaluated once, in evaluation mode; the child stays in training mode.

    Args:
        child: trained in place: images [N, C, H, W] -> logits [N, K].
        parent: what it shall compute; unchanged.
        images: [N, C, H, W], on the device of both.
        generator: of the order of the images, on the CPU.
        epochs: passes over the images.
        learning_rate: of SGD.
        batch_size: images per update.

    Returns:
        The mean loss of every epoch.

    Raises:
        MorphError: too few images, or logits of two shapes.
    """
    if len(images) < 2:
        raise MorphError(f"mimicry needs at least two images, got {len(images)}.")
    was_training = parent.training
    with torch.no_grad():
        parent.eval()
        wanted = torch.cat([parent(batch) for batch in images.split(batch_size)])
        parent.train(was_training)
    optimiser = torch.optim.SGD(child.parameters(), lr=learning_rate)
    child.train()
    losses = []
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator).to(images.device)
        total = 0.0
        for chosen in order.split(batch_size):
            if len(chosen) < 2 and len(order) > batch_size:
                continue  # A normalisation cannot be trained on one image.
            logits = child(images[chosen])
            if logits.shape != wanted[chosen].shape:
                raise MorphError(f"the child puts out {logits.shape[1:]}, the parent {wanted.shape[1:]} per image.")
            loss = functional.mse_loss(logits, wanted[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += float(loss.detach()) * len(chosen)
        losses.append(total / len(images))
    return losses
