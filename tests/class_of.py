"""A tiny chapter with exercises, and students who hand something in."""

from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest
import toy

from iclrtut.commands import execute, student

CHAPTER = """# A toy

![three words here](data:image/svg+xml;base64,AAAA)

## Set-up

```{code-cell} ipython3
:tags: [setup]

import importlib.util

if importlib.util.find_spec("math") is None:
    %pip install -q nothing
```

```{code-cell} ipython3
:tags: [parameters]

profile = "quick"
seed = 0
```

```{code-cell} ipython3
from contextlib import contextmanager
from math import isclose as close


class Run:
    @contextmanager
    def exercise(self, number):
        try:
            yield
            print(f"✓ exercise {number}: right.")
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            print(f"○ exercise {number}: not yet. {said}")
            if os.environ.get("NBGRADER_EXECUTION"):
                raise


import os

run = Run()
```

## The mathematics

```{code-cell} ipython3
:caption: SOLUTION
raise RuntimeError("training is not for the grader")
```

See [the solution](#solution-1) and [exercise 2](#exercise-2).

## Exercises

> **Exercise 1 (5 min, easy).** Write `double(x)`.

```{code-cell} ipython3
:tags: [exercise-1]

def double(x):
    return ...
```

The check tries two numbers.

```{code-cell} ipython3
:tags: [check-1]

with run.exercise(1):
    for x in (2, 3):
        assert close(double(x), 2 * x), x
```

<details><summary><b>Solution 1</b></summary>

```python
def double(x):
    return SOLUTION
```

</details>

> **Exercise 2 (an afternoon, open).** Why?

<details><summary><b>Solution 2</b></summary>

SOLUTION

</details>

> **Exercise 3 (10 min, hard).** Write `cube(x)`.

```{code-cell} ipython3
:tags: [exercise-3]

def cube(x):
    return ...
```

The check tries one number.

```{code-cell} ipython3
:tags: [check-3]

with run.exercise(3):
    assert close(cube(3), 27)
```

<details><summary><b>Solution 3</b></summary>

SOLUTION

</details>

## Run card

```{code-cell} ipython3
print(run)
```
"""
RIGHT = {1: "def double(x):\n    return 2 * x", 3: "def cube(x):\n    return x**3"}


def book(text: str = CHAPTER) -> Any:
    """The chapter's source."""
    return jupytext.reads(text, fmt="md:myst")


def install(patch: pytest.MonkeyPatch) -> None:
    """Let this chapter be the only one."""
    toy.install(patch)
    patch.setattr(execute, "source", lambda slug: book())


def filled(answers: dict[int, str], words: str = "Because.") -> Any:
    """A student's notebook with these answers."""
    notebook = student.edition(book(), "toy")
    for cell in notebook.cells:
        for tag in cell.metadata.get("tags", []):
            kind, _, number = tag.partition("-")
            if kind == "exercise":
                cell.source = answers.get(int(number), cell.source)
            elif kind == "answer":
                cell.source = f"Your answer:\n\n{words}"
    return notebook


def hand_in(folder: Path, who: str, notebook: Any) -> Path:
    """Put a notebook, or any text, where the grader looks for it."""
    file = folder / who / "toy.ipynb"
    file.parent.mkdir(parents=True, exist_ok=True)
    text = notebook if isinstance(notebook, str) else nbformat.writes(notebook)
    file.write_text(text, encoding="utf-8")
    return file
