"""Train the lung network on phantoms: ``python -m imaging_pipeline.segmentation WEIGHTS.npz``.

Made the weights that come with the package. Needs no film of a patient.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, and write the weights."""
    from imaging_pipeline.segmentation.models import save_weights  # noqa: PLC0415 - these load torch
    from imaging_pipeline.segmentation.training import LungTraining, train_lungs  # noqa: PLC0415

    usual = LungTraining()
    parser = argparse.ArgumentParser(prog="python -m imaging_pipeline.segmentation", description=__doc__)
    parser.add_argument("weights", type=Path, help="file to write (.npz)")
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--films", type=int, default=usual.films, help="phantoms to draw (default %(default)s)")
    parser.add_argument("--steps", type=int, default=usual.steps, help="batches to train (default %(default)s)")
    options = parser.parse_args(arguments)
    done = 0

    def progress(more: int, steps: int) -> None:
        nonlocal done
        done += more
        if done % 50 == 0 or done == steps:
            sys.stderr.write(f"{done} of {steps} steps\n")

    training = LungTraining(seed=options.seed, films=options.films, steps=options.steps)
    save_weights(train_lungs(training, progress), options.weights)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
