"""Beam search over policies whose every value is known, and over a small language model."""

from dataclasses import replace

import pytest
import torch

from reckon.errors import InputError
from reckon.models import LanguageModel, Sampling
from reckon.models.tiny import make_network, make_tokenizer
from reckon.process import best_of_k
from reckon.search import Beam, HeadValues, beam_search
from reckon.studies._planted import END, LENGTH, Planted, TableContinues, prover, q_and_v, table_law
from reckon.studies._planted import sample as draw
from reckon.studies.process_advantage_verifiers import values_after
from reckon.types import End, Problem, Rng, Rollouts, Sequences

PROBLEM = Problem(id="p", prompt="?")
STEPS = {"a": 1, "b": 2, "c": 3, "!": 0}  # letters as tokens; "!" ends a response


class Script:
    """A policy that goes on from a text as a script says, the j-th of k draws with the j-th of its lines."""

    def __init__(self, lines):
        self.lines = lines
        self.asked = []

    def sample(self, problems, k, rng, prefixes=None):
        names = {token: letter for letter, token in STEPS.items()}
        rows = []
        for prefix in prefixes:
            text = "".join(names[token] for token in prefix)
            self.asked.append((text, k))
            rows += [text + self.lines[text][j % len(self.lines[text])] for j in range(k)]
        sizes = torch.tensor([len(row) for row in rows])
        begun = torch.tensor([len(prefix) for prefix in prefixes]).repeat_interleave(k)
        most = int(sizes.max())
        place = torch.arange(most)
        return Rollouts(
            seq=Sequences(
                prompts=tuple(torch.tensor([9, 9]) for _ in problems),
                group=torch.arange(len(problems)).repeat_interleave(k),
                tokens=torch.tensor([[STEPS[c] for c in row] + [0] * (most - len(row)) for row in rows]),
                mask=(place < sizes[:, None]) & (place >= begun[:, None]),
            ),
            problems=tuple(problems),
            text=tuple(row.rstrip("!") for row in rows),
            pieces=tuple(tuple(c.rstrip("!") for c in row) for row in rows),
            logprobs=torch.full((len(rows), most), -0.5),
            end=torch.tensor([End.EOS if row.endswith("!") else End.STOP for row in rows]),
        )


def table(**values):
    """Values by text; "!" is the end, "" the empty response's `start`."""
    names = {token: letter for letter, token in STEPS.items()}

    def read(rollouts):
        found = []
        for row, mask in zip(rollouts.seq.tokens.tolist(), rollouts.seq.mask.sum(dim=1).tolist(), strict=True):
            text = "".join(names[token] for token in row[:mask]).replace("!", "_end")
            found.append(values[text or "start"])
        return torch.tensor(found)

    return read


TREE = {"": ["a", "b", "c!"], "a": ["a!", "b!"], "b": ["a!", "c!"]}
Q = table(start=0.5, a=0.6, b=0.55, c_end=0.1, aa_end=0.2, ab_end=0.7, ba_end=0.9, bc_end=0.3)


@pytest.mark.parametrize(
    ("width", "text", "q"),
    [
        (1, "ab", 0.7),  # a is best (0.6), then ab
        (2, "ba", 0.9),  # b is kept too, and ba is behind it
    ],
)
def test_a_small_tree_by_hand(width, text, q):
    """Three draws each: of a two-line script the third repeats the first."""
    policy = Script(TREE)
    found = beam_search(policy, [PROBLEM], Q, Beam(width=width, samples=3), Rng((0,)))
    assert found.rollouts.text == (text,)
    assert found.q.tolist() == pytest.approx([q])
    assert found.finished.tolist() == [True]
    # drawn: 1 + 1 + 2 tokens, then three steps of a letter and the end for each that is gone on from
    assert found.generated.tolist() == [4 + 6 * width]
    # read: two of the prompt each time, alone at the start, then with 1, 1, 2 tokens, then with 3
    assert found.scored.tolist() == [2 + (3 + 3 + 4) + 3 * 5 * width]
    assert found.rollouts.seq.mask.all()
    assert found.rollouts.seq.tokens.tolist() == [[STEPS[c] for c in text + "!"]]
    assert found.rollouts.logprobs.tolist() == [[-0.5] * 3]
    assert policy.asked == [("", 3), ("a", 3), ("b", 3)][: 1 + width]


