"""Energies given as tables, and draws, for tests of subsets."""

import torch


def table(values):
    """F(S) looked up: values [B, 2^n], the subset with elements i, j at place 2^i + 2^j."""
    values = torch.as_tensor(values)

    def energy(rows):
        code = (rows.round().long() * 2 ** torch.arange(rows.shape[-1])).sum(dim=-1)
        return values.gather(1, code)

    return energy


def modular(weights):
    """F(S) = sum of w_i over S, weights [B, n]."""
    return lambda rows: (rows * weights.unsqueeze(1)).sum(dim=-1)


def random_table(b, n, seed=0, scale=1.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn((b, 2**n), generator=generator, dtype=dtype)


def draws(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda shape: torch.rand(shape, generator=generator)


def no_draws(shape):
    raise AssertionError(f"numbers of shape {shape} were drawn, and none are needed")
