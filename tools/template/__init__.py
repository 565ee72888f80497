"""«Title of the chapter»: what the chapter declares."""

from typing import NamedTuple

from iclrtut.claims import Chapter, Claim, above


class Settings(NamedTuple):
    """Sizes of one profile; the defaults are `quick`."""

    draws: int = 20_000
    steps: int = 200


CHAPTER = Chapter(
    slug="SLUG",
    title="«Title of the chapter»",
    paper="«Title of the paper»",
    authors="«Authors»",
    url="https://arxiv.org/abs/«number»",
    idea="«One sentence for the cover.»",
    difficulty="gentle",
    prerequisites="«what to know before»",
    settings={
        "smoke": Settings(draws=2000, steps=5),
        "quick": Settings(),
        "full": Settings(draws=1_000_000, steps=1000),
    },
    claims=(
        Claim(
            "smaller_error",
            "«The claim in the paper's terms»",
            "«section 1»",
            "squared error of the plain estimate minus that of the shrunken one",
            above(0),
            "«the paper's own number (table 1), or why there is none»",
        ),
    ),
)