class Full(Script):
    """Its responses end at its limit where the script adds nothing."""

    def sample(self, problems, k, rng, prefixes=None):
        drawn = super().sample(problems, k, rng, prefixes)
        stuck = ~drawn.seq.mask.any(dim=1)
        pieces = tuple(() if over else row for over, row in zip(stuck.tolist(), drawn.pieces, strict=True))
        return replace(drawn, pieces=pieces, end=torch.where(stuck, int(End.LENGTH), drawn.end))


def test_behind_a_beginning_at_the_policys_limit_nothing_is_generated():
    found = beam_search(
        Full({"": ["a"], "a": [""]}), [PROBLEM], table(start=0.5, a=0.6), Beam(width=1, samples=2), Rng((0,))
    )
    assert found.generated.tolist() == [2]  # an a for each of two first steps
    assert found.rollouts.text == ("a",)
    assert found.rollouts.seq.tokens.tolist() == [[STEPS["a"]]]
    assert found.finished.tolist() == [True]


@pytest.mark.parametrize(("alpha", "text"), [(0.1, "ab"), (0.4, "ba")])
def test_the_provers_advantage_counts_for_its_own_step(alpha, text):
    """After one step E is 0.60 - 0.05 alpha for a and 0.55 + 0.20 alpha for b: equal at alpha 0.2."""
    mu = table(start=0.5, a=0.45, b=0.7, c_end=0.0, aa_end=0, ab_end=0.5, ba_end=0.5, bc_end=0)
    found = beam_search(Script(TREE), [PROBLEM], Q, Beam(width=1, samples=3, alpha=alpha), Rng((0,)), mu)
    assert found.rollouts.text == (text,)
    assert found.scored.tolist() == [2 * (2 + 10 + 15)]  # two verifiers read it


def test_what_is_returned_has_the_highest_q_and_not_the_highest_score():
    """Ab! has Q 0.7 and E 0.7 - 0.1; ba! has Q 0.6 and E 0.6 + 0.4."""
    q = table(start=0.5, a=0.6, b=0.55, c_end=0.1, aa_end=0.2, ab_end=0.7, ba_end=0.6, bc_end=0.3)
    mu = table(start=0.5, a=0.6, b=0.6, c_end=0, aa_end=0, ab_end=0.5, ba_end=1.0, bc_end=0)
    plan = Beam(width=2, samples=3, alpha=1.0, duplicates=False)
    found = beam_search(Script(TREE), [PROBLEM], q, plan, Rng((0,)), mu)
    assert found.rollouts.text == ("ab",)


def test_a_finished_trace_keeps_its_last_score_in_the_beam():
    """C! (Q 0.65) ends at once and stays; a (0.6) leads to nothing better."""
    q = table(start=0.5, a=0.6, b=0.1, c_end=0.65, aa_end=0.2, ab_end=0.3)
    policy = Script(TREE)
    found = beam_search(policy, [PROBLEM], q, Beam(width=2, samples=3), Rng((0,)))
    assert found.rollouts.text == ("c",)
    assert policy.asked == [("", 3), ("a", 3)]


def test_filling_the_beam_at_once_and_dropping_duplicates():
    policy = Script(TREE)
    beam_search(policy, [PROBLEM], Q, Beam(width=2, samples=3, init="fill"), Rng((0,)))
    assert policy.asked[0] == ("", 6)
    assert policy.asked[1:] == [("a", 3), ("a", 3)]  # drawn twice, and both are kept
    policy = Script(TREE)
    beam_search(policy, [PROBLEM], Q, Beam(width=2, samples=3, init="fill", duplicates=False), Rng((0,)))
    assert policy.asked[1:] == [("a", 3), ("b", 3)]


