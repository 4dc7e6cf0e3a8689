"""Pictures from pictures by diffusers' own pipelines, on the models of this folder: writes editing/.

    python make_editing.py --out editing

Made with diffusers 0.40.0.dev0 (58eb52c0), PyTorch 2.13.0, transformers 5.18.0, Pillow 12.3.0 on the CPU, float32 arithmetic.

picture.png (90x70, RGB) and mask.png (90x70, grey, soft edges) are what the pipelines start from. Encoders: `encode.<model>`,
AutoencoderKL's moments or AutoencoderTiny's latents of the picture at 64x48 (w x h), before `scaling_factor`. A run of io.json
is a model with another VAE (`vae`, one of this folder's models), keys of configs (`vae_config`, `config` is the scheduler's)
or a UNet of other channels: then `unet.<name>.<tensor>` of io.safetensors replaces that tensor, F16, and `unet_config` its
config's keys. One generator with `seed` draws everything. Kept: `<name>.final_latents` (before the division by scaling_factor)
and for some `<name>.image` (before clamping), F32, NCHW; with `crop` or `keep` `<name>.finished`, the picture as bytes, U8, HWC.
"""

import argparse
import json
import shutil
import tempfile
import zlib
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file

HERE = Path(__file__).parent
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PROMPT = "a red house by the sea at night"
GUIDED = {"guidance": 5.0, "negative_prompt": "blurry, low quality"}
STATISTICS = {"latents_mean": [-0.4, 0.2, 0.1, -0.3], "latents_std": [1.3, 0.9, 1.1, 0.8], "scaling_factor": 0.5}


def saved(name, **config):
    return {"_class_name": name, **BETAS, **config}


KL = "sd15-ancestral"
SMALL = {"width": 40, "height": 24}
LARGE = {"width": 80, "height": 64}
# name: model, pipeline, then what the call is given
RUNS = {
    "sd-kl": (KL, "Img2Img", {"strength": 0.6, "steps": 5, **SMALL, **GUIDED}),
    "sd-kl-own-size": (KL, "Img2Img", {"strength": 1.0, "steps": 1, "config": saved("DDIMScheduler")}),
    "sd-kl-heun": ("sd21-v", "Img2Img", {"strength": 0.5, "steps": 4, "config": saved("HeunDiscreteScheduler", prediction_type="v_prediction"), **SMALL}),
    "sd-kl-timesteps": ("sd21-v", "Img2Img", {"strength": 0.7, "timesteps": [999, 800, 600, 400, 200, 50], "config": saved("DPMSolverMultistepScheduler", prediction_type="v_prediction"), **SMALL}),
    "xl-tiny": ("sdxl-euler-cfg", "XLImg2Img", {"strength": 0.5, "steps": 4, **LARGE, **GUIDED}),
    "xl-tiny-free": ("sdxl-euler-cfg", "XLImg2Img", {"strength": 0.75, "steps": 4}),
    "xl-kl": ("sdxl-euler-cfg", "XLImg2Img", {"vae": KL, "strength": 0.6, "steps": 5, "config": saved("DPMSolverMultistepScheduler", use_karras_sigmas=True), **SMALL, **GUIDED}),
    "xl-kl-statistics": ("sdxl-euler-cfg", "XLImg2Img", {"vae": KL, "vae_config": STATISTICS, "strength": 0.75, "steps": 4, **SMALL}),
    "xl-refiner": ("sdxl-euler-cfg", "XLImg2Img", {"unet_config": {"projection_class_embeddings_input_dim": 60}, "strength": 0.5, "steps": 4, **LARGE, **GUIDED}),
    "lcm": ("lcm-sd15", "LatentConsistency", {"strength": 0.6, "steps": 3, "guidance": 8.5, **LARGE}),
    "inpaint-all": (KL, "Inpaint", {"strength": 1.0, "steps": 3, **SMALL, **GUIDED}),
    "inpaint-pndm": ("sd21-v", "Inpaint", {"strength": 0.7, "steps": 5, "config": saved("PNDMScheduler", skip_prk_steps=True, prediction_type="v_prediction"), **SMALL, "guidance": 3.0}),
    "inpaint-unipc": (KL, "Inpaint", {"strength": 0.8, "steps": 5, "scheduler": "UniPCMultistepScheduler", **SMALL}),
    "inpaint-xl-tiny": ("sdxl-euler-cfg", "XLInpaint", {"strength": 0.75, "steps": 4, **LARGE, **GUIDED}),
    "inpaint-xl-kl": ("sdxl-euler-cfg", "XLInpaint", {"vae": KL, "strength": 0.6, "steps": 5, **SMALL, "config": saved("EulerAncestralDiscreteScheduler", timestep_spacing="trailing")}),
    "inpaint-9": (KL, "Inpaint", {"unet_config": {"in_channels": 9}, "strength": 1.0, "steps": 3, **SMALL, **GUIDED}),
    "inpaint-9-xl": ("sdxl-euler-cfg", "XLInpaint", {"vae": KL, "unet_config": {"in_channels": 9}, "strength": 0.75, "steps": 4, **SMALL, **GUIDED}),
    "inpaint-crop": (KL, "Inpaint", {"strength": 0.8, "steps": 4, "crop": 6, **SMALL, "guidance": 3.0}),
    "inpaint-keep": ("lcm-sd15", "Inpaint", {"model_index": "StableDiffusionPipeline", "strength": 0.7, "steps": 3, "keep": True, "width": 88, "height": 64, "guidance": 3.0}),
    "pix2pix": (KL, "InstructPix2Pix", {"unet_config": {"in_channels": 8}, "image_guidance": 1.6, "steps": 3, **SMALL, **GUIDED}),
    "pix2pix-free": (KL, "InstructPix2Pix", {"unet_config": {"in_channels": 8}, "image_guidance": 0.5, "steps": 3, **SMALL}),
}  # fmt: skip
WITH_IMAGE = ("sd-kl", "xl-tiny", "xl-kl-statistics")
CLASSES = {
    "Img2Img": diffusers.StableDiffusionImg2ImgPipeline,
    "XLImg2Img": diffusers.StableDiffusionXLImg2ImgPipeline,
    "LatentConsistency": diffusers.LatentConsistencyModelImg2ImgPipeline,
    "Inpaint": diffusers.StableDiffusionInpaintPipeline,
    "XLInpaint": diffusers.StableDiffusionXLInpaintPipeline,
    "InstructPix2Pix": diffusers.StableDiffusionInstructPix2PixPipeline,
}


