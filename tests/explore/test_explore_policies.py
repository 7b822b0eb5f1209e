"""Networks of the agent: two in one tensor are two; a sequence is its steps, with nothing across an episode's end."""

import math

import pytest
import torch
from torch import nn

from reckon.errors import InputError
from reckon.explore import FeedForward, Recurrent
from reckon.explore._policies import tanh_


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def separate(network, place):
    """The actor (place 0) or the critic (1) of a `FeedForward` as an ordinary stack of layers."""
    layers = []
    for weight, bias in zip(network.weights, network.biases, strict=True):
        layer = nn.Linear(weight.shape[1], weight.shape[2])
        layer.weight.data, layer.bias.data = weight[place].T.clone(), bias[place, 0].clone()
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers, network.policy if place == 0 else network.value)


@pytest.mark.parametrize("hidden", [(5,), (5, 5), (7, 4, 6)])
def test_an_actor_and_a_critic_side_by_side_are_two_networks(hidden):
    network = FeedForward(3, 4, hidden=hidden, seed=1)
    for bias in network.biases:
        bias.data += drawn(*bias.shape)
    obs, nothing = drawn(6, 2, 3), torch.zeros(2, 0)
    logits, values = network.sequence(obs, nothing, torch.zeros(6, 2, dtype=torch.bool))
    torch.testing.assert_close(logits, separate(network, 0)(obs))
    torch.testing.assert_close(values, separate(network, 1)(obs)[..., 0])
    with torch.no_grad():
        acted, memory = network.act(obs[0], nothing, torch.zeros(2, dtype=torch.bool))
    torch.testing.assert_close(acted, logits[0])
    assert memory.shape == (2, 0)


def test_a_hyperbolic_tangent_and_its_gradient():
    x = torch.cat([torch.tensor([0.0, 1e-4, -1e-4, 30.0, -30.0, 200.0, -200.0]), 3 * drawn(500)])
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    found, expected = tanh_(leaves[0] * 1), leaves[1].double().tanh()
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-7)
    for out in (found, expected):
        (out * drawn(len(x), seed=1)).sum().backward()
    # 1 - y^2 is off by twice as much as y, and the gradients above it are up to 4.
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad, rtol=1e-5, atol=2 * 2e-7 * 4)


def test_the_gradient_of_the_values_does_not_reach_the_actor():
    network = FeedForward(3, 4, hidden=(5, 5))
    _, values = network.sequence(drawn(6, 2, 3), torch.zeros(2, 0), torch.zeros(6, 2, dtype=torch.bool))
    values.sum().backward()
    for weight in network.weights:
        assert weight.grad[0].abs().sum() == 0
        assert weight.grad[1].abs().sum() > 0
    assert network.policy.weight.grad is None


def test_first_weights_are_orthogonal_and_the_first_choice_is_open():
    network = FeedForward(9, 4, hidden=(5,), seed=3)
    weight = network.weights[0][0]
    torch.testing.assert_close(weight.T @ weight, 2 * torch.eye(5))  # the gain is the root of 2
    wide = FeedForward(3, 4, hidden=(5,), seed=3).weights[0][0]
    torch.testing.assert_close(wide @ wide.T, 2 * torch.eye(3))
    logits, _ = network.act(drawn(100, 9), torch.zeros(100, 0), torch.zeros(100, dtype=torch.bool))
    assert logits.detach().abs().max() < 0.1
    assert not torch.equal(network.weights[0][0], network.weights[0][1])
    assert torch.equal(weight, FeedForward(9, 4, hidden=(5,), seed=3).weights[0][0])
    assert not torch.equal(weight, FeedForward(9, 4, hidden=(5,), seed=4).weights[0][0])


def recurrent(seed=0):
    network = Recurrent(3, 4, hidden=5, seed=seed)
    network.policy.weight.data *= 100  # or all logits would be nearly the same
    return network


def stepwise(network, obs, memory, start):
    """The logits of a sequence, one step after the other."""
    logits = []
    with torch.no_grad():
        for t in range(len(obs)):
            one, memory = network.act(obs[t], memory, start[t])
            logits.append(one)
    return torch.stack(logits), memory


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_a_sequence_is_its_steps(share):
    network, obs, memory = recurrent(), drawn(11, 6, 3), drawn(6, 10, seed=1)
    start = torch.rand(11, 6, generator=torch.Generator().manual_seed(2)) < share
    logits, values = network.sequence(obs, memory, start)
    expected, _ = stepwise(network, obs, memory, start)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert values.shape == (11, 6)


def test_two_sequences_are_one_with_the_memory_between():
    network, obs, memory = recurrent(), drawn(8, 3, 3), torch.zeros(3, 10)
    start = torch.zeros(8, 3, dtype=torch.bool)
    start[5, 1] = start[0, 2] = True
    whole = network.sequence(obs, memory, start)
    _, between = stepwise(network, obs[:4], memory, start[:4])
    second = network.sequence(obs[4:], between, start[4:])
    for one, part in zip(whole, second, strict=True):
        torch.testing.assert_close(one[4:], part, rtol=1e-4, atol=1e-5)


def test_nothing_is_remembered_across_the_beginning_of_an_episode():
    network, obs, memory = recurrent(), drawn(6, 2, 3), drawn(2, 10, seed=1)
    start = torch.zeros(6, 2, dtype=torch.bool)
    start[3, 0] = True
    before = network.sequence(obs, memory, start)[0]
    other = obs.clone()
    other[:3] += 1.0
    after = network.sequence(other, memory + 1.0, start)[0]
    torch.testing.assert_close(after[3:, 0], before[3:, 0])  # its past is another, and it does not matter
    assert (after[3:, 1] - before[3:, 1]).abs().max() > 1e-3  # of the row that goes on it does
    start[0] = True
    torch.testing.assert_close(network.sequence(obs, memory, start)[0], network.sequence(obs, memory + 1, start)[0])


def test_no_gradient_crosses_the_beginning_of_an_episode():
    network, start = recurrent(), torch.zeros(6, 2, dtype=torch.bool)
    start[3, 0] = True
    obs = drawn(6, 2, 3).requires_grad_()
    network.sequence(obs, torch.zeros(2, 10), start)[0][4, 0].sum().backward()
    reached = obs.grad.abs().sum(dim=2) > 0
    assert reached[:, 0].tolist() == [False, False, False, True, True, False]
    assert not reached[:, 1].any()


def test_networks_of_no_width_are_refused():
    for make in (lambda: FeedForward(3, 2, hidden=()), lambda: Recurrent(3, 2, hidden=0)):
        with pytest.raises(InputError, match="hidden is"):
            make()
    assert math.isclose(FeedForward(2, 2, hidden=(3,)).value.weight.norm().item(), 1.0, rel_tol=1e-5)
