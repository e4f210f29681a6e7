"""SparseGPT, Wanda and magnitude in plain PyTorch, from the papers, one weight at a time; it shares nothing with comigs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 128


@dataclass(frozen=True)
class Sparsity:
    """A share, or `zeros` of each `of` consecutive inputs of an output."""

    share: float = 0.0
    zeros: int = 0
    of: int = 0

    @property
    def options(self) -> tuple[object, ...]:
        return ("--pattern", f"zeros={self.zeros},of={self.of}") if self.of else ("--sparsity", self.share)

    def count(self, of: int) -> int:
        return math.floor(self.share * of + 1e-6)

    def __str__(self) -> str:
        return f"{self.zeros}of{self.of}" if self.of else f"{self.share:.0%}"


PATTERNS = (
    *(Sparsity(share=share) for share in (0.75, 0.85, 0.9)),
    *(Sparsity(zeros=zeros, of=of) for zeros, of in ((2, 4), (4, 8), (3, 4), (7, 8))),
)


def smallest(scores: Tensor, count: int) -> Tensor:
    """True where one of the `count` smallest is, of equal ones the first."""
    goes = torch.zeros(scores.numel(), dtype=torch.bool)
    goes[scores.flatten().argsort(stable=True)[:count]] = True
    return goes.view(scores.shape)


def hessian_of(X: Tensor) -> Tensor:
    """Of X [n, in]: 2/n X^T X, dampened by one per cent of its mean diagonal."""
    H = 2 / len(X) * X.T @ X
    dead = H.diagonal() == 0
    H[dead, dead] = 1
    return H + 0.01 * H.diagonal().mean() * torch.eye(len(H), dtype=X.dtype)


def sparsegpt(W: Tensor, X: Tensor, sparsity: Sparsity) -> Tensor:
    """Frantar & Alistarh 2023, Algorithm 1, without its lazy batches: after each column the inverse Hessian loses
    that column by a step of Gaussian elimination, and every weight to the right is updated at once."""
    W = W.double().clone()
    X = X.double()
    W[:, (X**2).sum(0) == 0] = 0
    inputs = W.shape[1]
    inverses = []  # at column i: H^-1 of the inputs from i on
    inverse = torch.linalg.inv(hessian_of(X))
    for _ in range(inputs):
        inverses.append(inverse)
        rest = inverse[1:, 1:] - torch.outer(inverse[1:, 0], inverse[0, 1:]) / inverse[0, 0]
        inverse = rest
    prices = torch.stack([found[0, 0] for found in inverses])
    goes = torch.zeros_like(W, dtype=torch.bool)
    for i in range(inputs):
        if sparsity.of and i % sparsity.of == 0:
            run = slice(i, i + sparsity.of)
            for row in range(len(W)):
                goes[row, run] = smallest(W[row, run] ** 2 / prices[run], sparsity.zeros)
        elif not sparsity.of and i % BLOCK == 0:
            block = slice(i, min(i + BLOCK, inputs))
            goes[:, block] = smallest(W[:, block] ** 2 / prices[block], sparsity.count(W[:, block].numel()))
        error = torch.where(goes[:, i], W[:, i], 0.0) / prices[i]
        W[:, i:] -= torch.outer(error, inverses[i][0])
        W[goes[:, i], i] = 0
    return W


def magnitude(W: Tensor, sparsity: Sparsity) -> Tensor:
    """Those nearest to 0 go: of the matrix, or of each run of an output."""
    scores = W.double().abs()
    if sparsity.of:
        goes = torch.cat([smallest(run, sparsity.zeros) for run in scores.flatten().split(sparsity.of)])
    else:
        goes = smallest(scores, sparsity.count(W.numel()))
    return torch.where(goes.view(W.shape), 0, W)


def wanda(W: Tensor, X: Tensor, sparsity: Sparsity) -> Tensor:
    """Sun et al. 2024, Eq. 1 and Algorithm 1: which weights go, among those of an output."""
    scores = W.double().abs() * X.double().norm(dim=0)
    rows = [
        torch.cat([smallest(run, sparsity.zeros) for run in row.split(sparsity.of)])
        if sparsity.of
        else smallest(row, sparsity.count(len(row)))
        for row in scores
    ]
    return torch.where(torch.stack(rows), 0, W)
