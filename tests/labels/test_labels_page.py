"""The page's example runs, and every public name is on it."""

from pathlib import Path

import reckon.labels

PAGE = (Path(__file__).parents[2] / "docs" / "labels.md").read_text()


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (block,) = PAGE.split("```python\n")[1:]
    exec(compile(block.split("```")[0], "labels.md", "exec"), {})
    told = capsys.readouterr().out
    assert told.startswith("For 256, buy ")
    assert "plan.html" in told
    assert (tmp_path / "plan.html").is_file()


def test_every_function_is_on_the_page():
    functions = [name for name in reckon.labels.__all__ if name.islower()]
    assert [name for name in functions if f"`{name}" not in PAGE] == []
