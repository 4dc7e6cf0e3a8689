"""Small reference cases, computed by diffusers and transformers, to hold this project's own arithmetic against.

    python make_golden.py --out DIR          write every case into DIR
    python make_golden.py --out DIR --only unet-sd2 lcm-sd15
    python make_golden.py --check DIR        load the cases in DIR again, recompute them, compare

All weights are random and seeded by case and tensor name, so a case does not change when another one is added. Biases
and norms are random too: a term that is left out shows. The weights are stored narrow (F16, BF16; one case F32), the
arithmetic is float32 on the stored values. Inputs and weights are the same bits everywhere; outputs may differ in the
last bits on another CPU.
"""

import argparse
import collections
import json
import os
import shutil
import zlib
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import diffusers
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DiffusionPipeline,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

VERSIONS = {
    "torch": torch.__version__.split("+")[0],
    "diffusers": diffusers.__version__,
    "transformers": transformers.__version__,
}


# ----------------------------------------------------------------------------------------------------------------------
# Seeded numbers


def seed_of(*names):
    return zlib.crc32("/".join(map(str, names)).encode())


def randn(shape, *names):
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed_of(*names)))


def randomise(model, case, dtype):
    """Fill every parameter with seeded noise, scaled so that activations stay near unit size, and round it to dtype."""
    norm_types = (torch.nn.GroupNorm, torch.nn.LayerNorm)
    norms = {name for name, module in model.named_modules() if isinstance(module, norm_types)}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = randn(parameter.shape, case, type(model).__name__, name)
            owner, _, kind = name.rpartition(".")
            if owner in norms:
                value = 0.2 * noise + (1.0 if kind == "weight" else 0.0)
            elif kind == "bias":
                value = 0.2 * noise
            elif "embedding.weight" in name and "text_projection" not in name:  # token and position tables
                value = 0.7 * noise
            else:
                attention = owner.endswith(("to_q", "to_k", "q_proj", "k_proj"))  # 1.2: attention that is not flat
                gain = 1.2 if attention else 1.05 if isinstance(model, AutoencoderTiny) else 0.8
                if owner.endswith("conv_out"):
                    gain = 1.0
                value = gain * noise / parameter[0].numel() ** 0.5
            parameter.copy_(value)
    return model.to(dtype).eval().requires_grad_(False)


# ----------------------------------------------------------------------------------------------------------------------
# A small tokenizer in CLIP's file layout

CORPUS = """
a photo of a small red house by the sea in the evening light, two green trees under the moon, an old stone bridge
over the quiet river, the portrait of a fisherman with a blue hat, a cat sleeping on the warm window sill, snow on
the mountains behind the village, a bowl of oranges on a wooden table, painting in the style of the old masters,
watercolour of the harbour with white boats, the night train leaving the station, cinematic photo of a lighthouse in
the storm, blurry, low quality, a horse running through the field, flowers in the garden after the rain, the city
seen from above in the morning
"""


