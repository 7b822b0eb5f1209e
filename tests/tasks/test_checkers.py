"""A table of hand-written answers, right and wrong, for each checker."""

import time

import pytest

from reckon.errors import InputError
from reckon.tasks import CHECKERS, Choice, Exact, Number, Set, YesNo

COUNT = Number(minimum=0)

NUMBER = [  # text, reference, outcome, what was read
    ("There are 3 r's.", "3", 1, "3"),
    ("3", "3", 1, "3"),
    ("  3\n", "3", 1, "3"),
    ("**3**", "3", 1, "3"),
    ("_3_", "3", 1, "3"),
    ("`3`", "3", 1, "3"),
    ("$3$", "3", 1, "3"),
    ("3.", "3", 1, "3"),
    ("(3)", "3", 1, "3"),
    ("[3]", "3", 1, "3"),
    ("3 letters", "3", 1, "3"),
    ("=3", "3", 1, "3"),
    ("003", "3", 1, "3"),
    ("The 10-letter word has 3", "3", 1, "3"),
    ("Result: 3\nin 10 letters", "3", 1, "3"),
    ("RESULT: 3\nin 10 letters", "3", 1, "3"),
    ("Answer: 3 (of 10 letters)", "3", 1, "3"),
    ("**Answer:** 3 of 10", "3", 1, "3"),
    ("Answer:\n3", "3", 1, "3"),
    ("Final answer: 3. I checked all 10 letters.", "3", 1, "3"),
    ("The answer is 3, since the word has 10 letters", "3", 1, "3"),
    ("The answer is three of ten", "3", 1, "3"),
    ("Total: 134", "134", 1, "134"),
    ("17 + 48 = 65\n65 + 69 = 134\nTotal: 134", "134", 1, "134"),
    ("Answer: 17 + 48 = 65", "65", 1, "65"),
    ("Answer: 4. No, wait. Answer: 3", "3", 1, "3"),
    ("#### 72", "72", 1, "72"),
    ("48/2 = 24\n#### 72", "72", 1, "72"),
    ("two", "2", 1, "2"),
    ("Two.", "2", 1, "2"),
    ("twice", "2", 1, "2"),
    ("It appears once.", "1", 1, "1"),
    ("thrice", "3", 1, "3"),
    ("zero", "0", 1, "0"),
    ("twenty-one", "21", 1, "21"),
    ("twenty one", "21", 1, "21"),
    ("one hundred and five", "105", 1, "105"),
    ("three thousand and forty", "3040", 1, "3040"),
    ("two hundred thousand, three hundred and one", "200301", 1, "200301"),
    ("The 10-letter word has three r's.", "3", 1, "3"),
    ("There is one r.", "1", 1, "1"),
    ("One.", "1", 1, "1"),
    ("exactly one", "1", 1, "1"),
    ("no one knows", "3", 0, None),
    ("no one knows", "1", 0, None),
    ("the first one", "1", 0, None),
    ("It is one of the letters", "1", 0, None),
    ("3, the first one counted too", "3", 1, "3"),
    ("phone, none, often, weight, tent", "1", 0, None),
    ("none", "0", 0, None),
    ("3.0", "3", 1, "3"),
    ("3.50", "3.5", 1, "3.5"),
    (".5", "1/2", 1, "0.5"),
    ("1/2", "0.5", 1, "0.5"),
    ("2/4", "1/2", 1, "0.5"),
    ("1/3", "1/3", 1, "1/3"),
    ("1/0", "1", 0, None),
    (r"\boxed{\frac{1}{2}}", "0.5", 1, "0.5"),
    (r"\boxed{-\frac{1}{2}}", "-0.5", 1, "-0.5"),
    ("1,024", "1024", 1, "1024"),
    ("1,024,000", "1024000", 1, "1024000"),
    ("1{,}024", "1024", 1, "1024"),
    (r"\boxed{1\,024}", "1024", 1, "1024"),
    ("$1,024.50", "1024.5", 1, "1024.5"),
    ("17, 48, 20", "20", 1, "20"),
    ("7,5,0", "0", 1, "0"),
    ("1.5e3", "1500", 1, "1500"),
    ("-3", "-3", 1, "-3"),
    ("−3", "-3", 1, "-3"),
    ("5-3", "3", 1, "3"),
    ("3-letter", "3", 1, "3"),
    ("+3", "3", 1, "3"),
    ("３", "3", 1, "3"),
    ("１２", "12", 1, "12"),
    ("١٢", "12", 1, "12"),
    ("x²", "2", 0, None),
    ("10²", "102", 0, None),
    ("③", "3", 0, None),
    ("the 3rd letter", "3", 0, None),
    ("r3d2", "2", 0, None),
    (r"\boxed{3}", "3", 1, "3"),
    (r"\boxed{3} in 10 letters", "3", 1, "3"),
    (r"\boxed{4} or rather \boxed{3}", "3", 1, "3"),
    (r"\boxed{3} or rather \boxed{4}", "3", 0, "4"),
    (r"It is 3, so \boxed{3", "3", 0, None),
    (r"3 and \boxed{}", "3", 0, None),
    (r"3 and \boxed{\text{three}}", "3", 1, "3"),
    (r"3 and \boxed{many}", "3", 0, None),
    (r"\boxed{{{3}}}", "3", 1, "3"),
    ("<answer>3</answer> of 10", "3", 1, "3"),
    ("<answer>4</answer><answer>3</answer>", "3", 1, "3"),
    (r"<answer>I say \boxed{3} of 10</answer>", "3", 1, "3"),
    ("<answer></answer> 3", "3", 0, None),
    ("so <answer>3", "3", 1, "3"),
    ("<think>4? 5?</think> 3", "3", 1, "3"),
    ("<think>It may be 3", "3", 0, None),
    ("<think>3</think>", "3", 0, None),
    ("", "3", 0, None),
    ("   \n\t ", "3", 0, None),
    ("I do not know.", "3", 0, None),
    ("4", "3", 0, "4"),
    ("30", "3", 0, "30"),
    ("13", "3", 0, "13"),
    ("3.1", "3", 0, "3.1"),
    ("9" * 5000, "3", 0, None),
    ("1e99", "3", 0, str(10**99)),
    ("<b>3</b>", "3", 1, "3"),
    ("<script>alert(3)</script>", "3", 1, "3"),
    ("__import__('os').system('echo 3')", "3", 1, "3"),
    ("print(len('strawberry'))", "10", 0, None),
    ("\x00\ud83d 3", "3", 1, "3"),
]

