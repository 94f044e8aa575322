"""The generated pages are fresh."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeq.report.manual import PAGES

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("page", PAGES)
def test_a_generated_page_is_fresh(page):
    assert (ROOT / page).read_text(encoding="utf-8") == PAGES[page](), "run `python -m edgeq.report.manual`"
