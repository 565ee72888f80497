"""The form of every chapter, its exercises, and whether the rules can fail."""

import contextlib
import io
import re
import runpy
import sys
import tomllib
import types

import form
import nbformat
import pytest

from iclrtut import claims
from iclrtut.commands import execute

CHAPTERS = sorted((form.TREE / "book" / "chapters").glob("*.md"))
TEMPLATE = form.TREE / "tools" / "template"
by_chapter = pytest.mark.parametrize("file", CHAPTERS, ids=lambda file: file.stem)


KNOWN = tomllib.loads((form.TREE / "tests" / "known_form.toml").read_text("utf-8"))


@by_chapter
@pytest.mark.parametrize("rule", form.RULES.values(), ids=form.RULES)
def test_chapter(file, rule):
    known = KNOWN.get(file.stem, {}).get(rule.__name__, [])
    new, gone = form.excuse(rule(form.load(file)), known)
    assert not new, "\n".join(new)
    assert not gone, "mended, so strike it from known_form.toml: " + "\n".join(gone)


def test_known_complaints_are_of_chapters_and_rules_that_exist():
    assert set(KNOWN) <= set(claims.slugs())
    assert {rule for rules in KNOWN.values() for rule in rules} <= set(form.RULES)


@pytest.mark.parametrize(
    ("complaints", "new", "gone"),
    [
        (["it has 4,100 words, over 4,000", "no fit"], 0, 0),
        (["it has 3,999 words, over 4,000", "no fit"], 0, 0),
        (["it has 4,101 words, over 4,000", "no fit"], 1, 1),
        (["it has 4,100 words, over 4,000", "no fit", "no fit"], 1, 0),
        (["it has 4,100 words, over 4,000", "no step"], 1, 1),
        (["no fit"], 0, 1),
        ([], 0, 2),
    ],
)
def test_a_known_complaint_is_excused_once_and_only_while_it_gets_no_worse(
    complaints, new, gone
):
    known = ["it has 4,100 words, over 4,000", "no fit"]
    assert tuple(map(len, form.excuse(complaints, known))) == (new, gone)


@by_chapter
def test_every_code_block_is_a_cell(file):
    """A fence that is misspelt would be shown and never run."""
    text = file.read_text(encoding="utf-8")
    fences = re.findall(r"(?m)^```\{code-cell\}", text)
    assert len(fences) == len(form.codes(form.load(file)))
    named = set(re.findall(r"(?m)^```(\S+)", text))
    assert named <= {"{code-cell}", "python"}


@by_chapter
def test_a_chapter_stands_in_the_contents_and_has_a_module(file):
    contents = (form.TREE / "_toc.yml").read_text(encoding="utf-8")
    assert f"notebooks/{file.stem}\n" in contents + "\n"
    assert file.stem in claims.slugs()


@pytest.mark.parametrize("slug", claims.slugs())
def test_every_module_has_its_chapter(slug):
    assert (form.TREE / "book" / "chapters" / f"{slug}.md") in CHAPTERS


# The notebook against its source

ADDRESS = re.compile(r"git\+https://github\.com/\S+@\w+")


def published(slug):
    """The executed notebook of a chapter."""
    file = form.TREE / "notebooks" / f"{slug}.ipynb"
    assert file.is_file(), f"{file} is missing: run `make notebooks`"
    return nbformat.read(file, as_version=4)


@by_chapter
def test_notebook_is_its_source(file):
    """Cell by cell; the commit of the page and the pipeline's own tag aside."""
    made, written = published(file.stem).cells, execute.source(file.stem).cells
    assert len(made) == len(written)
    for number, (one, other) in enumerate(zip(made, written, strict=True)):
        texts = [ADDRESS.sub("HERE", cell.source) for cell in (one, other)]
        tags = set(one.metadata.get("tags", [])) - {"nbval-check-output"}
        where = (
            f"cell {number} of {file.stem}.ipynb is not its source's: make notebooks"
        )
        assert one.cell_type == other.cell_type, where
        assert texts[0] == texts[1], where
        assert tags == set(other.metadata.get("tags", [])), where


@by_chapter
def test_every_number_was_filled_in(file):
    assert not [c.source for c in published(file.stem).cells if "{{" in c.source]