CHOICE = [  # options, text, reference, outcome, what was read
    ("ABCD", "B", "B", 1, "B"),
    ("ABCD", "b", "B", 1, "B"),
    ("ABCD", "(B)", "B", 1, "B"),
    ("ABCD", "B.", "B", 1, "B"),
    ("ABCD", "**B**", "B", 1, "B"),
    ("ABCD", r"\boxed{B}", "B", 1, "B"),
    ("ABCD", r"\boxed{\text{B}}", "B", 1, "B"),
    ("ABCD", r"\boxed{\text{(B)}}", "B", 1, "B"),
    ("ABCD", "The answer is B.", "B", 1, "B"),
    ("ABCD", "Answer: B) a red house", "B", 1, "B"),
    ("ABCD", "B is right because it fits", "B", 1, "B"),
    ("ABCD", "A is wrong, so C", "C", 1, "C"),
    ("ABCD", "C, since A dog cannot fly", "C", 1, "C"),
    ("ABCD", "A dog cannot fly", "A", 0, None),
    ("ABCD", "BAD", "B", 0, None),
    ("ABCD", "A, then B", "A", 0, "B"),
    ("ABCD", "E", "B", 0, None),
    ("ABCD", "", "B", 0, None),
    ("ABCD", "plan b is good", "B", 0, None),
    ("ABCD", "B's weight", "B", 0, None),
    (("True", "False", "Unknown"), "It is true.", "True", 1, "True"),
    (("True", "False", "Unknown"), "TRUE or FALSE? FALSE", "False", 1, "False"),
    (("True", "False", "Unknown"), "untrue", "True", 0, None),
    (("True", "False", "Unknown"), "<think>False</think> Unknown", "Unknown", 1, "Unknown"),
    (("mother", "grandmother"), "grandmother", "grandmother", 1, "grandmother"),
    (("mother", "grandmother"), "the grandmother of", "mother", 0, "grandmother"),
    (("niece", "great-niece"), "Ann is the great-niece", "great-niece", 1, "great-niece"),
]