def test_without_an_end_in_sight_the_best_so_far_is_returned_and_says_so():
    found = beam_search(Script(TREE), [PROBLEM], Q, Beam(width=1, max_steps=1), Rng((0,)))
    assert found.finished.tolist() == [False]
    assert found.rollouts.text == ("a",)
    assert found.rollouts.end.tolist() == [End.STOP]


def test_no_problems():
    found = beam_search(Script(TREE), [], Q, Beam(width=1), Rng((0,)))
    assert found.rollouts.text == ()


@pytest.mark.parametrize(
    "change",
    [{"width": 0}, {"samples": 0}, {"max_steps": 0}, {"alpha": -1.0}, {"alpha": float("nan")}, {"init": "all"}],
)
def test_settings_that_cannot_be(change):
    with pytest.raises(InputError, match="beam search"):
        Beam(**{"width": 1, **change})


@pytest.mark.parametrize(
    "read",
    [
        lambda r: torch.tensor(0.5),
        lambda r: torch.full((len(r.text),), torch.nan),
        lambda r: torch.full((len(r.text),), 3.0),
    ],
)
def test_values_that_are_no_chances(read):
    with pytest.raises(InputError, match=r"`values` must give a chance of success in \[0, 1\]"):
        beam_search(Script(TREE), [PROBLEM], read, Beam(width=1), Rng((0,)))
    with pytest.raises(InputError, match="`prover` must give"):
        beam_search(Script(TREE), [PROBLEM], Q, Beam(width=1), Rng((0,)), read)


# The planted sequence: exact values


TASK = Planted(200)
PROBLEMS = TASK.problems("test")
LAW = prover(15)


def exact(rollouts):
    return values_after(q_and_v(LAW)[1], rollouts)


def successes(rollouts):
    return sum(TASK.check(PROBLEM, text).outcome for text in rollouts.text)


def test_one_sample_and_width_one_are_plain_sampling():
    """The same tokens as drawing step after step with the same numbers; and right as often as theory says."""
    rng = Rng((1,))
    found = beam_search(TableContinues(LAW), PROBLEMS, exact, Beam(width=1, samples=1, max_steps=LENGTH), rng)
    policy, tokens, open_ = TableContinues(LAW), [[] for _ in PROBLEMS], list(range(len(PROBLEMS)))
    for step in range(LENGTH):
        drawn = policy.sample([PROBLEMS[p] for p in open_], 1, rng.child(step), [tokens[p] for p in open_])
        for row, p in enumerate(open_):
            tokens[p] = drawn.seq.tokens[row, : len(tokens[p]) + 1].tolist()
        open_ = [p for row, p in enumerate(open_) if drawn.end[row] == End.STOP]
    sizes = found.rollouts.seq.mask.sum(dim=1).tolist()
    assert [row[:n] for row, n in zip(found.rollouts.seq.tokens.tolist(), sizes, strict=True)] == tokens
    p = float(q_and_v(LAW)[1][0, 0])
    assert abs(successes(found.rollouts) / 200 - p) < 3 * (p * (1 - p) / 200) ** 0.5


def test_without_alpha_no_prover_changes_anything():
    plan = Beam(width=2, max_steps=LENGTH)
    alone = beam_search(TableContinues(LAW), PROBLEMS[:20], exact, plan, Rng((2,)))
    for mu in (16, lambda r: values_after(q_and_v(prover(2))[1], r)):
        other = beam_search(TableContinues(LAW), PROBLEMS[:20], exact, plan, Rng((2,)), mu)
        assert torch.equal(alone.rollouts.seq.tokens, other.rollouts.seq.tokens)


def test_a_number_as_prover_is_the_best_of_so_many():
    plan = Beam(width=2, alpha=0.5, max_steps=LENGTH)
    by_number = beam_search(TableContinues(LAW), PROBLEMS[:20], exact, plan, Rng((3,)), 4)
    by_function = beam_search(
        TableContinues(LAW), PROBLEMS[:20], exact, plan, Rng((3,)), lambda r: best_of_k(exact(r), 4)
    )
    assert torch.equal(by_number.rollouts.seq.tokens, by_function.rollouts.seq.tokens)
    assert torch.equal(2 * by_number.scored, by_function.scored)


