"""Writes timestep.json: diffusers' sinusoidal embeddings. Made with diffusers 0.40.0.dev0 (58eb52c0), PyTorch 2.13.0:
python make_timestep_golden.py
"""

import json
from pathlib import Path

import torch
from diffusers import LatentConsistencyModelPipeline
from diffusers.models.embeddings import get_timestep_embedding


def tidy(tensor):
    return [float(f"{v:.8g}") for v in tensor.flatten().tolist()]


timesteps = []
for ts, dim, flip, shift, scale in [
    ([999.0], 32, True, 0, 1),
    ([0.0, 1.0, 249.0], 16, False, 1, 1),
    ([512.0, 512.0, 0.0, 0.0, 1024.0, 768.0], 16, True, 0, 1),
    ([261.7], 9, True, 0, 1),
    ([500.25], 8, False, 0.5, 10),
]:
    values = get_timestep_embedding(torch.tensor(ts), dim, flip_sin_to_cos=flip, downscale_freq_shift=shift, scale=scale)
    timesteps.append({"timesteps": ts, "dim": dim, "flipSinToCos": flip, "freqShift": shift, "scale": scale, "values": tidy(values)})

guidance = []
for w, dim in [(7.5, 32), (0.0, 8), (1.0, 9), (4.3, 256)]:
    values = LatentConsistencyModelPipeline.get_guidance_scale_embedding(None, torch.tensor([w]), embedding_dim=dim)
    guidance.append({"w": w, "dim": dim, "values": tidy(values)[:64]})

Path(__file__).with_name("timestep.json").write_text(json.dumps({"timesteps": timesteps, "guidance": guidance}) + "\n")
