"""Writes strength.json: runs of diffusers' schedulers that begin with a picture. Made with diffusers 0.40.0.dev0 (58eb52c0),
PyTorch 2.13.0, NumPy 2.4.6: python make_strength_golden.py [--perflow scheduler_perflow.py]

A run does what StableDiffusionInpaintPipeline does with four latents, of which the third is kept: `get_timesteps(strength)`,
`add_noise` to the clean latents, and after every step `add_noise` at the next timestep for the kept one. Clean latents and
noise are 1024ths, as is the model's output, sin(4 k + i) for value i at call k; later noise is drawn from a generator with
seed 3 and rounded likewise. LCM's `distilled` runs are those of LatentConsistencyModelImg2ImgPipeline, which gives the
strength to set_timesteps. PeRFlow's need src/scheduler_perflow.py of github.com/magic-research/piecewise-rectified-flow
(87bac76); without it they are kept as they are.
"""

import argparse
import importlib.util
import inspect
import json
import logging
import sys
from pathlib import Path

import diffusers
import numpy as np
import torch

logging.disable(logging.WARNING)
FILE = Path(__file__).with_name("strength.json")
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
V = {"prediction_type": "v_prediction"}
CLEAN = torch.tensor([512, -768, 1280, 256]).reshape(1, 1, 2, 2) / 1024
NOISE = torch.tensor([-640, 1100, 300, -1500]).reshape(1, 1, 2, 2) / 1024
KEPT = torch.tensor([0.0, 0.0, 1.0, 0.0]).reshape(1, 1, 2, 2)


def rounded(values):
    return (values * 1024).round() / 1024


def noise(shape, generator, **_):
    return rounded(torch.randn(shape, generator=generator))


def tidy(values):
    return [float(f"{v:.8g}") for v in torch.as_tensor(values).flatten().tolist()]


def run(cls, config, strength, request, eta=0.0, distilled=False):
    scheduler = cls.from_config(config)
    sys.modules[cls.__module__].randn_tensor = noise
    given = {"timesteps" if isinstance(request, list) else "num_inference_steps": request}
    scheduler.set_timesteps(**given, **({"strength": strength} if distilled else {}))
    steps = len(scheduler.timesteps) if isinstance(request, list) else request
    start = 0 if distilled else max(steps - min(int(steps * strength), steps), 0)
    timesteps = scheduler.timesteps[start * scheduler.order :]
    if hasattr(scheduler, "set_begin_index") and not distilled:
        scheduler.set_begin_index(start * scheduler.order)
    generator = torch.Generator("cpu").manual_seed(3)
    parameters = inspect.signature(scheduler.step).parameters
    more = {"generator": generator} if "generator" in parameters else {}
    more |= {"eta": eta} if "eta" in parameters else {}
    sample = scheduler.add_noise(CLEAN, NOISE, timesteps[:1])
    first = tidy(sample)
    for k, t in enumerate(timesteps):
        scheduler.scale_model_input(sample, t) if hasattr(scheduler, "scale_model_input") else None
        output = torch.from_numpy(rounded(np.sin(4 * k + np.arange(4.0))).astype(np.float32)).reshape(1, 1, 2, 2)
        result = scheduler.step(output, t, sample, return_dict=False, **more)
        sample = result[1] if distilled and k == len(timesteps) - 1 else result[0]
        is_last = k == len(timesteps) - 1
        kept = CLEAN if is_last else scheduler.add_noise(CLEAN, NOISE, timesteps[k + 1].reshape(1))
        sample = (1 - KEPT) * sample + KEPT * kept
    assert sample.isfinite().all(), (cls.__name__, config, strength, request)
    return {
        "config": {"_class_name": cls.__name__, **config},
        "strength": strength,
        **({"given": request} if isinstance(request, list) else {"steps": request}),
        **({"eta": eta} if eta else {}),
        **({"distilled": True} if distilled else {}),
        "timesteps": tidy(timesteps),
        "first": first,
        "last": tidy(sample),
    }


CLASSES = {
    "DDIM": [{**SD, "clip_sample": False}, {**SD, **V, "timestep_spacing": "trailing", "rescale_betas_zero_snr": True, "clip_sample": False}],
    "DEISMultistep": [SD, {**SD, "solver_order": 3, "timestep_spacing": "trailing"}],
    "DPMSolverMultistep": [SD, {**SD, "solver_order": 3, "use_karras_sigmas": True}, {**SD, "algorithm_type": "sde-dpmsolver++"}, {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"}],
    "EulerAncestralDiscrete": [SD, {**SD, "timestep_spacing": "trailing"}],
    "EulerDiscrete": [{**SD, "timestep_spacing": "trailing"}, {**SD, **V, "use_karras_sigmas": True}],
    "HeunDiscrete": [SD, {**SD, "use_karras_sigmas": True}],
    "LCM": [{}],
    "PNDM": [{**SD, "skip_prk_steps": True, "steps_offset": 1}, SD],
    "TCD": [{}],
    "UniPCMultistep": [SD, {**SD, "solver_order": 3, "solver_type": "bh1", "final_sigmas_type": "sigma_min", "disable_corrector": [4]}],
}  # fmt: skip

cases = []
for name, configs in CLASSES.items():
    cls = getattr(diffusers, f"{name}Scheduler")
    for config in configs:
        for strength, steps in ((1.0, 5), (0.7, 6), (0.5, 9), (0.29, 20)):
            cases.append(run(cls, config, strength, steps))
cases += [
    run(diffusers.DDIMScheduler, {**SD, "clip_sample": False}, 0.6, 8, eta=0.6),
    run(diffusers.TCDScheduler, {}, 0.6, 8, eta=0.3),
    run(diffusers.LCMScheduler, {}, 0.5, [999, 749, 499, 249]),
    run(diffusers.EulerDiscreteScheduler, SD, 0.6, [999, 750, 500, 250, 30]),
    run(diffusers.DPMSolverMultistepScheduler, SD, 0.6, [999, 700, 400, 200, 50]),
    *(run(diffusers.LCMScheduler, {}, strength, steps, distilled=True) for strength, steps in ((1.0, 4), (0.8, 4), (0.33, 3))),
]

parser = argparse.ArgumentParser()
parser.add_argument("--perflow", type=Path)
if path := parser.parse_args().perflow:
    spec = importlib.util.spec_from_file_location("perflow", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["perflow"] = module
    spec.loader.exec_module(module)
    for config, strength, steps in (({}, 0.8, 6), ({"prediction_type": "diff_eps"}, 0.5, 8), ({}, 0.5, 2)):
        cases.append(run(module.PeRFlowScheduler, config, strength, steps))
elif FILE.exists():
    cases += [case for case in json.loads(FILE.read_text()) if case["config"]["_class_name"] == "PeRFlowScheduler"]

FILE.write_text("[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]\n")
print(len(cases), "runs")
