"""What the page shows, runs."""

from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "ordinal.md"


def test_the_example_of_the_page_runs(capsys):
    (block,) = (block.split("```")[0] for block in PAGE.read_text().split("```python\n")[1:])
    exec(compile(block, str(PAGE), "exec"), {})
    _, likely, share = map(float, capsys.readouterr().out.split())
    assert abs(likely - share) < 0.001
