"""Whole pictures by many schedulers, on the models of this folder: writes schedulers/io.json and schedulers/io.safetensors.

    python make_schedulers.py --out schedulers [--perflow scheduler_perflow.py]

Made with diffusers 0.40.0.dev0 (58eb52c0), PyTorch 2.13.0, transformers 5.18.0 on the CPU, float32 arithmetic. A run is a
copy of a model whose scheduler_config.json is `config` (left out: the model's own), loaded and called as anybody would; with
`scheduler`, its scheduler is then replaced by that class's from_config. One generator with `seed` draws the start noise and
all later noise. Kept: final_latents (before the division by scaling_factor) and image (before clamping), F32, NCHW.

PeRFlow's run needs src/scheduler_perflow.py of github.com/magic-research/piecewise-rectified-flow (87bac76). InstaFlow's is the
loop of that project's pipeline: the velocity at (1 - i / n) 1000, times 1 / n.
"""

import argparse
import importlib.util
import json
import shutil
import sys
import tempfile
from pathlib import Path

import diffusers
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file

HERE = Path(__file__).parent
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PROMPT = "a red house by the sea at night"
GUIDED = {"guidance": 5.0, "negative_prompt": "blurry, low quality"}


def saved(name, **config):
    return {"_class_name": name, **BETAS, **config}


V = {"prediction_type": "v_prediction"}
# name, model, then: config, scheduler, steps or timesteps, guidance, negative_prompt, rescale, eta
RUNS = {
    "ddim-leading": ("sd15-ancestral", {"config": saved("DDIMScheduler"), "steps": 4, **GUIDED}),
    "ddim-trailing-eta": ("sd15-ancestral", {"config": saved("DDIMScheduler", timestep_spacing="trailing"), "steps": 4, "eta": 0.6}),
    "ddim-zero-snr": ("sd21-v", {"config": saved("DDIMScheduler", timestep_spacing="trailing", rescale_betas_zero_snr=True, **V), "steps": 4, "rescale": 0.7, **GUIDED}),
    "ddim-of-other": ("sdxl-euler-cfg", {"scheduler": "DDIMScheduler", "steps": 3, "guidance": 3.0}),
    "tcd-eta": ("sd15-ancestral", {"config": saved("TCDScheduler"), "steps": 4, "eta": 0.3}),
    "tcd-800": ("sd15-ancestral", {"scheduler": "TCDScheduler", "timesteps": [800], "eta": 1.0}),
    "dpm-2m-karras": ("sd15-ancestral", {"config": saved("DPMSolverMultistepScheduler", use_karras_sigmas=True), "steps": 6, **GUIDED}),
    "dpm-sde": ("sd15-ancestral", {"config": saved("DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++", use_karras_sigmas=True), "steps": 6, "guidance": 3.0}),
    "dpm-3-timesteps": ("sd21-v", {"config": saved("DPMSolverMultistepScheduler", solver_order=3, **V), "timesteps": [999, 800, 600, 400, 200, 50]}),
    "pndm": ("sd15-ancestral", {"config": saved("PNDMScheduler", skip_prk_steps=True), "steps": 5, **GUIDED}),
    "pndm-prk": ("sd21-v", {"config": saved("PNDMScheduler", **V), "steps": 5}),
    "unipc": ("sd21-v", {"scheduler": "UniPCMultistepScheduler", "steps": 5, **GUIDED}),
    "deis": ("sd15-ancestral", {"scheduler": "DEISMultistepScheduler", "steps": 5, "guidance": 3.0}),
    "heun": ("sd15-ancestral", {"config": saved("HeunDiscreteScheduler"), "steps": 3, **GUIDED}),
    "heun-karras-xl": ("sdxl-euler-cfg", {"config": saved("HeunDiscreteScheduler", use_karras_sigmas=True), "steps": 2, "guidance": 3.0}),
    "lcm-timesteps": ("lcm-sd15", {"timesteps": [999, 749, 499, 249], "guidance": 8.5}),
    "lcm-399": ("sd15-ancestral", {"scheduler": "LCMScheduler", "timesteps": [399]}),
    "euler-x0": ("sd15-ancestral", {"config": saved("EulerDiscreteScheduler", timestep_spacing="trailing", prediction_type="sample"), "steps": 2}),
    "euler-karras": ("sd21-v", {"config": saved("EulerDiscreteScheduler", use_karras_sigmas=True, **V), "steps": 4, **GUIDED}),
    "euler-beta": ("sd21-v", {"config": saved("EulerDiscreteScheduler", use_beta_sigmas=True, **V), "steps": 4}),
    "perflow": ("sd15-ancestral", {"scheduler": "PeRFlowScheduler", "steps": 4, **GUIDED}),
    "instaflow": ("sd15-ancestral", {"scheduler": "RectifiedFlowScheduler", "steps": 2}),
}  # fmt: skip


