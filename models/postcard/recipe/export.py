"""Writes the trained weights in diffusers' layout (fp16 safetensors), and reads them back.

The configs in `layout/` are the ones diffusers and transformers save; only what depends on the vocabulary and on the
size is filled in here. `--check` loads the result into the real StableDiffusionXLPipeline, draws `grid.png` with it
and writes down what it computes for three prompts (`reference.json`, `reference.safetensors`)."""

import argparse
import json
import pathlib
import shutil

import torch
from safetensors.torch import load_file, save_file

from . import captions, data, latents, sampling, tokenizer
from .models import ENCODER_BLOCKS

LAYOUT = pathlib.Path(__file__).parent / "layout"
REFERENCE = ["a red house by the sea at sunset with two pine trees",
             "a forest of pine trees in winter at noon with mountains", "a blue tent by a lake"]


def read_weights(folder, unet=None, first=None, second=None, autoencoder=None):
    """An exported folder into the recipe's modules."""
    folder = pathlib.Path(folder)

    def into(module, path, rename=lambda k: k):
        if module is not None:
            module.load_state_dict({rename(k): v.float() for k, v in load_file(str(folder / path)).items()})

    prefix = lambda k: k if k.startswith(("text_model.", "text_projection.")) else "text_model." + k
    into(unet, "unet/diffusion_pytorch_model.safetensors")
    into(first, "text_encoder/model.safetensors", prefix)
    into(second, "text_encoder_2/model.safetensors", prefix)
    into(autoencoder, "vae/diffusion_pytorch_model.safetensors")


def write(state, path, rename=lambda k: k):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({rename(k): v.detach().cpu().half().contiguous() for k, v in state.items()}, str(path), {"format": "pt"})


def export(run, out, size):
    """From the training's folder to a model folder."""
    if (run / "unet.pt").exists():
        trained = torch.load(run / "unet.pt", map_location="cpu")
    else:       # still in training: the averages so far
        state = torch.load(run / "unet-state.pt", map_location="cpu", weights_only=False)["average"]
        trained = {part: {k.split(".", 1)[1]: v for k, v in state.items() if k.startswith(part + ".")}
                   for part in ("unet", "first", "second")}
    tokens = tokenizer.Tokenizer.load(run / "tokenizer")
    for source in LAYOUT.rglob("*.json"):
        config = json.loads(source.read_text())
        if "vocab_size" in config:
            config.update(vocab_size=len(tokens.vocabulary), bos_token_id=tokens.start, eos_token_id=tokens.end,
                          pad_token_id=tokens.end)
        if "sample_size" in config:
            config.update(sample_size=size // 8)
        if "num_encoder_blocks" in config:
            config.update(num_encoder_blocks=list(ENCODER_BLOCKS))
        target = out / source.relative_to(LAYOUT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(config, indent=2) + "\n")
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(run / name, out / name, dirs_exist_ok=True)
    write(trained["unet"], out / "unet/diffusion_pytorch_model.safetensors")
    # transformers saves CLIPTextModel without, and CLIPTextModelWithProjection with this prefix.
    write(trained["first"], out / "text_encoder/model.safetensors", lambda k: k.removeprefix("text_model."))
    write(trained["second"], out / "text_encoder_2/model.safetensors")
    write(latents.load_autoencoder(run).state_dict(), out / "vae/diffusion_pytorch_model.safetensors")


def check(out, size):
    """Load into diffusers; draw the grid; record the reference; compare with the recipe's own modules."""
    from diffusers import StableDiffusionXLPipeline
    pipe = StableDiffusionXLPipeline.from_pretrained(out, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    noise = lambda seed: torch.randn(1, 4, size // 8, size // 8, generator=torch.Generator().manual_seed(seed))

    def run(prompt, start, kind="pt"):
        return pipe(prompt, num_inference_steps=1, guidance_scale=0., height=size, width=size, latents=start,
                    output_type=kind).images

    seen = {}
    hook = pipe.unet.register_forward_hook(
        lambda module, args, kwargs, result: seen.update(unet_in=args[0], ehs=kwargs["encoder_hidden_states"],
                                                         pooled=kwargs["added_cond_kwargs"]["text_embeds"],
                                                         unet_out=result[0]), with_kwargs=True)
    tensors, prompts = {}, []
    for j, prompt in enumerate(REFERENCE):
        start = noise(100 + j)
        final = run(prompt, start, "latent")
        with torch.no_grad():
            image = pipe.vae.decode(final / pipe.vae.config.scaling_factor).sample
        for name, value in dict(seen, latents=start, final_latents=final, image=image).items():
            tensors[f"{j}.{name}"] = value.detach().float().contiguous()
        ids = pipe.tokenizer(prompt, padding="max_length", max_length=77).input_ids
        prompts.append(dict(prompt=prompt, ids=ids[:24], seed_of_latents=100 + j))
    hook.remove()
    save_file(tensors, str(out / "reference.safetensors"))
    (out / "reference.json").write_text(json.dumps(dict(steps=1, prompts=prompts), indent=1) + "\n")

    ours = painter(out, size)
    worst = max((ours.paint([p], noise(100 + j)) - tensors[f"{j}.image"].clamp(-1, 1)).abs().max().item()
                for j, p in enumerate(REFERENCE))
    grid = captions.test_prompts(24, seed=24)
    pictures = torch.cat([run(p, noise(1000 + i)) for i, (p, _) in enumerate(grid)])
    sampling.sheet(data.to_pictures(pictures * 2 - 1), 6).save(out / "grid.png")
    print(f"diffusers loads and runs it; largest difference from the recipe's own modules {worst:.2e} "
          "(pixels in [-1,1])")
    for i in range(0, 24, 6):
        print(" | ".join(p for p, _ in grid[i:i + 6]))


def painter(folder, size, device="cpu"):
    """The exported model in float32, in the recipe's own modules."""
    from .models import Autoencoder, UNet, text_encoders
    tokens = tokenizer.Tokenizer.load(pathlib.Path(folder) / "tokenizer")
    unet, autoencoder, (first, second) = UNet(), Autoencoder(), text_encoders(tokens)
    read_weights(folder, unet, first, second, autoencoder)
    for m in (unet, first, second, autoencoder):
        m.eval().requires_grad_(False).to(device)
    return sampling.Painter(unet, first, second, autoencoder, tokens, size, device, precise=True)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", type=pathlib.Path, required=True, help="the training's folder")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the model folder to write")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    export(args.run, args.out, args.size)
    if (args.run / "judge").exists():
        shutil.copytree(args.run / "judge", args.out / "judge", dirs_exist_ok=True)
    if args.check:
        check(args.out, args.size)


if __name__ == "__main__":
    main()