def test_search_finds_what_best_of_as_many_tokens_does_not():
    plan = Beam(width=2, max_steps=LENGTH)
    weak = prover(5)
    found = beam_search(TableContinues(weak), PROBLEMS, lambda r: values_after(q_and_v(weak)[1], r), plan, Rng((4,)))
    many = draw(table_law(weak), PROBLEMS, 6, Rng((5,)))
    best = torch.tensor([TASK.check(PROBLEM, text).outcome for text in many.text]).reshape(-1, 6).amax(dim=1)
    assert successes(found.rollouts) > 10 * float(best.sum())
    assert found.generated.sum() <= many.seq.mask.sum() * 1.1
    assert (found.rollouts.seq.tokens != END).any()


# A language model


def model(**settings):
    return LanguageModel(
        make_network(),
        make_tokenizer(),
        sampling=Sampling(max_new_tokens=6, stop=("1", "2", "3")),
        value_head=True,
        device="cpu",
        dtype="float32",
        **settings,
    )


def test_a_value_head_is_read_after_the_last_token_so_far():
    judge = model()
    torch.nn.init.normal_(judge.head.weight, generator=torch.Generator().manual_seed(0))
    drawn = judge.sample([Problem(id="a", prompt="1+2"), Problem(id="b", prompt="3+4+5")], 2, Rng((0,)))
    found = HeadValues(judge)(drawn)
    hidden = judge.outputs(drawn.seq, ("hidden",)).hidden  # after reading a token: another path to the same number
    last = drawn.seq.mask.sum(dim=1) - 1
    wanted = (hidden[torch.arange(4), last] @ judge.head.weight[0]).sigmoid()
    torch.testing.assert_close(found, wanted.detach(), rtol=1e-5, atol=1e-5)
    nothing = replace(
        drawn,
        seq=replace(drawn.seq, tokens=drawn.seq.tokens[:, :0], mask=drawn.seq.mask[:, :0]),
        logprobs=drawn.logprobs[:, :0],
    )
    before = judge.outputs(drawn.seq, ("values",)).values[:, 0].sigmoid()
    torch.testing.assert_close(HeadValues(judge)(nothing), before, rtol=1e-5, atol=1e-5)


def test_a_language_model_is_searched_step_by_step():
    policy = model()
    torch.nn.init.normal_(policy.head.weight, generator=torch.Generator().manual_seed(0))
    problems = [Problem(id="a", prompt="1+2"), Problem(id="b", prompt="3+4+5")]
    plan = Beam(width=2, samples=2, alpha=0.5, max_steps=3)
    found = beam_search(policy, problems, HeadValues(policy), plan, Rng((0,)), 4)
    assert [p.id for p in found.rollouts.problems] == ["a", "b"]
    for row in range(2):
        size = int(found.rollouts.seq.mask[row].sum())
        assert len(found.rollouts.pieces[row]) == size
        tokens = found.rollouts.seq.tokens[row, :size].tolist()
        assert policy.tokenizer.decode(tokens, skip_special_tokens=True) == found.rollouts.text[row]
        again = policy.outputs(found.rollouts.seq).logprobs[row, :size]
        torch.testing.assert_close(found.rollouts.logprobs[row, :size], again, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(HeadValues(policy)(found.rollouts), found.q, rtol=1e-5, atol=1e-5)


def test_an_advantage_is_counted_from_its_own_parent():
    """A: ab 0.9 - 0.9 = 0, aa 0, ba and bc 0.1 - 0.1 = 0; so ba and ab go on, though both of a's have the higher V."""
    q = table(start=0.5, a=0.5, b=0.5, c_end=0, aa_end=0.1, ab_end=0.5, ba_end=0.6, bc_end=0.3)
    mu = table(start=0.5, a=0.9, b=0.1, c_end=0, aa_end=0.9, ab_end=0.9, ba_end=0.1, bc_end=0.1)
    plan = Beam(width=2, samples=3, alpha=1.0, duplicates=False)
    found = beam_search(Script(TREE), [PROBLEM], q, plan, Rng((0,)), mu)
    assert found.rollouts.text == ("ba",)
