import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["bonuses.md", "explore.md", "rewards.md", "samplers.md"])
def test_the_page_s_examples_run(page, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), {})
    printed = capsys.readouterr().out
    for promised in re.findall(r"^print\(.*# (.*)$", "\n".join(blocks), re.MULTILINE):
        assert promised in printed
