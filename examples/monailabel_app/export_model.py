"""Write the lung network of imaging_pipeline as TorchScript, for an environment that has torch and nothing of this.

.venv/bin/python examples/monailabel_app/export_model.py examples/monailabel_app/model/lungs.ts
"""

import sys
from pathlib import Path

import torch

from imaging_pipeline.segmentation.models import load_lung_model
from imaging_pipeline.segmentation.network import IMAGE_SIZE
from imaging_pipeline.settings import Settings


def main() -> None:
    """Trace the network for one film of its own size: float32 (1, 1, 128, 128) on 0-1 to logits (1, 2, 128, 128)."""
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    network = load_lung_model(Settings.from_environment().lung_model).segmenter
    with torch.inference_mode():
        torch.jit.trace(network, torch.rand(1, 1, IMAGE_SIZE, IMAGE_SIZE)).save(str(target))


if __name__ == "__main__":
    main()
