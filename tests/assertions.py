"""How a bad request is refused: what the tests of the chapters' modules share."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from iclrtut.errors import BadRequest


def refused(words: str, call: Callable[[], Any]) -> None:
    """The call is refused in one sentence that holds these words, a pattern."""
    with pytest.raises(BadRequest) as told:
        call()
    text = str(told.value)
    assert re.search(words, text), (words, text)
    assert "\n" not in text
    assert re.search(r"[^.]\.$", text)