@by_chapter
def test_notebook_was_executed(file):
    """In order, without an error; the checks printed their lines and are marked."""
    cells = [cell for cell in published(file.stem).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        texts = [out.get("text", "") for out in cell.outputs]
        assert not [out for out in cell.outputs if out.output_type == "error"]
        results = [o for o in cell.outputs if o.output_type == "execute_result"]
        assert all("text/markdown" in out.data for out in results), cell.source
        practice = any(
            "-" in tag for tag in cell.metadata.get("tags", []) if "nbval" not in tag
        )
        calls = {form.ast.unparse(call.func) for call in form.calls(cell.source)}
        if calls & {*form.CHECKS, "same_steps"} and not practice:
            assert any("✓ " in text for text in texts), cell.source
            assert "nbval-check-output" in cell.metadata.get("tags", []), cell.source
        if "figures.show" in calls or calls & {"play.frames", "play.widget"}:
            pages = [out.get("data", {}).get("text/html", "") for out in cell.outputs]
            assert any("<figure" in page for page in pages), cell.source


@by_chapter
def test_every_declared_claim_is_shown_in_the_notebook(file):
    outputs = [
        out.get("data", {}).get("text/markdown", "")
        for cell in published(file.stem).cells
        if cell.cell_type == "code"
        for out in cell.outputs
    ]
    shown = set(re.findall(r"\| \*\*(\w+)\*\*:? ", "\n".join(outputs)))
    declared = [claim.id for claim in claims.chapter(file.stem).claims]
    assert [id for id in declared if id not in shown] == []


# The exercises: the set-up cells, the answer, the check


def say(cells, seed=0):
    """Run cells in one namespace, with the parameters as papermill sets them."""
    space: dict[str, object] = {}
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        for source in cells:
            exec(compile(form.python(source), "cell", "exec"), space)
            if "profile" in space:
                space.update(profile="smoke", seed=seed)
    return out.getvalue()


def practice(document, number, answer):
    """What the check of an exercise says to an answer."""
    opening = [c.text for c in form.codes(document) if c.section == "Set-up"]
    check = form.answers(document)[number]["check"]
    return say([*opening, answer, check]).splitlines()[-1]


def wrong_answers(slug):
    """Plausible wrong answers: exercise number -> texts."""
    file = form.TREE / "tests" / "chapters" / slug / "wrong_answers.py"
    assert file.is_file(), f"write {file}: two wrong answers for each exercise"
    return runpy.run_path(str(file))["WRONG"]


# The template passes once it is filled in, and runs


def filled():
    """The template with every gap filled."""
    text = (TEMPLATE / "chapter.md").read_text(encoding="utf-8")
    text = re.sub(r"«[^»]*»", "some words that fill this gap of the template", text)
    return text.replace("SLUG", "filled")


GOOD = filled()
PACKAGE = (TEMPLATE / "experiments.py").read_text(encoding="utf-8")


def template(text=GOOD):
    """The filled template, or a text made from it, with its package."""
    return form.read(text, "filled", PACKAGE)


@pytest.mark.parametrize("rule", form.RULES.values(), ids=form.RULES)
def test_the_filled_template_passes(rule):
    assert rule(template()) == []


def test_a_package_that_trains_nothing_needs_no_comparison():
    alone = GOOD.replace("same_steps(", "print(")
    assert form.RULES["training"](template(alone))
    assert form.RULES["training"](form.read(alone, "filled")) == []


def test_the_template_itself_says_what_is_not_filled_in():
    text = (TEMPLATE / "chapter.md").read_text(encoding="utf-8")
    assert len(form.placeholders(form.read(text, "filled"))) > 20


def test_the_filled_template_runs(monkeypatch, tmp_path):
    """Every cell in order in smoke, with the template's module; all claims measured."""
    base = "iclrtut.chapters.filled"
    for name in ("__init__", "method", "experiments"):
        code = (TEMPLATE / f"{name}.py").read_text("utf-8").replace("SLUG", "filled")
        full = base if name == "__init__" else f"{base}.{name}"
        module = types.ModuleType(full)
        monkeypatch.setitem(sys.modules, full, module)
        exec(compile(code, f"{name}.py", "exec"), vars(module))
        if name != "__init__":
            setattr(sys.modules[base], name, module)
    chapter = sys.modules[base].CHAPTER
    monkeypatch.setattr(claims, "slugs", lambda: ["filled"])
    monkeypatch.setattr(claims, "chapter", lambda slug: chapter)
    monkeypatch.setenv("ICLRTUT_CHECKPOINTS", str(tmp_path))
    monkeypatch.setenv("ICLRTUT_RECORDS", str(tmp_path / "records"))
    monkeypatch.delenv("ICLRTUT_PROFILE", raising=False)
    said = say([cell.text for cell in form.codes(template())])
    passed = [line[:6].strip() for line in said.splitlines() if line.startswith("✓")]
    assert passed == ["✓ (1)", "✓ (2)", "✓ (3)", "✓ loop", "✓ (4)"]
    assert (tmp_path / "records" / "filled" / "smoke-cpu-0.json").is_file()
    for number, found in form.answers(template()).items():
        assert "right" in practice(template(), number, found["solution"])
        assert "not yet" in practice(template(), number, found["stub"])


# Each rule fails on a document with one fault

BLOCK = "```{code-cell} ipython3\n"
UNCHECKED = """> **Exercise 5 (5 min, easy).** Why?

<details><summary><b>Solution 5</b></summary>

Because.

</details>

"""
MANY = f"{BLOCK}a = 1\n```\n" * 60
LONG = "\n" + "So " * 4000 + f"\n\n{MANY}"
FAULTS = [
    ("sections", "## Play\n", "## Game\n", "'Game'"),
    ("sections", "## Play\n", "### Play\n", "section 8"),
    ("sections", "# some words", "#some words", "titles"),
    (
        "sections",
        "## Run card\n\nThis is what produced",
        "## More\n\nThat",
        "section 13",
    ),
    ("sections", "## Further derivations\n", "", "'Further derivations'"),
    ("order_of_headings", "## Play\n", "## Play\n\n#### Deep\n", "'Deep'"),
    ("placeholders", "numbers on this page", "«numbers» on this page", "«numbers»"),
    ("placeholders", "numbers on this page", "TODO", "TODO"),
    ("opening", "{{seconds}}", "60 s", "{{seconds}}"),
    ("opening", "{{prerequisites}}", "courage", "{{prerequisites}}"),
    ("opening", "![some", "[some", "picture"),
    ("outcomes", "(exercise 1)", "(exercise 9)", "outcome 1"),
    ("outcomes", "(exercise 1)", "", "outcome 1"),
    ("outcomes", "3. You", "You", "2 outcomes"),
    ("setup", ":tags: [setup]\n", "", "tag it `setup`"),
    (
        "setup",
        "import importlib.util\n",
        "import importlib.util\n" + "x = 1\n" * 5,
        "6",
    ),
    ("setup", "seed = 0\n", "seed = 0\nsize = 3\n", "size"),
    ("setup", ":tags: [parameters]\n", "", "0 cells"),
    ("setup", '"filled", profile, seed', '"filled", profile, 0', "lacks"),
    ("setup", "@COMMIT", "@main", "OWNER"),
    ("equations", r"\tag{2}", r"\tag{6}", "(6) is not executed"),
    ("equations", r"\tag{2}", r"\tag{1}", "stands twice"),
    ("equations", r"\tag{2}", r"\tag{two}", "'two'"),
    ("equations", 'monte_carlo("2"', 'monte_carlo("7"', "(7), which no equation"),
    ("equations", 'monte_carlo("2"', 'monte_carlo(f"{2}"', "no plain text"),
    ("equations", "Try half.\n", "Try half.\n\n### Next\n", "(2) is not executed"),
    ("links", "[(1)](#eq-1)", "[(1)](#eq-9)", "nowhere"),
    ("links", "[(1)](#eq-1)", "[(1)](#eq-2)", "leads to"),
    ("links", "[(1)](#eq-1)", "[this](#exercise-9)", "nowhere"),
    ("sizes", "d = 2\n", "d = 2\n" * 31, "over 30"),
    ("sizes", "d = 2\n", "d = 2" + " " * 70 + "# two\n", "over 79"),
    ("neighbours", "Try half.\n", f"Try half.\n\n{BLOCK}a = 1\n```\n", "no sentence"),
    ("neighbours", "One draw at a time, the cell reads like the formula.", "", None),
    ("neighbours", "The check sets the derivative of (2) to zero.", "", "no sentence"),
    ("proportion", "d = 2\n", "d = 2\n" * 200, "words"),
    ("core", "Try half.\n", "Try half. " + "So " * 4000, "words, over 4,000"),
    ("core", "Try half.\n", "Try half. " + "So " * 2000, None),
    ("core", "## Further derivations\n", "## Further derivations\n" + LONG, None),
    ("core", "Try half.\n", f"Try half.\n\n{MANY}", "code cells, over 60"),
    ("training", "    loss.backward()\n", "", "no function under Training"),
    ("training", "    optimizer.step()\n", "", "no function under Training"),
    ("training", "    optimizer.step()\n", "    adam.step()\n", None),
    ("training", "## Training", "## Trying", "hands a loop to fit"),
    ("training", "history = fit(", "history = print(", "hands a loop to fit"),
    ("training", "same_steps(loop", "print(loop", "calls same_steps"),
    ("training", "    return {", "    print(t)\n    return {", None),
    ("changes", "### What we changed", "### What stays", "does not end with"),
    ("changes", "### What we changed", "### A\n\n### What we changed", None),
    ("changes", "\n## Play", "\n### And more\n\n## Play", "does not end with"),
    ("changes", "| The paper | Its code |", "| Paper | Code |", "no table"),
    ("changes", "|---|---|---|\n", "|---|---|---|\n| a | b |\n", "no table"),
    ("changes", "Left out:\n\n- ", "Left out: ", "no list"),
    ("alt_texts", "![some words that fill this gap of the template]", "![]", "''"),
    ("alt_texts", "![some words that fill this gap of the template]", "![a b]", "a b"),
    ("alt_texts", "numbers on this page", 'page <img src="a.png">', "<img"),
    ("alt_texts", '    label="c",\n    alt=', '    label="c",\n    tooltip=', "play"),
    ("alt_texts", "d = 2\n", "d = 2\nplt.show()\n", "plt.show"),
    ("plays", "play.frames(", "print(", "Play"),
    ("exercises", "Exercise 4 (an", "Exercise 5 (an", "numbered"),
    ("exercises", "Exercise 4 (an afternoon, open)", "Exercise 4", "3 exercises"),
    ("exercises", "<b>Solution 1</b>", "<b>Answer 1</b>", "folded solution"),
    ("exercises", "<b>Solution 3</b>", "<b>Solution 4</b>", "folded solution"),
    ("exercises", ":tags: [check-2]\n", "", "exercise 2 has no check"),
    ("exercises", ":tags: [exercise-2]\n", "", "exercise 2 has no stub"),
    ("exercises", "```python\ndef best", "```\ndef best", "exercise 2 has no solution"),
    ("exercises", "run.exercise(2)", "run.exercise(3)", "begins otherwise"),
    ("exercises", "## Further", UNCHECKED + "## Further", "2 of 5 exercises"),
    ("stubs", "    square = mu.square().sum()\n    return ...", "    ...", None),
    ("stubs", "    return ...", "    return square", "nothing out"),
    ("stubs", "    return ...", "    total = ...\n    return ...", "total"),
    (
        "stubs",
        "def best_factor(mu):\n    square = mu.",
        "def best(mu):\n    square = mu.",
        "best",
    ),
    ("typed_numbers", "({{smaller_error}} in", "(3.14 in", "3.14"),
    ("typed_numbers", "({{smaller_error}} in", "(97 % in", "97 %"),
    ("typed_numbers", "Left out:\n\n- ", "Left out:\n\n- 3.14 ", "3.14"),
    ("typed_numbers", "|---|---|---|\n", "|---|---|---|\n| 0.5 | 1 % | 2 |\n", None),
    ("claims", "> **Claim (error).**", "Claim:", "begin"),
    ("claims", "run.claim(", "print(", "measures nothing"),
    ("claims", "run.claim(", "run.claim_all(", None),
    ("claims", "### some words", "some words", "no claim"),
    ("card", "run.card()", "print()", "run.card()"),
    ("card", "**References.**", f"{BLOCK}d = 3\n```\n\n**References.**", "run.card()"),
    ("clean_code", "d = 2\n", "d = two\n", "F821"),
    ("clean_code", "d = 2\n", "import os\n\nd = 2\n", "F401"),
]


@pytest.mark.parametrize(("rule", "old", "new", "words"), FAULTS)
def test_a_rule_complains_about_its_fault(rule, old, new, words):
    """`words` None: the change is harmless and must pass."""
    assert old in GOOD
    complaints = form.RULES[rule](template(GOOD.replace(old, new, 1)))
    if words is None:
        assert complaints == []
    else:
        assert words in "\n".join(complaints) and complaints


def test_every_rule_is_seen_to_fail():
    seen = {rule for rule, _, _, words in FAULTS if words is not None}
    assert seen == set(form.RULES)
