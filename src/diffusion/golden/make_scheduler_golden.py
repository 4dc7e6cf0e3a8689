"""Writes scheduler.json: what diffusers' schedulers compute. Made with diffusers 0.40.0.dev0 (58eb52c0), PyTorch 2.13.0,
NumPy 2.4.6, SciPy 1.17.1: python make_scheduler_golden.py [--perflow scheduler_perflow.py]

Every case runs a whole chain on a sample of four values. The start noise and all later noise come from one generator
with seed 3; the "model" ignores its input: value i of its output at call k is sin(4 k + i), and in runs of 20 steps and
more sin(k / 5 + i), which is smooth. Both are rounded to 1/1024: processors differ in the last bits of logarithms and sines,
which a sigma of 4096 would show. Kept: timesteps, initial sigma, the first value of every scaled input, the last sample, and
the generator's next value (which shows how often the scheduler drew).

PeRFlow's cases need the file src/scheduler_perflow.py of github.com/magic-research/piecewise-rectified-flow (87bac76); without
it they are kept as they are.
"""

import argparse
import importlib.util
import inspect
import json
import logging
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
)

logging.disable(logging.WARNING)
FILE = Path(__file__).with_name("scheduler.json")
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SPACINGS = ("linspace", "leading", "trailing")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
SPREADS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")


def rounded(values):
    return (values * 1024).round() / 1024


def noise(shape, generator, **_):
    return rounded(torch.randn(shape, generator=generator))


def tidy(values):
    return [float(f"{v:.8g}") for v in torch.as_tensor(values).flatten().tolist()]


def run(cls, config, *requests):
    """A request is a number of steps, a list of timesteps, or a pair of either and eta."""
    return {"config": {"_class_name": cls.__name__, **config}, "runs": [chain(cls, config, request) for request in requests]}


def chain(cls, config, request):
    request, eta = request if isinstance(request, tuple) else (request, 0.0)
    scheduler = cls.from_config(config)
    sys.modules[cls.__module__].randn_tensor = noise
    scheduler.set_timesteps(**{"timesteps" if isinstance(request, list) else "num_inference_steps": request})
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    generator = torch.Generator("cpu").manual_seed(3)
    parameters = inspect.signature(scheduler.step).parameters
    more = {"generator": generator} if "generator" in parameters else {}
    more |= {"eta": eta} if "eta" in parameters else {}
    sample = noise((1, 1, 2, 2), generator) * scheduler.init_noise_sigma
    inputs = []
    smooth = isinstance(request, int) and request >= 20
    for k, t in enumerate(scheduler.timesteps):
        inputs += tidy(scheduler.scale_model_input(sample, t).flatten()[:1])
        angle = (k / 5 if smooth else 4 * k) + np.arange(4.0)
        output = torch.from_numpy(rounded(np.sin(angle)).astype(np.float32)).reshape(1, 1, 2, 2)
        sample = scheduler.step(output, t, sample, return_dict=False, **more)[0]
    assert sample.isfinite().all(), (cls.__name__, config, request)
    return {
        **({"given": request} if isinstance(request, list) else {"steps": request}),
        **({"eta": eta} if eta else {}),
        "timesteps": tidy(scheduler.timesteps),
        "initNoiseSigma": tidy(scheduler.init_noise_sigma)[0],
        "inputs": inputs,
        "last": tidy(sample),
        "next": tidy(torch.randn(1, generator=generator))[0],
    }


cases = []
for prediction in PREDICTIONS:
    for spacing in SPACINGS:
        config = {**SD, "timestep_spacing": spacing, "steps_offset": 1, "prediction_type": prediction}
        if prediction != "sample":
            cases.append(run(EulerAncestralDiscreteScheduler, config, 1, 2, 4, 7))
            cases.append(run(PNDMScheduler, {**config, "skip_prk_steps": True}, 1, 2, 3, 7, 20))
            cases.append(run(PNDMScheduler, config, 4, 7))
        cases.append(run(EulerDiscreteScheduler, config, 1, 2, 4, 7))
        cases.append(run(HeunDiscreteScheduler, config, 1, 2, 5))
        cases.append(run(DDIMScheduler, {**config, "clip_sample": False}, 1, 4, 7, 20, (5, 0.7), (3, 1.0)))
        cases.append(run(DPMSolverMultistepScheduler, config, 1, 2, 5, 16))
        cases.append(run(UniPCMultistepScheduler, config, 1, 2, 5, 16))
        cases.append(run(DEISMultistepScheduler, config, 1, 2, 5, 16))
    cases.append(run(LCMScheduler, {"prediction_type": prediction}, 1, 2, 4, 7, [999, 749, 499, 249], [399]))
    cases.append(run(TCDScheduler, {"prediction_type": prediction}, 1, 4, (4, 0.3), (5, 1.0), ([800], 1.0), ([999, 600, 250], 0.5)))

