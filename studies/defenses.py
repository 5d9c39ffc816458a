"""What the defenses do, in tables: `make studies` writes them into docs/studies.md, each figure a mean and a spread over seeds.

circles, moons: 8 rows of each class, in two dimensions that a fixed random map puts into a hundred.
digits: robustness of a small network on 8 by 8 digits, trained in every way.
transfer: the same network on rows moved against another model.
labels: digits of which only 50 have labels.
clusters: digits without any.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from digits import clusters, few, hold, transfer
from page import Measured, line, measurements, spread, write
from toys import drawn, toy


class Study(NamedTuple):
    """One table."""

    columns: tuple[str, ...]
    seeds: int
    """Over so many, unless told otherwise."""
    rows: Callable[[int], Iterator[Measured]]


STUDIES = {
    "circles": Study(("test error, %", "other points for each seed, %"), 3, partial(toy, "circles")),
    "moons": Study(("test error, %", "other points for each seed, %"), 3, partial(toy, "moons")),
    "digits": Study(("clean, %", "under FGSM, %", "under PGD, %"), 3, hold),
    "transfer": Study(("clean, %", "moved against another model, %", "under PGD, %"), 3, transfer),
    "labels": Study(("test error, %",), 3, few),
    "clusters": Study(("accuracy, %",), 5, clusters),
}


def main() -> None:
    """Print the tables asked for, and write each into the page that is named as its rows come in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, nargs="?", help="a page with a place for each table")
    parser.add_argument("--only", choices=STUDIES, action="append")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--draw", type=Path, help="draw the boundaries of two circles into this file, and do nothing else")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.draw:
        drawn(options.draw)
        return
    for name in options.only or STUDIES:
        study, rows = STUDIES[name], list[Measured]()
        print(f"{name}: {', '.join(study.columns)}", flush=True)
        for row in study.rows(options.seeds or study.seeds):
            print(line([row.name, *map(spread, row.figures), *row.reference]), flush=True)
            rows.append(row)
            if options.page:
                write(options.page, name, measurements(study.columns, rows))


if __name__ == "__main__":
    main()
