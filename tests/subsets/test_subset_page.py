"""The examples of the page run."""

import warnings
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "subsets.md"


def test_the_examples_of_the_page_run(capsys):
    blocks = [block.split("```")[0] for block in PAGE.read_text().split("```python\n")[1:]]
    assert len(blocks) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for block in blocks:
            exec(compile(block, "subsets.md", "exec"), {})
    assert capsys.readouterr().out.count("\n") == 3


def test_everything_public_is_on_the_page_or_a_type_of_its_neighbors():
    import reckon.subsets as room

    text = PAGE.read_text()
    types = {"MOST", "Candidates", "Choice", "Context", "GreedyModel", "Guess", "History", "Makes", "Pool"}
    types |= {"ScorerModel", "SetFunction", "SubsetModel", "Uniform", "entropy", "every_subset", "mlp"}
    assert not [name for name in room.__all__ if f"`{name}" not in text and name not in types]