def randn(shape, *names):
    seed = zlib.crc32("/".join(map(str, names)).encode())
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))


def make_pictures(out):
    y, x = np.mgrid[0:70, 0:90] / 70.0
    waves = np.stack([np.sin(5 * x + 3 * y), np.cos(7 * y - 2 * x), np.sin(9 * x * y + 1)], axis=2)
    grain = randn((70, 90, 3), "picture").numpy()
    picture = Image.fromarray(np.clip(128 + 90 * waves + 25 * grain, 0, 255).astype(np.uint8))
    distance = np.hypot((x - 0.75) / 0.9, y - 0.45)
    mask = Image.fromarray(np.clip(255 * (0.32 - distance) * 12 + 128, 0, 255).astype(np.uint8))
    picture.save(out / "picture.png")
    mask.save(out / "mask.png")
    return picture, mask


def load(name):
    model, kind, run = RUNS[name]
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(HERE / model, folder, dirs_exist_ok=True)
        index = json.loads((Path(folder) / "model_index.json").read_text())
        if config := run.get("config"):
            (Path(folder) / "scheduler/scheduler_config.json").write_text(json.dumps(config))
            index["scheduler"][1] = config["_class_name"]
        if "vae" in run:
            index["vae"][1] = json.loads((HERE / run["vae"] / "vae/config.json").read_text())["_class_name"]
        if "model_index" in run:
            index["_class_name"] = run["model_index"]
        (Path(folder) / "model_index.json").write_text(json.dumps(index))
        if "vae" in run:
            shutil.rmtree(Path(folder) / "vae")
            shutil.copytree(HERE / run["vae"] / "vae", Path(folder) / "vae")
        if "vae_config" in run:
            path = Path(folder) / "vae/config.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), **run["vae_config"]}))
        more = {"add_watermarker": False} if model.startswith("sdxl") else {}
        variant = {"variant": "fp16"} if model == "lcm-sd15" else {}
        parts = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, **variant, **more).components
    replaced = {}
    if changed := run.get("unet_config"):
        unet = UNet2DConditionModel.from_config({**parts["unet"].config, **changed})
        weights = parts["unet"].state_dict()
        for key, value in unet.state_dict().items():
            if value.shape != weights[key].shape:
                replaced[key] = (0.8 * randn(value.shape, name, key) / value[0].numel() ** 0.5).half()
                weights[key] = replaced[key].float()
        unet.load_state_dict(weights)
        parts["unet"] = unet.eval()
    if "projection_class_embeddings_input_dim" in run.get("unet_config", {}):
        more["requires_aesthetics_score"] = True
    elif kind.startswith("XL"):
        more["requires_aesthetics_score"] = False
    else:
        more["requires_safety_checker"] = False
    if run.get("scheduler"):
        parts["scheduler"] = getattr(diffusers, run["scheduler"]).from_config(parts["scheduler"].config)
    if not kind.startswith("XL"):
        parts |= {"safety_checker": None, "feature_extractor": None}
    return CLASSES[kind](**parts, **more), replaced


