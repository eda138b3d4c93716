"""Neural Cleanse for one label at a time, written for comparison: autograd, torch's Adam, plain numbers."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

EPSILON = 1e-7


def squash(raw):
    return torch.tanh(raw) / (2 - EPSILON) + 0.5


def find(module, batches_of, mask, pattern, label, *, epochs, rate=0.1, initial=1e-3, threshold=0.99, patience=5,
         multiplier=2.0, stop_patience=None):  # fmt: skip
    """(norm, best mask, epochs run); ``batches_of(epoch)`` yields images in [0, 1]; mask and pattern are raw."""
    mask, pattern = mask.clone().requires_grad_(), pattern.clone().requires_grad_()
    adam = torch.optim.Adam([pattern, mask], lr=rate, betas=(0.5, 0.9))
    cost, best, best_mask = 0.0, math.inf, None
    set_count = up_count = down_count = still = 0
    went_up = went_down = False
    before = math.inf
    for epoch in range(epochs):
        hits = seen = 0
        norms = []
        for images in batches_of(epoch):
            m = squash(mask)
            logits = module((1 - m) * images + m * squash(pattern))
            goal = torch.full((len(images),), label)
            loss = functional.cross_entropy(logits, goal) + cost * m.abs().sum()
            adam.zero_grad()
            loss.backward()
            adam.step()
            norms.append(float(m.detach().double().abs().sum()))
            hits += int((logits.argmax(1) == goal).sum())
            seen += len(images)
        success, norm = hits / seen, sum(norms) / len(norms)
        if success >= threshold and norm < best:
            best, best_mask = norm, squash(mask.detach()).clone()
        if stop_patience is not None:
            if best < math.inf:
                still = still + 1 if best >= before else 0
            before = min(best, before)
            if went_up and went_down and still >= stop_patience:
                return float(best_mask.double().sum()), best_mask, epoch + 1
        if cost == 0 and success >= threshold:
            set_count += 1
            if set_count >= patience:
                cost, up_count, down_count, went_up, went_down = initial, 0, 0, False, False
        else:
            set_count = 0
        if success >= threshold:
            up_count, down_count = up_count + 1, 0
        else:
            up_count, down_count = 0, down_count + 1
        if up_count >= patience:
            up_count, cost, went_up = 0, cost * multiplier, True
        elif down_count >= patience:
            down_count, cost, went_down = 0, cost / multiplier**1.5, True
    if best_mask is None:
        return math.inf, squash(mask.detach()), epochs
    return float(best_mask.double().sum()), best_mask, epochs
