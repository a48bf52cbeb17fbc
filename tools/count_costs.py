"""Write src/striate/models/costs.csv, the work and memory of every net.

    python tools/count_costs.py [NAME ...]

With names, count only those nets and keep the other rows. Nets are built without values; all of
them take about a minute of one core.
"""

import csv
import sys
from pathlib import Path

import striate
from striate import costs
from striate.registry import ModelSpec, without_values

TABLE = Path(costs.__file__).with_name("models") / "costs.csv"
COLUMNS = ("name", "macs", "activations", "live", "receptive_field", "jump")


def row(spec: ModelSpec) -> dict[str, str]:
    with without_values():
        model = striate.create_model(spec.name)
    found = costs.count(model).totals(spec.cam_layer)
    sides = {
        name: "x".join(map(str, getattr(found, name) or ())) for name in ("receptive_field", "jump")
    }
    return {
        "name": spec.name,
        "macs": str(found.macs),
        "activations": str(found.activations),
        "live": str(found.live),
        **sides,
    }


def main(names: list[str]) -> None:
    rows = {}
    if names:
        with open(TABLE, newline="", encoding="utf-8") as file:
            rows = {row["name"]: row for row in csv.DictReader(file)}
    specs = striate.list_models()
    rows |= {spec.name: row(spec) for spec in specs if not names or spec.name in names}
    with open(TABLE, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[spec.name] for spec in specs if spec.name in rows)


if __name__ == "__main__":
    main(sys.argv[1:])