@torch.no_grad()
def draw(name, picture, mask):
    model, kind, run = RUNS[name]
    pipe, replaced = load(name)
    pipe.set_progress_bar_config(disable=True)
    seed = 300 + list(RUNS).index(name)
    generator = torch.Generator("cpu").manual_seed(seed)
    call = {"guidance_scale": run.get("guidance", 0.0), "generator": generator}
    call |= {key: run[key] for key in ("strength", "negative_prompt", "timesteps") if key in run}
    call |= {"num_inference_steps": run["steps"]} if "steps" in run else {}
    call |= {"image_guidance_scale": run["image_guidance"]} if "image_guidance" in run else {}
    image = picture
    if "Inpaint" in kind:
        call |= {"mask_image": mask, "height": run["height"], "width": run["width"]}
        call |= {"padding_mask_crop": run["crop"]} if "crop" in run else {}
    elif "width" in run:
        image = pipe.image_processor.resize(picture, run["height"], run["width"])
    if run.get("keep"):
        image = pipe.image_processor.resize(picture, run["height"], run["width"])
        mask = pipe.image_processor.resize(mask, run["height"], run["width"])
        call |= {"mask_image": mask}
    final, decoded = {}, []
    original = pipe.vae.decode

    def decode(latents, *args, **kwargs):
        final["latents"] = latents * pipe.vae.config.scaling_factor
        if pipe.vae.config.get("latents_mean") is not None and kind == "XLImg2Img":
            mean = torch.tensor(pipe.vae.config.latents_mean).view(1, 4, 1, 1)
            std = torch.tensor(pipe.vae.config.latents_std).view(1, 4, 1, 1)
            final["latents"] = (latents - mean) * pipe.vae.config.scaling_factor / std
        result = original(latents, *args, **kwargs)
        decoded.append(result[0])
        return result

    pipe.vae.decode = decode
    output = pipe(PROMPT, image=image, output_type="pil", **call).images[0]
    tensors = {f"{name}.final_latents": final["latents"]}
    tensors |= {f"{name}.image": decoded[0]} if name in WITH_IMAGE or run.get("keep") or "crop" in run else {}
    if run.get("keep"):
        output = pipe.image_processor.apply_overlay(mask, image, output)
    if run.get("keep") or "crop" in run:
        tensors[f"{name}.finished"] = torch.from_numpy(np.array(output))
    tensors |= {f"unet.{name}.{key}": value for key, value in replaced.items()}
    assert all(value.float().isfinite().all() for value in tensors.values()), name
    return {"name": name, "model": model, "pipeline": kind, **run, "seed": seed, "prompt": PROMPT}, tensors


@torch.no_grad()
def encode(model, picture):
    folder = HERE / model / "vae"
    variant = {"variant": "fp16"} if model == "lcm-sd15" else {}
    kind = json.loads((folder / "config.json").read_text())["_class_name"]
    vae = getattr(diffusers, kind).from_pretrained(folder, dtype=torch.float32, **variant)
    pixels = diffusers.image_processor.VaeImageProcessor(vae_scale_factor=8).preprocess(picture, height=48, width=64)
    encoded = vae.encode(pixels)
    return encoded.latents if kind == "AutoencoderTiny" else encoded.latent_dist.parameters


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    out.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    picture, mask = make_pictures(out)
    tensors = {f"encode.{model}": encode(model, picture) for model in (KL, "sd21-v", "sdxl-euler-cfg", "../../models/postcard")}
    tensors["encode.postcard"] = tensors.pop("encode.../../models/postcard")
    records = []
    for name in RUNS:
        record, found = draw(name, picture, mask)
        records.append(record)
        tensors |= found
        print(name, f"{found[f'{name}.final_latents'].std():.2f}")
    save_file({key: value.contiguous() for key, value in tensors.items()}, out / "io.safetensors")
    lines = ",\n".join(json.dumps(record) for record in records)
    (out / "io.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