def load(model, run):
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(HERE / model, folder, dirs_exist_ok=True)
        if config := run.get("config"):
            (Path(folder) / "scheduler/scheduler_config.json").write_text(json.dumps(config))
            index = json.loads((Path(folder) / "model_index.json").read_text())
            index["scheduler"][1] = config["_class_name"]
            (Path(folder) / "model_index.json").write_text(json.dumps(index))
        more = {"add_watermarker": False} if model.startswith("sdxl") else {}
        variant = {"variant": "fp16"} if model == "lcm-sd15" else {}
        return DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, **variant, **more)


@torch.no_grad()
def draw(name, perflow):
    model, run = RUNS[name]
    pipe = load(model, run)
    pipe.set_progress_bar_config(disable=True)
    seed = 100 + list(RUNS).index(name)
    generator = torch.Generator("cpu").manual_seed(seed)
    chosen = run.get("scheduler")
    if chosen == "PeRFlowScheduler":
        pipe.scheduler = perflow.PeRFlowScheduler.from_config(pipe.scheduler.config, prediction_type="diff_eps")
    elif chosen == "RectifiedFlowScheduler":
        pipe.scheduler = InstaFlow()
    elif chosen:
        pipe.scheduler = getattr(diffusers, chosen).from_config(pipe.scheduler.config)
    call = {"guidance_scale": run.get("guidance", 0.0), "generator": generator}
    call |= {"timesteps": run["timesteps"]} if "timesteps" in run else {"num_inference_steps": run["steps"]}
    call |= {"negative_prompt": run["negative_prompt"]} if "negative_prompt" in run else {}
    call |= {"guidance_rescale": run["rescale"]} if "rescale" in run else {}
    call |= {"eta": run["eta"]} if "eta" in run else {}
    size = {"height": 24, "width": 40}
    latents = pipe(PROMPT, output_type="latent", return_dict=False, **size, **call)[0]
    image = pipe.vae.decode(latents / pipe.vae.config.scaling_factor, return_dict=False)[0]
    return {"name": name, "model": model, **run, "seed": seed, **size, "prompt": PROMPT}, latents, image


class InstaFlow:
    order, init_noise_sigma = 1, 1.0

    def set_timesteps(self, num_inference_steps, device=None):
        self.timesteps = torch.tensor([(1 - i / num_inference_steps) * 1000 for i in range(num_inference_steps)])

    def step(self, velocity, t, sample, return_dict):
        return (sample + 1.0 / len(self.timesteps) * velocity,)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--perflow", type=Path, required=True)
    arguments = parser.parse_args()
    spec = importlib.util.spec_from_file_location("perflow", arguments.perflow)
    perflow = sys.modules["perflow"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(perflow)
    torch.set_num_threads(1)
    diffusers.logging.set_verbosity_error()
    records, tensors = [], {}
    for name in RUNS:
        record, latents, image = draw(name, perflow)
        assert latents.isfinite().all() and image.isfinite().all(), name
        records.append(json.dumps(record))
        tensors |= {f"{name}.final_latents": latents.contiguous(), f"{name}.image": image.contiguous()}
        print(f"{name:18} latents std {latents.std():8.3f}, image std {image.std():.3f}")
    arguments.out.mkdir(exist_ok=True)
    (arguments.out / "io.json").write_text("[\n" + ",\n".join(records) + "\n]\n")
    save_file(tensors, arguments.out / "io.safetensors")


if __name__ == "__main__":
    main()
