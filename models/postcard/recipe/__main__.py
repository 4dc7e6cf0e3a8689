"""One command from nothing to a model folder: python -m recipe all --work DIR --out DIR [--preset cpu|gpu|test]."""

import argparse
import pathlib
import sys

from . import export, judge, latents, measure, restore, train_autoencoder, train_text, train_unet

COMMANDS = {"autoencoder": train_autoencoder, "text": train_text, "latents": latents, "judge": judge,
            "unet": train_unet, "export": export, "measure": measure, "restore": restore}

# In the order in which they run. `cpu` gives each stage about the processor time that the shipped weights took
# (autoencoder, judge and UNet ran at the same time there, on a shared machine, each in more than one go).
PRESETS = {
    "cpu": {"autoencoder": "--minutes 30 --freeze .35", "text": "--minutes 7", "latents": "--shards 17",
            "judge": "--minutes 10", "unet": "--minutes 60"},
    "gpu": {"autoencoder": "--minutes 25 --batch 32 --pool 32768", "text": "--minutes 5",
            "latents": "--shards 96", "judge": "--minutes 10",
            "unet": "--minutes 120 --batch 128 --average .999"},
    "test": {"autoencoder": "--minutes 1 --pool 512", "text": "--minutes .4",
             "latents": "--shards 1 --count 512 --test-count 64", "judge": "--minutes .5 --held-out 1024",
             "unet": "--minutes 1"},
}


def everything(arguments):
    parser = argparse.ArgumentParser(prog="recipe all", description=__doc__)
    parser.add_argument("--work", type=pathlib.Path, required=True, help="checkpoints and data")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the model folder to write")
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--size", type=int, default=128, help="side in pixels: 128, or 256 on a GPU")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--check", action="store_true", help="load the result in diffusers; grid.png and the reference")
    args = parser.parse_args(arguments)
    common = ["--out", str(args.work), "--device", args.device, "--seed", str(args.seed), "--threads",
              str(args.threads)]
    done = {"autoencoder": "vae.pt", "text": "text.pt", "latents": None, "judge": "judge/prompts.jsonl",
            "unet": "unet.pt"}
    for stage, options in PRESETS[args.preset].items():
        if done[stage] and (args.work / done[stage]).exists():
            continue        # finished before; a stage that was cut off goes on from its checkpoint
        print(f"== {stage}", flush=True)
        size = [] if stage == "text" else ["--size", str(args.size)]
        COMMANDS[stage].main(common + size + options.split())
    print("== export", flush=True)
    export.main(["--run", str(args.work), "--out", str(args.out), "--size", str(args.size)]
                + ["--check"] * args.check)


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "all":
        everything(sys.argv[2:])
    elif len(sys.argv) > 1 and sys.argv[1] in COMMANDS:
        COMMANDS[sys.argv[1]].main(sys.argv[2:])
    else:
        print("usage: python -m recipe {all," + ",".join(COMMANDS) + "} --help", file=sys.stderr)
        sys.exit(2)


main()
