"""Random problems for a loss, and its value and gradient on one."""

import numpy as np
import torch

ALL_MODES = [None, "negative", "ignore", "ignore_normalize_classes", "selective"]


def value_and_gradient(function, logits, targets):
    logits = logits.clone().requires_grad_()
    loss = function(logits, targets)
    loss.backward()
    return loss.item(), logits.grad


def problem(batch, classes, seed, known=0.4):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 3, (batch, classes)))
    targets = torch.from_numpy(rng.choice([-1, 0, 1], (batch, classes), p=[1 - known, known / 2, known / 2]))
    return logits, targets, torch.from_numpy(rng.random(classes))