EULER = {**SD, "timestep_spacing": "leading"}
ZERO_SNR = {**SD, "timestep_spacing": "trailing", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
for cls, config, *requests in [
    (EulerAncestralDiscreteScheduler, {}, 3),
    (EulerAncestralDiscreteScheduler, {"beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "trailing"}, 5),
    (EulerAncestralDiscreteScheduler, ZERO_SNR, 4),
    (EulerAncestralDiscreteScheduler, {"trained_betas": [0.1, 0.2, 0.3, 0.25], "num_train_timesteps": 4}, 3),
    (EulerAncestralDiscreteScheduler, {**SD, "timestep_spacing": "trailing"}, 27),
    (EulerDiscreteScheduler, {}, 3),
    (EulerDiscreteScheduler, {**EULER, "use_karras_sigmas": True}, 1, 5),
    (EulerDiscreteScheduler, {**EULER, "use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 9.5}, 5),
    (EulerDiscreteScheduler, {**EULER, "use_exponential_sigmas": True, "final_sigmas_type": "sigma_min"}, 5),
    (EulerDiscreteScheduler, {**EULER, "use_beta_sigmas": True}, 1, 5, 30),
    (EulerDiscreteScheduler, {**EULER, "interpolation_type": "log_linear"}, 4),
    (EulerDiscreteScheduler, {**EULER, "interpolation_type": "log_linear", "use_karras_sigmas": True}, 4),
    (EulerDiscreteScheduler, SD, [999, 750, 500, 250.0], [999, 30]),
    (EulerDiscreteScheduler, ZERO_SNR, 4),
    (EulerDiscreteScheduler, {**EULER, "timestep_type": "continuous", "prediction_type": "v_prediction", "use_karras_sigmas": True, "sigma_min": 0.002, "sigma_max": 700.0}, 4),
    (LCMScheduler, {"original_inference_steps": 100, "timestep_scaling": 7.5, "set_alpha_to_one": False}, 8),
    (LCMScheduler, {"clip_sample": True, "clip_sample_range": 0.6}, 3),
    (LCMScheduler, {"thresholding": True, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.8}, 3),
    (LCMScheduler, {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}, 4),
    (LCMScheduler, {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}, 50),
    (TCDScheduler, {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}, (4, 0.3)),
    (TCDScheduler, {"original_inference_steps": 100, "clip_sample": True, "beta_schedule": "linear"}, (8, 0.9)),
    (DDIMScheduler, {}, 3, (3, 0.5)),
    (DDIMScheduler, ZERO_SNR | {"clip_sample": False}, 4, (4, 0.6), 25),
    (DDIMScheduler, {**SD, "clip_sample_range": 0.4, "set_alpha_to_one": False}, 6),
    (DDIMScheduler, {**SD, "thresholding": True, "dynamic_thresholding_ratio": 0.7, "sample_max_value": 2.0}, 6),
    (DDIMScheduler, {"beta_schedule": "squaredcos_cap_v2", "clip_sample": False, "timestep_spacing": "linspace"}, 9),
    (PNDMScheduler, {}, 5, 12),
    (PNDMScheduler, {**SD, "skip_prk_steps": True, "set_alpha_to_one": True, "steps_offset": 1}, 50),
    (HeunDiscreteScheduler, {"beta_schedule": "exp", "clip_sample": True, "clip_sample_range": 0.8}, 4),
    (HeunDiscreteScheduler, SD, [999, 666, 333, 12]),
    (DPMSolverMultistepScheduler, SD, [999, 700, 400, 200, 50]),
    (DPMSolverMultistepScheduler, ZERO_SNR, 6, 20),
    (DPMSolverMultistepScheduler, {**SD, "lambda_min_clipped": -4.0}, 6),
    (DPMSolverMultistepScheduler, {**SD, "lambda_min_clipped": -4.0, "timestep_spacing": "trailing"}, 6),
    (DPMSolverMultistepScheduler, {**SD, "lambda_min_clipped": -4.0, "timestep_spacing": "leading", "steps_offset": 1}, 6),
    (DPMSolverMultistepScheduler, {**SD, "use_lu_lambdas": True}, 6, 25),
    (DPMSolverMultistepScheduler, {**SD, "use_karras_sigmas": True, "algorithm_type": "sde-dpmsolver++"}, 6, 20),
    (DPMSolverMultistepScheduler, {**SD, "use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 12.0}, 6),
    (DPMSolverMultistepScheduler, {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True}, 6),
    (DPMSolverMultistepScheduler, {**SD, "thresholding": True, "dynamic_thresholding_ratio": 0.6, "sample_max_value": 3.0}, 5),
    (DPMSolverMultistepScheduler, {**SD, "thresholding": True, "algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}, 5),
    (DPMSolverMultistepScheduler, {**SD, "euler_at_final": True, "lower_order_final": False, "final_sigmas_type": "sigma_min", "solver_order": 3}, 5, 20),
    (DPMSolverMultistepScheduler, {**SD, "algorithm_type": "deis", "solver_type": "bh2", "final_sigmas_type": "sigma_min"}, 4),
    (DPMSolverMultistepScheduler, {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"}, 5),
    (UniPCMultistepScheduler, {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"}, 5),
    (UniPCMultistepScheduler, {"use_flow_sigmas": True, "shift_terminal": 0.1, "prediction_type": "flow_prediction", "final_sigmas_type": "sigma_min"}, 5),
    (UniPCMultistepScheduler, {"use_flow_sigmas": True, "use_karras_sigmas": True, "prediction_type": "flow_prediction"}, 5),
    (DEISMultistepScheduler, {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"}, 5),
    (UniPCMultistepScheduler, ZERO_SNR, 6),
    (UniPCMultistepScheduler, {**SD, "disable_corrector": [0, 2]}, 6),
    (UniPCMultistepScheduler, {**SD, "predict_x0": False, "final_sigmas_type": "sigma_min", "prediction_type": "v_prediction"}, 6),
    (UniPCMultistepScheduler, {**SD, "thresholding": True, "solver_type": "midpoint"}, 5),
    (DEISMultistepScheduler, {**SD, "algorithm_type": "dpmsolver++", "solver_type": "midpoint", "thresholding": True}, 5),
]:
    cases.append(run(cls, config, *requests))
for order in (1, 2, 3):
    for solver in ("midpoint", "heun"):
        for algorithm in ("dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver"):
            if algorithm == "sde-dpmsolver" and order == 3:
                continue
            final = "zero" if algorithm.endswith("++") else "sigma_min"
            config = {**SD, "solver_order": order, "solver_type": solver, "algorithm_type": algorithm, "final_sigmas_type": final}
            cases.append(run(DPMSolverMultistepScheduler, config, 5, 20))
    # bh1 times infinity is NaN where the last sigma is zero.
    for solver, final in (("bh1", "sigma_min"), ("bh2", "sigma_min"), ("bh2", "zero")):
        config = {**SD, "solver_order": order, "solver_type": solver, "final_sigmas_type": final}
        cases.append(run(UniPCMultistepScheduler, config, 5, 20))
    cases.append(run(DEISMultistepScheduler, {**SD, "solver_order": order}, 5, 20))
for spread in SPREADS:
    for cls in (HeunDiscreteScheduler, UniPCMultistepScheduler, DEISMultistepScheduler, DPMSolverMultistepScheduler):
        cases.append(run(cls, {**SD, spread: True}, 2, 6, 25))
    for cls in (UniPCMultistepScheduler, DPMSolverMultistepScheduler):
        cases.append(run(cls, {**SD, spread: True, "final_sigmas_type": "sigma_min"}, 6))

parser = argparse.ArgumentParser()
parser.add_argument("--perflow", type=Path)
if path := parser.parse_args().perflow:
    spec = importlib.util.spec_from_file_location("perflow", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["perflow"] = module
    spec.loader.exec_module(module)
    for config in [{}, {"prediction_type": "diff_eps"}, {"prediction_type": "velocity", "num_time_windows": 2}]:
        cases.append(run(module.PeRFlowScheduler, config, 2, 4, 6, 9))
else:
    cases += [case for case in json.loads(FILE.read_text()) if case["config"]["_class_name"] == "PeRFlowScheduler"]

lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
FILE.write_text(f"[\n{lines}\n]\n")
print(len(cases), "cases,", sum(len(case["runs"]) for case in cases), "runs")
