r"""Steps in characters and in tokens: off-by-one, straddling tokens, half characters, end tokens, prefixes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from reckon.errors import InputError
from reckon.models import LanguageModel, Sampling
from reckon.models._text import pieces
from reckon.models.tiny import make_network, make_tokenizer
from reckon.steps import (
    Given,
    Pattern,
    Steps,
    at_ends,
    over_steps,
    split_rollouts,
    spread,
    step_ends,
    token_ends,
    token_steps,
)
from reckon.types import Problem, Rng, Rollouts, Sequences

NAN = float("nan")
slow_start = settings(deadline=None)


def rollouts(*rows, prefix=None):
    """Responses as tuples of pieces; `prefix` says how many tokens of each were given."""
    n, most = len(rows), max((len(row) for row in rows), default=0)
    mask = torch.zeros(n, most, dtype=torch.bool)
    for i, row in enumerate(rows):
        mask[i, (prefix or [0] * n)[i] : len(row)] = True
    return Rollouts(
        seq=Sequences(
            prompts=(torch.tensor([1]),),
            group=torch.zeros(n, dtype=torch.int64),
            tokens=torch.ones(n, most, dtype=torch.int64),
            mask=mask,
        ),
        problems=(Problem(id="p", prompt="?"),),
        text=tuple("".join(row) for row in rows),
        pieces=tuple(tuple(row) for row in rows),
        logprobs=torch.zeros(n, most),
        end=torch.zeros(n, dtype=torch.int64),
    )


def same(found, wanted):
    torch.testing.assert_close(found, torch.as_tensor(wanted, dtype=found.dtype), rtol=0, atol=1e-6, equal_nan=True)


# Characters


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("", []),
        ("ab", [2]),  # no delimiter: one step
        ("a\nbc\n", [2, 5]),  # the line's end belongs to the line
        ("a\nbc", [2, 4]),  # and what follows the last one is a step
        ("a\n\n\nb", [4, 5]),
        ("a\n \nb", [4, 5]),  # a line of blanks is no step: it joins the one before
        ("a\nb\n  ", [2, 6]),
        ("\n\na\nb", [4, 5]),  # or the first, if there is none before
        ("\n \n", [3]),  # white space alone still is what the policy wrote: one step
    ],
)
def test_steps_of_lines(text, ends):
    assert step_ends(text, Pattern()) == ends


def test_steps_told_by_how_they_begin():
    text = "Step 1: a\nStep 2: b"
    assert step_ends(text, Pattern(r"(?=Step \d+:)")) == [10, 19]  # the match at 0 ends nothing


@pytest.mark.parametrize("offsets", [[5, 3], [-1], [4], [1.5], ["a"], [None]])
def test_a_splitter_that_cannot_be_right_is_told_so(offsets):
    with pytest.raises(InputError, match=r"step ends .* must be character offsets"):
        step_ends("abc", lambda text: offsets)


def test_given_ends():
    known = Given({"abcd": [2]})
    assert step_ends("abcd", known) == [2, 4]
    with pytest.raises(InputError, match="no step ends were given for the text 'x'"):
        step_ends("x", known)


def test_a_pattern_that_is_none():
    with pytest.raises(InputError, match="no regular expression"):
        Pattern("(")


@given(st.text(alphabet="ab \n", max_size=30), st.sampled_from([r"\n+", r"\n", " ", "b(?=a)", "$"]))
def test_steps_tile_the_text_and_none_is_empty(text, regex):
    ends = step_ends(text, Pattern(regex))
    steps = [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    assert "".join(steps) == text
    assert all(step.strip() for step in steps) or len(steps) == 1


# Tokens


@pytest.mark.parametrize(
    ("pieces", "ends", "last"),
    [
        (["a", "\n", "b"], [2, 3], [1, 2]),
        (["a", "\n", "b", ""], [2, 3], [1, 3]),  # the end token belongs to the last step
        (["a\n", "b"], [2, 3], [0, 1]),
        (["a", "\nb", "c"], [2, 4], [1, 2]),  # the straddling token's first character is the line's end: step one
        (["a", "\nb"], [2, 3], [1]),  # no token begins in the second step: the ends merge
        (["a\nb\nc"], [2, 4, 5], [0]),
        (["a", "\n", "", "é"], [2, 3], [1, 3]),  # a first half of a character goes with the second
        (["", "", "é", "\n", "b"], [2, 3], [3, 4]),
        (["", "é", "", ""], [1], [3]),
        ([""], [], []),  # an end token alone: no text, no step
        ([], [], []),
    ],
)
def test_the_last_token_of_each_step(pieces, ends, last):
    assert token_ends(pieces, ends) == last


def test_ends_of_another_text_are_our_own_mistake():
    with pytest.raises(ValueError, match="the steps end at 5, but the tokens' text has 2 characters"):
        token_ends(["a", "b"], [5])


@given(st.lists(st.text(alphabet="ab\n", max_size=3), max_size=12))
def test_every_token_is_in_the_step_of_its_first_character(pieces):
    """The definition, character by character, as oracle."""
    text = "".join(pieces)
    ends = step_ends(text, Pattern())
    of_character = [sum(end <= i for end in ends) for i in range(len(text))]
    starts = [len("".join(pieces[:t])) for t in range(len(pieces))]
    belongs = [of_character[min(start, len(text) - 1)] for start in starts] if text else []
    wanted = {step: t for t, step in enumerate(belongs)}  # the last token seen of each
    assert token_ends(pieces, ends) == list(wanted.values())


# Rollouts


def test_splitting_rollouts_by_hand():
    r"""Row 0: "a\n" | "bc" + end token; row 1: an end token alone; row 2: one step, shorter than the others."""
    steps = split_rollouts(rollouts(("a", "\n", "b", "c", ""), ("",), ("x", "y")), Pattern())
    assert steps.ends == ((1, 4), (), (1,))
    assert steps.count.tolist() == [2, 0, 1]
    assert steps.index.tolist() == [[0, 0, 1, 1, 1], [-1] * 5, [0, 0, -1, -1, -1]]
    values = torch.tensor([[1.0, 2, 3, 4, 5], [9, NAN, NAN, NAN, NAN], [6, 7, NAN, torch.inf, NAN]])
    same(at_ends(values, steps), [[2, 5], [NAN, NAN], [7, NAN]])
    same(over_steps(values, steps), [[3, 12], [NAN, NAN], [13, NAN]])
    same(
        spread(torch.tensor([[0.5, 0.25], [NAN, NAN], [2, NAN]]), steps),
        [[0.5, 0.5, 0.25, 0.25, 0.25], [0.0] * 5, [2, 2, 0, 0, 0]],
    )


def test_reading_one_token_early_or_late_is_seen():
    """A verifier that is sure only at the delimiter: its value must be read there and nowhere else."""
    steps = split_rollouts(rollouts(("1", "+", "\n", "2", "\n", "3", "")), Pattern())
    at_delimiter = torch.tensor([[0.0, 0, 1, 0, 1, 0, 1]])
    same(at_ends(at_delimiter, steps), [[1, 1, 1]])


def test_a_given_prefix_is_in_no_step():
    r"""Text "a\nb\nc", of which "a\n" and "b" were given: step one is not counted, step two has its "\n" alone."""
    steps = split_rollouts(rollouts(("a", "\n", "b", "\n", "c", ""), prefix=[3]), Pattern())
    assert steps.ends == ((3, 5),)
    assert steps.index.tolist() == [[-1, -1, -1, 0, 1, 1]]
    same(over_steps(torch.arange(6.0)[None], steps), [[3, 9]])


def test_a_prefix_whose_delimiter_is_sampled_is_split_with_the_rest():
    steps = split_rollouts(rollouts(("a", "\n", "b"), prefix=[1]), Pattern())
    assert steps.ends == ((1, 2),)


def test_every_sampled_token_as_a_step():
    """A given token, three sampled ones; nothing sampled; two sampled ones."""
    steps = token_steps(torch.tensor([[False, True, True, True], [False] * 4, [True, True, False, False]]))
    assert steps.ends == ((1, 2, 3), (), (0, 1))
    assert steps.index.tolist() == [[-1, 0, 1, 2], [-1] * 4, [0, 1, -1, -1]]
    assert steps.count.tolist() == [3, 0, 2]
    assert spread(torch.tensor([[5.0, 6, 7], [0, 0, 0], [8, 9, 0]]), steps).tolist() == [
        [0, 5, 6, 7],
        [0, 0, 0, 0],
        [8, 9, 0, 0],
    ]


def test_all_empty_and_no_rows():
    steps = split_rollouts(rollouts((), ()), Pattern())
    assert steps.count.tolist() == [0, 0]
    assert at_ends(torch.zeros(2, 0), steps).shape == over_steps(torch.zeros(2, 0), steps).shape == (2, 0)
    assert spread(torch.zeros(2, 0), steps).shape == (2, 0)
    end_alone = split_rollouts(rollouts(("",), ("",)), Pattern())
    assert at_ends(torch.ones(2, 1), end_alone).shape == (2, 0)
    same(spread(torch.zeros(2, 0), end_alone), [[0], [0]])


def test_the_row_of_a_bad_splitter_is_named():
    with pytest.raises(InputError, match="response 1: the splitter gave"):
        split_rollouts(rollouts(("a",), ("bb",)), lambda text: [7] if text == "bb" else [])


def test_values_of_other_shapes_are_refused():
    steps = split_rollouts(rollouts(("a", "b")), Pattern())
    for read in (at_ends, over_steps):
        with pytest.raises(ValueError, match=r"values must be of shape \(1, 2\), not \(1, 3\)"):
            read(torch.zeros(1, 3), steps)
    with pytest.raises(ValueError, match="does not fit"):
        spread(torch.zeros(1, 0), steps)
    with pytest.raises(ValueError, match="rows, as count has"):
        Steps(ends=(), index=steps.index, count=steps.count)


texts = st.lists(st.lists(st.text(alphabet="ab\n", max_size=3), min_size=1, max_size=8), min_size=1, max_size=4)


@slow_start
@given(texts, st.sampled_from([Pattern(), Pattern("b"), Pattern("(?=a)"), lambda text: []]))
def test_step_rewards_sum_to_the_response_reward_under_any_splitter(rows, splitter):
    steps = split_rollouts(rollouts(*rows), splitter)
    values = torch.arange(1.0, 1 + steps.index.numel()).reshape(steps.index.shape)
    written = torch.tensor([bool("".join(row)) for row in rows])
    inside = rollouts(*rows).seq.mask & written[:, None]
    same(over_steps(values, steps).nansum(dim=1), torch.where(inside, values, 0.0).sum(dim=1))


@slow_start
@given(texts)
def test_reading_what_was_spread_gives_it_back(rows):
    steps = split_rollouts(rollouts(*rows), Pattern())
    most = int(steps.count.max())
    given_to = torch.where(torch.arange(most) < steps.count[:, None], torch.arange(1.0, most + 1), torch.nan)
    same(at_ends(spread(given_to, steps), steps), given_to)
    tokens = over_steps(torch.ones(steps.index.shape), steps)
    same(over_steps(spread(given_to / tokens, steps), steps), given_to)


@slow_start
@given(texts, st.integers(0, 3))
def test_padding_and_other_rows_change_nothing(rows, more):
    alone = [split_rollouts(rollouts(row), Pattern()) for row in rows]
    together = split_rollouts(rollouts(*rows, ["a\n"] * (8 + more)), Pattern())
    assert together.ends[: len(rows)] == tuple(steps.ends[0] for steps in alone)


# A real tokenizer


def test_steps_of_a_language_model_with_a_real_tokenizer_and_a_prefix():
    model = LanguageModel(make_network(), make_tokenizer(), sampling=Sampling(max_new_tokens=12), device="cpu")
    problem = Problem(id="p", prompt="2+2")
    sampled = model.sample([problem], 6, Rng((3,)))
    for splitter in (Pattern(), Pattern("[0-9]")):
        steps = split_rollouts(sampled, splitter)
        for row, text in enumerate(sampled.text):
            pieces = sampled.pieces[row]
            of_text = step_ends(text, splitter)
            for end in steps.ends[row]:  # the text up to a step's last token covers a step's end in characters
                read = len("".join(pieces[: end + 1]))
                assert any(read >= cut > read - len(pieces[end]) for cut in of_text) or read == len(text)
    given_tokens = sampled.seq.tokens[0, :2].tolist()
    more = model.sample([problem], 3, Rng((4,)), prefixes=[given_tokens])
    assert (split_rollouts(more, Pattern()).index[:, :2] == -1).all()


def test_characters_of_several_tokens_with_a_byte_level_tokenizer():
    """Every character beyond ASCII is two to four tokens here, and a line's end always ends a step where it stands."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator([], trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, clean_up_tokenization_spaces=False)
    text = "\u4e00+\u4e00\n\u00e9\U0001f600\n\u4e8c"
    tokens = tokenizer(text)["input_ids"]
    parts = pieces(tokenizer, tokens)
    assert "".join(parts) == text
    assert len(tokens) == len(text.encode()) == 18
    assert token_ends(parts, step_ends(text, Pattern())) == [7, 14, 17]  # 3 + 1 + 3 + 1 bytes, 2 + 4 + 1, 3