def byte_characters():
    """CLIP's (GPT-2's) printable stand-ins for the 256 bytes, in vocabulary order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in printable] + [chr(256 + n) for n in range(256 - len(printable))]


def train_merges(count):
    """Byte-pair merges of CORPUS, most frequent pair first, ties in alphabetical order."""
    counted = collections.Counter("".join(c if c.isalpha() else " " for c in CORPUS.lower()).split())
    words = {(*word[:-1], word[-1] + "</w>"): n for word, n in counted.items()}
    merges = []
    while len(merges) < count:
        pairs = collections.Counter()
        for word, n in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += n
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        merged = {}
        for word, n in words.items():
            parts, i = [], 0
            while i < len(word):
                both = word[i : i + 2] == best
                parts.append("".join(best) if both else word[i])
                i += 2 if both else 1
            merged[tuple(parts)] = n
        words = merged
    return merges


def vocabulary():
    characters = byte_characters()
    merges = train_merges(86)
    tokens = [*characters, *(c + "</w>" for c in characters), *("".join(pair) for pair in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: index for index, token in enumerate(tokens)}, merges


VOCAB, MERGES = vocabulary()
BOS, EOS = VOCAB["<|startoftext|>"], VOCAB["<|endoftext|>"]


def make_tokenizer(pad):
    return CLIPTokenizer(vocab=VOCAB, merges=MERGES, pad_token=pad, model_max_length=77)


def write_tokenizer(folder, pad, layout):
    """Rewrite a saved tokenizer folder. layout: "legacy" (vocab.json + merges.txt and the old, object-valued config),
    "json" (tokenizer.json alone) or "both"."""
    keep = {"json", "both"} & {layout}
    for path in folder.iterdir():
        if not (keep and path.name == "tokenizer.json"):
            path.unlink()
    if layout != "json":
        write_json(folder / "vocab.json", VOCAB)
        lines = ["#version: 0.2", *(" ".join(pair) for pair in MERGES)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = {"model_max_length": 77, "pad_token": pad, "tokenizer_class": "CLIPTokenizer"}
    flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    for key in ("bos_token", "eos_token", "unk_token"):
        token = "<|startoftext|>" if key == "bos_token" else "<|endoftext|>"
        config[key] = {"__type": "AddedToken", "content": token, **flags} if layout == "legacy" else token
    if layout == "legacy":
        config |= {"add_prefix_space": False, "do_lower_case": True, "errors": "replace"}
    write_json(folder / "tokenizer_config.json", config, indent=2)


# ----------------------------------------------------------------------------------------------------------------------
# Files


def write_json(path, value, indent=None):
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


def save_tensors(path, tensors):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def rename_tensors(path, rename, extra=None):
    tensors = {rename(name): tensor for name, tensor in load_file(path).items()}
    save_file({**tensors, **(extra or {})}, path, metadata={"format": "pt"})


# ----------------------------------------------------------------------------------------------------------------------
# Cases with a UNet alone

SD_BLOCKS = {
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}
SDXL_BLOCKS = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}


def text_time(pooled, each=8):
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": each,
        "projection_class_embeddings_input_dim": pooled + 6 * each,
    }


UNET_CASES = {
    "unet-sdxl-odd": {
        "dtype": torch.float16,
        "config": {
            **SDXL_BLOCKS,
            **text_time(24),
            "block_out_channels": (16, 16, 24),
            "attention_head_dim": [1, 2, 3],
            "transformer_layers_per_block": [1, 1, 2],
            "layers_per_block": 1,
            "cross_attention_dim": 48,
            "norm_num_groups": 8,
            "use_linear_projection": True,
        },
        "size": (17, 23),
        "tokens": 154,
        "timestep": torch.tensor([999, 261]),
    },
    "unet-ssd1b": {
        "dtype": torch.float16,
        "config": {
            **SDXL_BLOCKS,
            **text_time(24),
            "block_out_channels": (16, 16, 24),
            "attention_head_dim": [1, 2, 3],
            "transformer_layers_per_block": [1, [2, 0], [1, 2]],
            "reverse_transformer_layers_per_block": [[2, 0, 1], [0, 1, 2], 1],
            "mid_block_type": "UNetMidBlock2D",
            "mid_block_scale_factor": 1.5,
            "layers_per_block": 2,
            "cross_attention_dim": 48,
            "norm_num_groups": 8,
            "use_linear_projection": True,
        },
        "size": (12, 16),
        "tokens": 77,
        "timestep": torch.tensor([0.5, 640.25]),
    },
    "unet-no-mid": {
        "dtype": torch.float16,
        "config": {
            **SDXL_BLOCKS,
            **text_time(24),
            "block_out_channels": (16, 24, 24),
            "attention_head_dim": [1, 3, 2],
            "transformer_layers_per_block": [0, 1, 2],
            "mid_block_type": None,
            "layers_per_block": [1, 2, 1],
            "cross_attention_dim": 48,
            "norm_num_groups": 8,
            "use_linear_projection": True,
            "only_cross_attention": [False, True, False],
            "downsample_padding": 0,
        },
        "size": (8, 12),
        "tokens": 77,
        "timestep": torch.tensor([499]),
    },
    "unet-lcm-cond": {
        "dtype": torch.float16,
        "config": {
            **SD_BLOCKS,
            "block_out_channels": (16, 24, 24, 24),
            "attention_head_dim": [2, 3, 2, 3],
            "layers_per_block": 1,
            "cross_attention_dim": 40,
            "norm_num_groups": 8,
            "time_cond_proj_dim": 24,
        },
        "size": (16, 24),
        "tokens": 77,
        "timestep": torch.tensor([759, 19]),
    },
    "unet-sd2": {
        "dtype": torch.bfloat16,
        "config": {
            **SD_BLOCKS,
            "block_out_channels": (16, 16, 24, 24),
            "attention_head_dim": [1, 2, 3, 3],
            "layers_per_block": 1,
            "cross_attention_dim": 64,
            "norm_num_groups": 8,
            "use_linear_projection": True,
            "upcast_attention": True,
        },
        "shards": "400KB",
        "size": (16, 16),
        "tokens": 77,
        "timestep": torch.tensor([481]),
    },
    "unet-sd15": {
        "dtype": torch.float32,
        "config": {
            **SD_BLOCKS,
            "block_out_channels": (16, 16, 16, 16),
            "attention_head_dim": 2,
            "layers_per_block": 1,
            "cross_attention_dim": 32,
            "norm_num_groups": 4,
        },
        "size": (9, 16),
        "tokens": 77,
        "timestep": torch.tensor([981]),
    },
}


def unet_inputs(case, spec):
    config, batch = spec["config"], len(spec["timestep"])
    inputs = {
        "sample": randn((batch, 4, *spec["size"]), case, "sample"),
        "timestep": spec["timestep"],
        "encoder_hidden_states": randn((batch, spec["tokens"], config["cross_attention_dim"]), case, "text"),
    }
    inputs["encoder_hidden_states"][:, 0] *= 8  # the first token is an outlier, as it is in CLIP
    if "addition_embed_type" in config:
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        inputs["text_embeds"] = randn((batch, pooled), case, "pooled")
        sizes = torch.tensor([[512.0, 640.0, 0.0, 64.0, 512.0, 512.0], [1024.0, 768.0, 32.0, 0.0, 1024.0, 896.0]])
        inputs["time_ids"] = sizes[:batch].clone()
    if "time_cond_proj_dim" in config:
        inputs["timestep_cond"] = randn((batch, config["time_cond_proj_dim"]), case, "guidance")
    return inputs


@torch.no_grad()
def run_unet(folder, inputs):
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", dtype=torch.float32)
    added = {key: inputs[key] for key in ("text_embeds", "time_ids") if key in inputs}
    return unet(
        inputs["sample"],
        inputs["timestep"],
        inputs["encoder_hidden_states"],
        timestep_cond=inputs.get("timestep_cond"),
        added_cond_kwargs=added or None,
    ).sample


def make_unet_case(case, folder):
    spec = UNET_CASES[case]
    unet = randomise(UNet2DConditionModel(sample_size=16, **spec["config"]), case, spec["dtype"])
    unet.save_pretrained(folder / "unet", **({"max_shard_size": spec["shards"]} if "shards" in spec else {}))
    inputs = unet_inputs(case, spec)
    save_tensors(folder / "io.safetensors", {**inputs, "out_sample": run_unet(folder, inputs)})


# ----------------------------------------------------------------------------------------------------------------------
# Cases with a whole pipeline

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
LONG_PROMPT = (
    "a very long prompt that goes on and on about the sea, the moon, the trees and the old stone bridge by the river,"
    " with white boats, oranges, flowers, horses, cats and snow, painted in watercolour, until nobody wants to read any"
    " further"
)

SDXL_UNET = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (16, 24),
    "attention_head_dim": [1, 3],
    "transformer_layers_per_block": [1, 2],
    "layers_per_block": 1,
    "cross_attention_dim": 32 + 24,
    "norm_num_groups": 8,
    "use_linear_projection": True,
    "sample_size": 16,
    **text_time(20),
}
SD_UNET = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (16, 24),
    "attention_head_dim": 2,
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "norm_num_groups": 8,
    "sample_size": 16,
}
TEXT = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
# Four stages, so eight pixels to one latent value, as in the real ones.
TINY_VAE = {
    "encoder_block_out_channels": (8,) * 4,
    "decoder_block_out_channels": (16,) * 4,
    "num_encoder_blocks": (1, 1, 1, 1),
    "num_decoder_blocks": (2, 1, 1, 1),
}

PIPELINE_CASES = {
    "sdxl-euler-cfg": {
        "pipeline": StableDiffusionXLPipeline,
        "scheduler": (EulerDiscreteScheduler, {"timestep_spacing": "leading", "steps_offset": 1}),
        "unet": SDXL_UNET,
        "vae": (AutoencoderTiny, {**TINY_VAE, "scaling_factor": 3.0}),
        "text_encoder": {**TEXT, "hidden_act": "quick_gelu", "num_hidden_layers": 3},
        "text_encoder_2": {
            **TEXT,
            "hidden_act": "gelu",
            "hidden_size": 24,
            "intermediate_size": 96,
            "projection_dim": 20,
            "eos_token_id": 2,
        },
        "tokenizer": ("<|endoftext|>", "both"),
        "tokenizer_2": ("!", "both"),
        "steps": 3,
        "size": (64, 80),
        "prompts": [
            {"prompt": "a red house by the sea", "negative_prompt": "blurry, low quality", "guidance": 5.0},
            {"prompt": "Two   small trees; it's the moon's ## 42nd photo!", "guidance": 5.0},
            {"prompt": "the old stone bridge", "negative_prompt": "", "guidance": 5.0},
        ],
    },
    "sd15-ancestral": {
        "pipeline": StableDiffusionPipeline,
        "scheduler": (EulerAncestralDiscreteScheduler, {"timestep_spacing": "linspace", "steps_offset": 1}),
        "unet": {
            **SD_UNET,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": 6,
        },
        "vae": (
            AutoencoderKL,
            {
                "down_block_types": ("DownEncoderBlock2D",) * 2,
                "up_block_types": ("UpDecoderBlock2D",) * 2,
                "block_out_channels": (16, 32),
                "layers_per_block": 1,
                "norm_num_groups": 8,
                "scaling_factor": 6.0,
            },
        ),
        "text_encoder": {**TEXT, "hidden_act": "quick_gelu", "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1},
        "tokenizer": ("<|endoftext|>", "legacy"),
        "legacy_keys": True,
        "steps": 3,
        "size": (24, 32),
        "prompts": [
            {"prompt": "a cat sleeping on the window sill", "negative_prompt": "snow", "guidance": 7.5},
            {"prompt": "un café à la plage ☀", "guidance": 3.0},
            {"prompt": LONG_PROMPT, "guidance": 1.0},
        ],
    },
    "sd21-turbo": {
        "pipeline": StableDiffusionPipeline,
        "scheduler": (EulerDiscreteScheduler, {"timestep_spacing": "trailing", "steps_offset": 1}),
        "unet": {**SD_UNET, "attention_head_dim": [1, 2], "use_linear_projection": True},
        "vae": (AutoencoderTiny, {**TINY_VAE, "scaling_factor": 8.0}),
        "text_encoder": {**TEXT, "hidden_act": "gelu", "num_hidden_layers": 3},
        "tokenizer": ("!", "json"),
        "steps": 1,
        "size": (64, 64),
        "prompts": [
            {"prompt": "a bowl of oranges on a wooden table", "guidance": 0.0},
            {"prompt": "", "guidance": 0.0},
        ],
    },
    "sd21-v": {
        "pipeline": StableDiffusionPipeline,
        "scheduler": (
            EulerDiscreteScheduler,
            {"timestep_spacing": "trailing", "steps_offset": 1, "prediction_type": "v_prediction"},
        ),
        "unet": {**SD_UNET, "attention_head_dim": [1, 2], "use_linear_projection": True},
        "vae": (
            AutoencoderKL,
            {
                "down_block_types": ("DownEncoderBlock2D",) * 2,
                "up_block_types": ("UpDecoderBlock2D",) * 2,
                "block_out_channels": (16, 24),
                "layers_per_block": 1,
                "norm_num_groups": 8,
                "scaling_factor": 0.8,
                "use_post_quant_conv": False,
                "use_quant_conv": False,
                "mid_block_add_attention": False,
            },
        ),
        "text_encoder": {**TEXT, "hidden_act": "gelu"},
        "tokenizer": ("!", "both"),
        "dtype": torch.bfloat16,
        "steps": 3,
        "size": (24, 40),
        "prompts": [{"prompt": "snow on the mountains", "negative_prompt": "rain", "guidance": 4.0}],
    },
    "lcm-sd15": {
        "pipeline": LatentConsistencyModelPipeline,
        "scheduler": (LCMScheduler, {"original_inference_steps": 50}),
        "unet": {**SD_UNET, "time_cond_proj_dim": 24},
        "vae": (AutoencoderTiny, {**TINY_VAE, "scaling_factor": 9.0}),
        "text_encoder": {**TEXT, "hidden_act": "quick_gelu"},
        "tokenizer": ("<|endoftext|>", "both"),
        "variant": "fp16",
        "steps": 2,
        "size": (72, 56),
        "prompts": [
            {"prompt": "the night train leaving the station", "guidance": 8.5},
            {"prompt": "Flowers in the garden.", "guidance": 3.0},
        ],
    },
}


def make_text_encoder(case, name, config, dtype):
    ids = {"vocab_size": len(VOCAB), "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": EOS}
    kind = CLIPTextModelWithProjection if "projection_dim" in config else CLIPTextModel
    return randomise(kind(CLIPTextConfig(**{**ids, **config})), f"{case}/{name}", dtype)


def save_pipeline(case, folder):
    spec = PIPELINE_CASES[case]
    dtype = spec.get("dtype", torch.float16)
    scheduler, scheduler_config = spec["scheduler"]
    vae, vae_config = spec["vae"]
    parts = {
        "unet": randomise(UNet2DConditionModel(**spec["unet"]), case, dtype),
        "vae": randomise(vae(**vae_config), case, dtype),
        "scheduler": scheduler(**BETAS, **scheduler_config),
    }
    for name in ("text_encoder", "text_encoder_2"):
        if name in spec:
            parts[name] = make_text_encoder(case, name, spec[name], dtype)
    for name in ("tokenizer", "tokenizer_2"):
        if name in spec:
            parts[name] = make_tokenizer(spec[name][0])
    if spec["pipeline"] is StableDiffusionXLPipeline:
        parts["add_watermarker"] = False
    else:
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    spec["pipeline"](**parts).save_pretrained(folder, variant=spec.get("variant"))

    for name in ("tokenizer", "tokenizer_2"):
        if name in spec:
            write_tokenizer(folder / name, *spec[name])
    if spec.get("legacy_keys"):  # tensor names as in the files of 2022
        positions = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
        rename_tensors(folder / "text_encoder/model.safetensors", lambda name: f"text_model.{name}", positions)
        rename_tensors(folder / "vae/diffusion_pytorch_model.safetensors", legacy_attention_name)


def legacy_attention_name(name):
    if ".attentions." in name:
        for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            name = name.replace(f".{new}.", f".{old}.")
    return name


@torch.no_grad()
def run_pipeline(case, folder):
    """Run every prompt of a case through the pipeline as it lies on the disk, and note what passes by."""
    spec = PIPELINE_CASES[case]
    more = {"add_watermarker": False} if spec["pipeline"] is StableDiffusionXLPipeline else {}
    pipe = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, variant=spec.get("variant"), **more)
    assert type(pipe) is spec["pipeline"]
    pipe.set_progress_bar_config(disable=True)
    height, width = spec["size"]
    factor = pipe.vae_scale_factor
    tensors, records = {}, []

    for j, prompt in enumerate(spec["prompts"]):
        unet_calls, decoded, ids = [], [], collections.defaultdict(list)
        final = {}

        def on_unet(module, args, kwargs, output):
            unet_calls.append((args, kwargs, output[0]))

        def on_step(pipeline, step, t, state):
            final["latents"] = state["latents"]
            return {}

        def on_ids(name):
            return lambda module, args, kwargs: ids[name].append((args[0] if args else kwargs["input_ids"])[0].tolist())

        def decode(*args, **kwargs):
            image = original_decode(*args, **kwargs)
            decoded.append(image[0])
            return image

        original_decode, pipe.vae.decode = pipe.vae.decode, decode
        hooks = [pipe.unet.register_forward_hook(on_unet, with_kwargs=True)]
        for name in ("text_encoder", "text_encoder_2"):
            if name in spec:
                hooks.append(getattr(pipe, name).register_forward_pre_hook(on_ids(name), with_kwargs=True))

        latents = randn((1, pipe.unet.config.in_channels, height // factor, width // factor), case, j, "latents")
        noise_seed = 40 + j
        negative = {"negative_prompt": prompt["negative_prompt"]} if "negative_prompt" in prompt else {}
        pipe(
            prompt["prompt"],
            height=height,
            width=width,
            num_inference_steps=spec["steps"],
            guidance_scale=prompt["guidance"],
            latents=latents,
            generator=torch.Generator("cpu").manual_seed(noise_seed),
            callback_on_step_end=on_step,
            callback_on_step_end_tensor_inputs=["latents"],
            output_type="pt",
            **negative,
        )
        for hook in hooks:
            hook.remove()
        pipe.vae.decode = original_decode

        (sample, t, *_), kwargs, output = unet_calls[0]
        text = kwargs["encoder_hidden_states"]
        guided = len(sample) == 2
        found = {"latents": latents, "ehs": text[-1:], "unet_in": sample[-1:], "t": t.reshape(1), "unet_out": output}
        if guided:
            found["negative_ehs"] = text[:1]
            found["guided_out"] = output[:1] + prompt["guidance"] * (output[1:] - output[:1])
        if (added := kwargs.get("added_cond_kwargs")) is not None:
            found["pooled"] = added["text_embeds"][-1:]
            found["time_ids"] = added["time_ids"][-1:]
            if guided:
                found["negative_pooled"] = added["text_embeds"][:1]
        if kwargs.get("timestep_cond") is not None:
            found["timestep_cond"] = kwargs["timestep_cond"]
        found |= {"timesteps": torch.stack([args[1].float() for args, _, _ in unet_calls])}
        found |= {"final_latents": final["latents"], "image": decoded[0]}
        tensors |= {f"{j}.{key}": value.float().clone() for key, value in found.items()}

        record = {**prompt, "noise_seed": noise_seed, "ids": ids["text_encoder"][0]}
        if "text_encoder_2" in spec:
            record["ids_2"] = ids["text_encoder_2"][0]
        for name, key in (("text_encoder", "negative_ids"), ("text_encoder_2", "negative_ids_2")):
            if len(ids[name]) > 1:
                record[key] = ids[name][1]
        records.append(record)

    info = {"steps": spec["steps"], "height": height, "width": width, "vae_scale_factor": factor, "versions": VERSIONS}
    return tensors, {**info, "prompts": records}


def make_pipeline_case(case, folder):
    save_pipeline(case, folder)
    tensors, info = run_pipeline(case, folder)
    save_tensors(folder / "io.safetensors", tensors)
    prompts = ",\n".join("    " + json.dumps(record, ensure_ascii=False) for record in info.pop("prompts"))
    text = json.dumps(info)[:-1] + f', "prompts": [\n{prompts}\n]}}\n'
    (folder / "io.json").write_text(text, encoding="utf-8")


# ----------------------------------------------------------------------------------------------------------------------


def recompute(case, folder):
    stored = load_file(folder / "io.safetensors")
    if case in UNET_CASES:
        return stored, {"out_sample": run_unet(folder, stored)}
    return stored, run_pipeline(case, folder)[0]


def check(case, folder):
    stored, computed = recompute(case, folder)
    worst = max(((stored[k] - v).norm() / stored[k].norm().clamp(min=1e-20)).item() for k, v in computed.items())
    key = "out_sample" if case in UNET_CASES else "0.image"
    print(f"{case:16} worst relative difference {worst:.1e}, {key} std {stored[key].std():.2f}")
    return worst <= 1e-5


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder to write the cases into")
    parser.add_argument("--check", type=Path, help="folder whose cases are to be recomputed")
    parser.add_argument("--only", nargs="+", choices=[*UNET_CASES, *PIPELINE_CASES], help="these cases only")
    arguments = parser.parse_args()
    if (arguments.out is None) == (arguments.check is None):
        parser.error("give either --out DIR or --check DIR")
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    print(", ".join(f"{name} {version}" for name, version in VERSIONS.items()))
    cases = arguments.only or [*UNET_CASES, *PIPELINE_CASES]
    if arguments.check:
        raise SystemExit(0 if all([check(case, arguments.check / case) for case in cases]) else 1)
    for case in cases:
        folder = arguments.out / case
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (make_unet_case if case in UNET_CASES else make_pipeline_case)(case, folder)
        files = [path for path in folder.rglob("*") if path.is_file()]
        for path in files:
            path.chmod(0o644)
        size = sum(path.stat().st_size for path in files)
        print(f"{case:16} {size / 1000:7.0f} kB")


if __name__ == "__main__":
    main()
