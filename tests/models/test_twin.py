"""A second learner on the weights of a first: equal at the start, and neither moves the other."""

from functools import partial

import pytest
import torch

from reckon.errors import InputError
from reckon.models import Lora, Optimization
from reckon.models.table import Action, TablePolicy
from reckon.types import Problem, Rng


def likelier(outputs, columns):
    return -outputs.logprobs * columns["mask"]


def logprobs(model, seq):
    return model.outputs(seq).logprobs


def step(model, seq):
    return model.step(seq, {"mask": seq.mask.float()}, likelier)


@pytest.mark.parametrize("lora", [None, Lora(rank=2)], ids=["whole", "adapters"])
def test_a_twin_begins_equal_and_learns_by_itself(make, ragged, lora):
    policy = make(lora=lora, optimizer=Optimization(lr=1e-2))
    start = policy.reference()
    step(policy, ragged)  # so that what the twin takes over is not the start
    prm = policy.twin(Optimization(lr=1e-1))
    before = logprobs(policy, ragged)
    assert torch.equal(logprobs(prm, ragged), before)
    assert step(prm, ragged)["policy/lr"] == 1e-1
    assert torch.equal(logprobs(policy, ragged), before)
    moved = logprobs(prm, ragged)
    assert not torch.equal(moved, before)
    step(policy, ragged)
    assert torch.equal(logprobs(prm, ragged), moved)
    assert not torch.equal(logprobs(policy, ragged), before)
    if lora is None:
        assert not torch.equal(logprobs(start, ragged), before)
    else:  # the third of three: no adapters at all
        assert prm.network is policy.network
        fresh = make()
        assert torch.equal(logprobs(start, ragged), logprobs(fresh, ragged))


def test_twins_on_shared_weights_sample_and_are_saved_each_as_its_own(make, ragged, problems, tmp_path):
    policy = make(lora=Lora(rank=2), optimizer=Optimization(lr=1e-1))
    alone = policy.sample(problems, 3, Rng((0,)))
    prm, third = policy.twin(Optimization(lr=1e-1)), policy.twin(Optimization(lr=1e-1))
    for _ in range(3):
        step(prm, ragged)
    assert policy.sample(problems, 3, Rng((0,))).seq.tokens.equal(alone.seq.tokens)
    assert not prm.sample(problems, 3, Rng((0,))).logprobs.equal(alone.logprobs)
    assert torch.equal(logprobs(third, ragged), logprobs(policy, ragged))
    names = [set(model.state_dict()["weights"]) for model in (policy, prm, third)]
    assert not names[0] & names[1] | names[1] & names[2] | names[0] & names[2]
    again = make(lora=Lora(rank=2)).twin(Optimization(lr=1e-1))
    again.load_state_dict(prm.state_dict())
    assert torch.equal(logprobs(again, ragged), logprobs(prm, ragged))
    from reckon.models import load_model

    for name, model in (("policy", policy), ("prm", prm)):
        model.save_pretrained(tmp_path / name)
        loaded = load_model(str(tmp_path / name), dtype="float32", device="cpu")
        torch.testing.assert_close(logprobs(loaded, ragged), logprobs(model, ragged), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lora", [None, Lora(rank=2)], ids=["whole", "adapters"])
def test_a_twin_recomputes_layers_as_its_model_does(make, ragged, lora):
    def moved(on):
        prm = make(lora=lora, activation_checkpointing=on).twin(Optimization(lr=1e-2))
        step(prm, ragged)
        return prm, logprobs(prm, ragged)

    (checkpointed, one), (_, other) = moved(True), moved(False)
    assert checkpointed.activation_checkpointing
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_a_value_head_stays_with_its_model(make, ragged):
    policy = make(lora=Lora(rank=2), value_head=True)
    prm = policy.twin(Optimization())
    assert prm.head is None
    assert torch.equal(logprobs(prm, ragged), logprobs(policy, ragged))


@pytest.mark.parametrize("lora", [None, Lora(rank=2)], ids=["whole", "adapters"])
def test_a_twin_may_have_a_head_of_its_own(make, ragged, lora):
    """A critic beside the policy: it begins with the policy's hidden states and says 0, whatever the policy says."""
    policy = make(lora=lora, value_head=True)
    with torch.no_grad():
        policy.head.weight.fill_(1.0)
    critic = policy.twin(Optimization(lr=1e-2), value_head=True)
    assert not critic.outputs(ragged, ("values",)).values.any()
    assert torch.equal(critic.outputs(ragged, ("hidden",)).hidden, policy.outputs(ragged, ("hidden",)).hidden)
    before = policy.outputs(ragged, ("values",)).values
    loss = lambda outputs, columns: (outputs.values - 1).square() * columns["mask"]  # noqa: E731
    for _ in range(3):
        critic.step(ragged, {"mask": ragged.mask.float()}, loss, ("values",))
    assert critic.outputs(ragged, ("values",)).values.any()
    assert torch.equal(policy.outputs(ragged, ("values",)).values, before)


def test_the_twin_of_a_table():
    actions = [Action(text="a"), Action(text="b", length=2)]
    sgd = partial(torch.optim.SGD, lr=0.5)
    table = TablePolicy(actions, torch.tensor([[1.0, 2.0], [0.0, 0.5]]), optimizer=sgd, contexts=["x", "y"])
    twin = table.twin(Optimization(lr=0.1, beta2=0.999, clip=None, epochs=3, minibatches=2))
    assert (twin.epochs, twin.minibatches) == (3, 2)
    seq = table.sample([Problem(id="0", prompt="x")], 2, Rng((0,))).seq
    twin.step(seq, {"mask": seq.mask.float()}, likelier)
    # The first step of Adam is the rate, in the gradient's direction, whatever the gradient's size.
    assert (twin.logits - table.logits)[0].abs().tolist() == pytest.approx([0.1, 0.1], abs=1e-4)
    assert torch.equal(twin.logits[1], table.logits[1])
    for bad in ({"clip": 1.0}, {"clip": None, "warmup": 2}, {"clip": None, "schedule": "cosine", "total": 9}):
        with pytest.raises(InputError, match="constant rate"):
            table.twin(Optimization(**bad))


@pytest.mark.parametrize("lora", [None, Lora(rank=2)], ids=["whole", "adapters"])
def test_a_twin_takes_over_what_its_model_has_become(make, ragged, lora):
    policy = make(lora=lora, optimizer=Optimization(lr=1e-1), value_head=True)
    with torch.no_grad():
        policy.head.weight.fill_(1.0)
    prover = policy.twin(Optimization(clip=None))
    start = logprobs(prover, ragged)
    step(policy, ragged)
    now = logprobs(policy, ragged)
    assert torch.equal(logprobs(prover, ragged), start)
    prover.copy_from(policy)
    assert torch.equal(logprobs(prover, ragged), now)
    step(policy, ragged)
    assert torch.equal(logprobs(prover, ragged), now)
    other = policy.twin(Optimization(clip=None), value_head=True)
    other.copy_from(prover)
    assert torch.equal(logprobs(other, ragged), now)
    assert not other.head.weight.any()
    table = TablePolicy([Action(text="a"), Action(text="b")], torch.tensor([1.0, 2.0]), optimizer=torch.optim.SGD)
    twin = table.twin(Optimization(clip=None))
    with torch.no_grad():
        table.logits += 1
    twin.copy_from(table)
    assert twin.logits.tolist() == [[2.0, 3.0]]
