"""docs/layers.md says what there is."""

from pathlib import Path

from striate import layers

PAGE = Path(__file__).parents[1] / "docs" / "layers.md"


def test_the_page_names_every_layer():
    text = PAGE.read_text("utf-8")
    assert [name for name in layers.__all__ if f"`{name}`" not in text] == []
