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
            print(f"○ exercise {number}: not yet. {type(error).__name__}: {error}")
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
    """Make this chapter the only one."""
    toy.install(patch)
    patch.setattr(execute, "source", lambda slug: book())


def filled(
    answers: dict[int, str], text: str = "Because.", notebook: Any = None
) -> Any:
    """A student edition, the toy's if none is given, with these answers."""
    notebook = notebook or student.edition(book(), "toy")
    for cell in notebook.cells:
        for tag in cell.metadata.get("tags", []):
            kind, _, number = tag.partition("-")
            if kind == "exercise":
                cell.source = answers.get(int(number), cell.source)
            elif kind == "answer":
                cell.source = f"Your answer:\n\n{text}"
    return notebook


def hand_in(folder: Path, student: str, notebook: Any, slug: str = "toy") -> Path:
    """Write a notebook, a text or bytes where the grader looks for a submission."""
    file = folder / student / f"{slug}.ipynb"
    file.parent.mkdir(parents=True, exist_ok=True)
    text = nbformat.writes(notebook) if isinstance(notebook, dict) else notebook
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file