YES_NO = [
    ("Yes", "Yes", 1, "Yes"),
    ("yes.", "Yes", 1, "Yes"),
    ("YES!", "Yes", 1, "Yes"),
    ("It is not part of it. No.", "No", 1, "No"),
    ("No... actually Yes", "Yes", 1, "Yes"),
    ("No, 'yes' is not part of it. no", "No", 1, "No"),
    ("I know nothing", "No", 0, None),
    ("eyes", "Yes", 0, None),
    ("Answer: No (yes would be wrong)", "No", 0, "Yes"),
    ("", "No", 0, None),
    (r"\boxed{\text{Yes}}", "Yes", 1, "Yes"),
]

EXACT = [
    ("Paris", "Paris", 1, "Paris"),
    ("Paris.", "Paris", 1, "Paris"),
    ("  Paris \n", "Paris", 1, "Paris"),
    ("paris", "Paris", 0, "paris"),
    ("The answer is Paris.", "Paris", 1, "Paris"),
    ("I think Paris", "Paris", 0, "I think Paris"),
    (r"\boxed{a  b}", "a b", 1, "a b"),
    (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}", 1, r"\frac{1}{2}"),
    (r"\boxed{\{1\}}", r"\{1\}", 1, r"\{1\}"),
    ("<answer>x</answer>", "x", 1, "x"),
    ("<answer>x</answer> y", "y", 0, "x"),
    ("", "x", 0, None),
    ("Answer:", "x", 0, None),
    ("U.S.A.", "U.S.A.", 1, "U.S.A."),
    ("<img src=x onerror=alert(1)>", "x", 0, "<img src=x onerror=alert(1)>"),
]

SET = [
    ("{1, 2}", "2, 1", 1, "{1, 2}"),
    (r"\boxed{\{1, 2\}}", "{2, 1}", 1, "{1, 2}"),
    ("2 and 1", "1, 2", 1, "{1, 2}"),
    ("1, 2, and 3", "3 2 1".replace(" ", ","), 1, "{1, 2, 3}"),
    ("Answer: red; Blue", "blue, red", 1, "{blue, red}"),
    ("Step 1.\nx, y", "y, x", 1, "{x, y}"),
    ("so {a} is not it, but {a, b} is", "b, a", 1, "{a, b}"),
    ("1, 1, 2", "1, 2", 1, "{1, 2}"),
    ("1.0, 0.5", "1, 1/2", 1, "{0.5, 1}"),
    ("1, 2, 3", "1, 2", 0, "{1, 2, 3}"),
    ("1", "1, 2", 0, "{1}"),
    (r"\boxed{\emptyset}", "{}", 1, "{}"),
    ("", "1", 0, None),
]


def test_the_table_is_long_enough():
    assert len(NUMBER) + len(CHOICE) + len(YES_NO) + len(EXACT) + len(SET) >= 150


@pytest.mark.parametrize(("text", "reference", "outcome", "read"), NUMBER)
def test_number(text, reference, outcome, read):
    verdict = Number()(text, reference)
    assert (verdict.outcome, verdict.answer) == (outcome, read)
    assert verdict.reason == ("right" if outcome else "wrong" if read else "no answer")


@pytest.mark.parametrize(("options", "text", "reference", "outcome", "read"), CHOICE)
def test_choice(options, text, reference, outcome, read):
    verdict = Choice(options=tuple(options))(text, reference)
    assert (verdict.outcome, verdict.answer) == (outcome, read)


@pytest.mark.parametrize(("text", "reference", "outcome", "read"), YES_NO)
def test_yes_no(text, reference, outcome, read):
    verdict = YesNo()(text, reference)
    assert (verdict.outcome, verdict.answer) == (outcome, read)


@pytest.mark.parametrize(("text", "reference", "outcome", "read"), EXACT)
def test_exact(text, reference, outcome, read):
    verdict = Exact()(text, reference)
    assert (verdict.outcome, verdict.answer) == (outcome, read)


