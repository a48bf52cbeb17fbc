"""Write the table of nets in docs/models.md from the registry: `python docs/make_model_table.py`.

With `--check`, write nothing and exit with 1 where the page is not what the registry says.
"""

import itertools
import re
import sys
from pathlib import Path

import striate
from striate.registry import ModelSpec

PAGE = Path(__file__).with_name("models.md")
BEGIN, END = "<!-- nets: begin -->\n", "<!-- nets: end -->\n"


def paper_of(spec: ModelSpec) -> str:
    arxiv = re.fullmatch(r"\d{4}\.\d{4,5}", spec.paper)
    source = f"[arXiv:{spec.paper}](https://arxiv.org/abs/{spec.paper})" if arxiv else spec.paper
    return f"*{spec.title}*, {spec.year}, {source}"


def accuracy_of(spec: ModelSpec) -> str:
    if spec.accuracy is None:
        return ""
    top5 = f" / {spec.accuracy.top5:g}" if spec.accuracy.top5 else ""
    return f"{spec.accuracy.dataset} {spec.accuracy.top1:g}{top5} ({spec.accuracy.source})"


def weights_of(spec: ModelSpec) -> str:
    return ", ".join(
        f"`{w.name}`" + ("" if w.hash or w.url.startswith("shipped:") else " (no published hash)")
        for w in spec.weights
    )


def row(spec: ModelSpec) -> str:
    cells = [
        f"`{spec.name}`",
        " x ".join(map(str, spec.input_shape)),
        " x ".join(map(str, sorted(set(spec.min_shape)))),
        str(spec.classes),
        f"{spec.trainable:,}",
        f"{spec.total:,}",
        f"{spec.costs.macs:,}" if spec.costs else "",
        accuracy_of(spec),
        weights_of(spec),
        spec.differs,
    ]
    return f"| {' | '.join(cells)} |\n"


def table() -> str:
    head = (
        "| net | input | least side | classes | trainable | total | MACs | top-1 / top-5, % "
        "| weights | differs from the paper |\n"
        "|---|---|---:|---:|---:|---:|---:|---|---|---|\n"
    )
    parts = []
    for paper, specs in itertools.groupby(striate.list_models(), key=paper_of):
        rows = "".join(row(spec) for spec in specs)
        parts.append(f"\n{paper}\n\n{head}{rows}")
    return "".join(parts) + "\n"


def page(text: str) -> str:
    """The page with its table replaced by the registry's."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after


def main(arguments: list[str]) -> int:
    text = PAGE.read_text("utf-8")
    if "--check" in arguments:
        return int(page(text) != text)
    PAGE.write_text(page(text), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
