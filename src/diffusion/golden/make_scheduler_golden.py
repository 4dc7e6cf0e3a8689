"""Writes scheduler.json: what diffusers' schedulers compute. Made with diffusers 0.40.0.dev0 (58eb52c0), PyTorch 2.13.0:
python make_scheduler_golden.py

Every case runs a whole chain on a sample of four values. The start noise and all later noise come from one generator
with seed 3; the "model" ignores its input: value i of its output at step k is sin(4 k + i). Kept: timesteps, initial
sigma, the first value of every scaled input, the last sample and estimate, and the generator's next value (which
shows how often the scheduler drew).
"""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import EulerAncestralDiscreteScheduler, EulerDiscreteScheduler, LCMScheduler

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def tidy(values):
    return [float(f"{v:.8g}") for v in torch.as_tensor(values).flatten().tolist()]


def run(cls, config, *counts):
    return {"config": {"_class_name": cls.__name__, **config}, "runs": [chain(cls, config, steps) for steps in counts]}


def chain(cls, config, steps):
    scheduler = cls.from_config(config)
    scheduler.set_timesteps(steps)
    generator = torch.Generator("cpu").manual_seed(3)
    sample = torch.randn(1, 1, 2, 2, generator=generator) * scheduler.init_noise_sigma
    inputs = []
    for k, t in enumerate(scheduler.timesteps):
        inputs += tidy(scheduler.scale_model_input(sample, t).flatten()[:1])
        output = torch.from_numpy(np.sin(4 * k + np.arange(4.0)).astype(np.float32)).reshape(1, 1, 2, 2)
        sample, denoised = scheduler.step(output, t, sample, generator=generator, return_dict=False)
    return {
        "steps": steps,
        "timesteps": tidy(scheduler.timesteps),
        "initNoiseSigma": tidy(scheduler.init_noise_sigma)[0],
        "inputs": inputs,
        "last": tidy(sample),
        "denoised": tidy(denoised),
        "next": tidy(torch.randn(1, generator=generator))[0],
    }


cases = []
for prediction in ("epsilon", "v_prediction", "sample"):
    for spacing in ("linspace", "leading", "trailing"):
        config = {**SD, "timestep_spacing": spacing, "steps_offset": 1, "prediction_type": prediction}
        if prediction != "sample":
            cases.append(run(EulerAncestralDiscreteScheduler, config, 1, 2, 4, 7))
        cases.append(run(EulerDiscreteScheduler, config, 1, 2, 4, 7))
    cases.append(run(LCMScheduler, {"prediction_type": prediction}, 1, 2, 4, 7))

EULER = {**SD, "timestep_spacing": "leading"}
for cls, config, steps in [
    (EulerAncestralDiscreteScheduler, {}, 3),
    (EulerAncestralDiscreteScheduler, {"beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "trailing"}, 5),
    (EulerAncestralDiscreteScheduler, {**SD, "timestep_spacing": "trailing", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}, 4),
    (EulerAncestralDiscreteScheduler, {"trained_betas": [0.1, 0.2, 0.3, 0.25], "num_train_timesteps": 4}, 3),
    (EulerAncestralDiscreteScheduler, {**SD, "timestep_spacing": "trailing"}, 27),
    (EulerDiscreteScheduler, {}, 3),
    (EulerDiscreteScheduler, {**EULER, "use_karras_sigmas": True}, 1),
    (EulerDiscreteScheduler, {**EULER, "use_karras_sigmas": True}, 5),
    (EulerDiscreteScheduler, {**EULER, "use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 9.5}, 5),
    (EulerDiscreteScheduler, {**EULER, "use_exponential_sigmas": True, "final_sigmas_type": "sigma_min"}, 5),
    (EulerDiscreteScheduler, {**SD, "timestep_spacing": "trailing", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}, 4),
    (EulerDiscreteScheduler, {**EULER, "timestep_type": "continuous", "prediction_type": "v_prediction", "use_karras_sigmas": True, "sigma_min": 0.002, "sigma_max": 700.0}, 4),
    (LCMScheduler, {"original_inference_steps": 100, "timestep_scaling": 7.5, "set_alpha_to_one": False}, 8),
    (LCMScheduler, {"clip_sample": True, "clip_sample_range": 0.6}, 3),
    (LCMScheduler, {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}, 4),
    (LCMScheduler, {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}, 50),
]:
    cases.append(run(cls, config, steps))

lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
Path(__file__).with_name("scheduler.json").write_text(f"[\n{lines}\n]\n")
