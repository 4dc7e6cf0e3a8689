"""Muon: momentum whose every matrix is made orthogonal before the step (Newton-Schulz, in bfloat16)."""

import math

import torch


class Muon:
    """For matrices and convolutions; everything else goes to AdamW. Equal shapes are stacked and go as one batch."""

    def __init__(self, parameters, momentum=.95, decay=.01):
        self.momentum, self.decay = momentum, decay
        self.buffers = {p: torch.zeros_like(p) for p in parameters}
        self.groups = {}
        for p in self.buffers:
            self.groups.setdefault((p.shape[0], p.numel() // p.shape[0]), []).append(p)

    @torch.no_grad()
    def step(self, rate):
        for (rows, columns), group in self.groups.items():
            group = [p for p in group if p.grad is not None]
            if not group:
                continue
            updates = []
            for p in group:
                buffer = self.buffers[p]
                buffer.mul_(self.momentum).add_(p.grad)
                updates.append(p.grad.add(buffer, alpha=self.momentum).reshape(rows, columns))
            x = torch.stack(updates)
            if rows > columns:
                x = x.transpose(1, 2)
            x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
            for _ in range(5):
                gram = x @ x.transpose(1, 2)
                x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
            if rows > columns:
                x = x.transpose(1, 2)
            x = x.float() * (.2 * math.sqrt(max(rows, columns)))
            for p, u in zip(group, x):
                p.mul_(1 - rate * self.decay).add_(u.reshape(p.shape), alpha=-rate)

    def state(self):
        return [b for b in self.buffers.values()]

    def load(self, state):
        for buffer, saved in zip(self.buffers.values(), state):
            buffer.copy_(saved)