@pytest.mark.parametrize(("text", "reference", "outcome", "read"), SET)
def test_set(text, reference, outcome, read):
    verdict = Set()(text, reference)
    assert (verdict.outcome, verdict.answer) == (outcome, read)


def test_a_negative_number_is_no_count():
    assert COUNT("-3", "3").reason == "no answer"
    assert COUNT("first 3, then -3", "3").reason == "no answer"  # the last one decides, and it is none


@pytest.mark.parametrize(
    ("checker", "text", "reference", "last"),
    [
        (Number, "The 10-letter word has 3", "3", "right"),
        (Number, r"\boxed{3} or \boxed{4}", "4", "right"),
        (Number, "Answer: 3 or 4", "3", "right"),
        (YesNo, "No... actually Yes", "Yes", "right"),
        (Choice, "A, then B", "B", "right"),
        (Exact, "<answer>x</answer><answer>y</answer>", "y", "right"),
        (Set, r"\boxed{1,2} \boxed{3}", "3", "right"),
    ],
)
def test_strict_finds_answers_that_differ_ambiguous(checker, text, reference, last):
    assert checker()(text, reference).reason == last
    verdict = checker(policy="strict")(text, reference)
    assert (verdict.outcome, verdict.answer, verdict.reason) == (0.0, None, "ambiguous")


def test_strict_accepts_the_same_answer_twice():
    assert Number(policy="strict")(r"\boxed{3}, that is \boxed{3.0}", "3").outcome == 1.0
    assert YesNo(policy="strict")("Yes. yes!", "Yes").outcome == 1.0


def test_exact_may_ignore_letter_case():
    assert Exact(case=False)("PARIS", "Paris").outcome == 1.0


def test_set_may_give_f1():
    # reference {1, 2, 3}, given {1, 2, 4, 5}: 2 shared, F1 = 2 * 2 / (3 + 4)
    verdict = Set(partial=True)("1, 2, 4, 5", "1, 2, 3")
    assert verdict.reason == "partial"
    assert verdict.outcome == pytest.approx(4 / 7)
    assert Set(partial=True)("4, 5", "1, 2").outcome == 0.0
    assert Set(partial=True)("2, 1", "1, 2").outcome == 1.0


@pytest.mark.parametrize("name", [name for name in CHECKERS if name != "math"])
def test_no_reference_is_unknown_and_no_answer_is_wrong(name):
    checker = CHECKERS[name]()
    unknown = checker("Yes 3 A", None)
    assert (unknown.outcome, unknown.reason) == (None, "no reference")
    reference = {"number": "3", "choice": "A", "yes_no": "Yes"}.get(name, "x")
    wrong = checker("", reference)
    assert (wrong.outcome, wrong.answer, wrong.reason) == (0.0, None, "no answer")


@pytest.mark.parametrize(("checker", "reference"), [(Number(), "many"), (Choice(), "Z"), (YesNo(), "maybe")])
def test_a_reference_that_cannot_be_read_is_unknown(checker, reference):
    assert checker("3 A yes", reference).reason == "no reference"


def test_the_answer_is_kept_when_there_is_no_reference():
    assert Number()("I say 3", None).answer == "3"  # majority voting needs it


@pytest.mark.parametrize("name", [name for name in CHECKERS if name != "math"])
@pytest.mark.parametrize("unit", ["1 ", "a", "\\boxed{", "<answer>", "(", "{1,", "Answer: ", "1,", "one ", "- ", "\n"])
def test_ten_megabytes_cost_little(name, unit):
    text = unit * (10_000_000 // len(unit))
    start = time.perf_counter()
    verdict = CHECKERS[name]()(text, {"number": "3", "choice": "C", "yes_no": "No"}.get(name, "x"))
    assert verdict.outcome == 0.0
    assert time.perf_counter() - start < 2.0


def test_an_answer_at_the_end_of_ten_megabytes_is_found():
    assert Number()("word " * 2_000_000 + r"\boxed{3}", "3").outcome == 1.0


def test_bad_settings():
    with pytest.raises(InputError, match="Number: `policy` must be 'last' or 'strict', not 'first'"):
        Number(policy="first")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Choice: `options` must be two or more different words"):
        Choice(options=("A", "a"))
