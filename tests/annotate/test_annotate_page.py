"""The page's examples run, and print what the page says."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "annotate.md"


def test_the_page_s_examples_run(capsys):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block, "annotate.md", "exec"), {})
    printed = capsys.readouterr().out
    promised = re.findall(r"^print\(.*# (\[.*|True|Total.*|[\d.]+ [\d.]+)$", "\n".join(blocks), re.MULTILINE)
    assert len(promised) == 9
    for line in promised:
        assert line in printed.splitlines()
