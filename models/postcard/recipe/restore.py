"""An exported model back into a training folder, so that a later, longer run can go on from it."""

import argparse
import pathlib
import shutil

from . import export, training
from .models import Autoencoder


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args(arguments)
    autoencoder = Autoencoder()
    export.read_weights(args.model, autoencoder=autoencoder)
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(args.model / name, args.out / name, dirs_exist_ok=True)
    training.save(args.out / "vae.pt", autoencoder.state_dict())


if __name__ == "__main__":
    main()
