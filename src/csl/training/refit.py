"""Category-wise fine-tuning (CFT): Chong et al., "Category-wise Fine-Tuning: Resisting Incorrect Pseudo-Labels in Multi-Label
Image Classification with Partial Labels" (arXiv 2401.16991), by gradient.

The last layer of a trained network is a logistic regression for each class, on features of an image. Each is trained further
on the known labels of its class alone, so that what the loss took unknown labels for no longer has a part in it: full-batch
Adam on ASL (gamma_neg 4, clip 0.05), until the average precision of the class on known validation labels has not grown for
`PATIENCE` steps. The best step is kept, and the row as it was where none is better.
"""

import numpy as np
import torch
from torch import Tensor, nn

from csl.losses import AsymmetricLoss
from csl.metrics import average_precision

RATE, MOST_STEPS, PATIENCE = 1e-4, 5000, 300
"""As published."""

EVERY = 10
"""Steps between two looks at the validation labels, where the paper takes one."""

CLASSES = 256
"""Trained side by side, each as if it were alone: Adam looks at every weight by itself."""


def refit_rows(layer: nn.Linear, x: Tensor, y: Tensor, x_val: Tensor, y_val: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Train the rows of a last layer, in place, each on the known labels of its class.

    Args:
        layer: features to logits.
        x, x_val: float32 [N, F] and [M, F], features of training and validation images.
        y, y_val: int8 [N, C] and [M, C] in {1, 0, -1}.

    Returns:
        Average precision [C] on the known validation labels before and after, NaN where it is not defined. A class stays
        as it is where it is not, or where the training images have no known positive or no known negative.
    """
    with torch.no_grad():
        before = average_precision(x_val @ layer.weight.T + layer.bias, y_val)  # [C]
    after = before.copy()
    known = ((y == 1).any(0) & (y == 0).any(0)).numpy() & ~np.isnan(before)
    for classes in torch.from_numpy(np.flatnonzero(known)).split(CLASSES):
        weight, bias, found = _refitted(
            layer.weight[classes], layer.bias[classes], (x, y[:, classes]), (x_val, y_val[:, classes])
        )
        with torch.no_grad():
            layer.weight[classes], layer.bias[classes] = weight, bias
        after[classes.numpy()] = found
    return before, after


def _refitted(weight, bias, train, val):
    """The best weight [K, F] and bias [K] of each class, and their average precision [K]."""
    (x, y), (x_val, y_val) = train, val
    best_weight, best_bias = weight.detach().clone(), bias.detach().clone()
    weight, bias = best_weight.clone().requires_grad_(), best_bias.clone().requires_grad_()
    best = average_precision(x_val @ best_weight.T + best_bias, y_val)
    best_at = np.zeros(len(best), int)
    criterion = AsymmetricLoss(gamma_neg=4.0, gamma_pos=0.0, clip=0.05, mode="ignore")
    optimizer = torch.optim.Adam([weight, bias], lr=RATE)
    known = (y != -1).sum(0)  # [K]
    for step in range(1, MOST_STEPS + 1):
        optimizer.zero_grad()
        criterion(x @ weight.T + bias, y).backward()
        weight.grad /= known[:, None]  # of the mean over the known entries of each class
        bias.grad /= known
        optimizer.step()
        if step % EVERY:
            continue
        with torch.no_grad():
            found = average_precision(x_val @ weight.T + bias, y_val)
            better = torch.from_numpy(found > best)
            best_weight[better], best_bias[better] = weight[better], bias[better]
        best_at[better.numpy()] = step
        best = np.maximum(best, found)
        if (step - best_at >= PATIENCE).all():
            break
    return best_weight, best_bias, best
