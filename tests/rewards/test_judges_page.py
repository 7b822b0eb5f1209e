"""The page on judges: its examples run from top to bottom, and print what it says."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "judges.md"


def test_the_page_s_examples_run_one_after_the_other(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("RECKON_CACHE", str(tmp_path))
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 13
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)
        printed = capsys.readouterr().out.splitlines()
        promised = re.findall(r"^print\(.*# (.*)$", block, re.MULTILINE)
        assert printed == promised
