"""Writes small LoRAs and their relatives over e2e/golden/sdxl-euler-cfg, and the weights that merging them gives.

    PYTHONPATH=LYCORIS python make_lora_golden.py      with LYCORIS a checkout of LyCORIS at f49d30d6 (3.2.0.post2)

Made with torch 2.13.0, diffusers 0.40.0.dev0, peft 0.21.0, transformers 5.18.0. All numbers are seeded by name; the
arithmetic is PEFT's, diffusers' (fuse_lora) and LyCORIS' own, in float32.

attention.*.safetensors  one LoRA (UNet and both text encoders, rank 4, alpha 6) in the spellings of diffusers, diffusers
                         before PEFT, kohya with diffusers' names, kohya with sgm's; attention.merged: at scale 0.7
kinds.safetensors        a layer of each of LyCORIS' kinds, in kohya's spelling; kinds.merged: at scale 1
peft.*.safetensors       rsLoRA and DoRA, linear and convolution, as PEFT makes and diffusers saves them, with metadata;
                         peft.*.merged: at scale 0.6
"""

import json
import tempfile
import zlib
from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline
from lycoris.modules.full import FullModule
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from lycoris.modules.norms import NormModule
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
MODEL = HERE / "../../../e2e/golden/sdxl-euler-cfg"
COMPONENTS = ("unet", "text_encoder", "text_encoder_2")


def randn(shape, *names):
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(zlib.crc32("/".join(names).encode())))


def load():
    return StableDiffusionXLPipeline.from_pretrained(MODEL, torch_dtype=torch.float32, variant=variant())


def variant():
    return "fp16" if (MODEL / "unet/diffusion_pytorch_model.fp16.safetensors").exists() else None


def save(name, tensors, metadata=None):
    tensors = {key: tensor.detach().contiguous().clone() for key, tensor in sorted(tensors.items())}
    save_file(tensors, HERE / f"{name}.safetensors", metadata=metadata)


def weights(pipe):
    return {
        f"{component}/{name}": tensor.clone()
        for component in COMPONENTS
        for name, tensor in getattr(pipe, component).state_dict().items()
        if "lora" not in name
    }


def plain(pipe):
    """The weights of a pipeline without its adapters' wrappers."""
    pipe.unload_lora_weights()
    return weights(pipe)


def changed(after, before):
    assert after.keys() == before.keys()
    return {name: tensor for name, tensor in after.items() if not torch.equal(tensor, before[name])}


def add_adapter(component, kind, label, **config):
    """A PEFT adapter with seeded numbers in all of its tensors."""
    component.add_adapter(LoraConfig(init_lora_weights=False, **config), adapter_name="a")
    with torch.no_grad():
        for name, parameter in component.named_parameters():
            if "lora_" not in name:
                continue
            noise = randn(parameter.shape, label, kind, name)
            if "magnitude" in name:
                parameter.mul_(1 + 0.3 * noise)
            else:
                parameter.copy_(0.3 * noise)


def attention():
    """
    diffusers loads each spelling too, and all of them give the same weights: of the UNet, because with transformers 5,
    whose text encoders have no `text_model` any more, this diffusers loads text encoders in its newest spelling alone.
    """
    base = weights(load())
    pipe = load()
    targets = ["to_q", "to_out.0", "proj_in", "ff.net.2"]
    add_adapter(pipe.unet, "unet", "attention", r=4, lora_alpha=6, target_modules=targets)
    encoder = ["q_proj", "out_proj", "fc2"]
    for name in COMPONENTS[1:]:
        add_adapter(getattr(pipe, name), name, "attention", r=4, lora_alpha=6, target_modules=encoder)
    states = {name: get_peft_model_state_dict(getattr(pipe, name), adapter_name="a") for name in COMPONENTS}
    metadata = {name: getattr(pipe, name).peft_config["a"].to_dict() for name in COMPONENTS}
    with tempfile.TemporaryDirectory() as folder:
        StableDiffusionXLPipeline.save_lora_weights(
            folder,
            unet_lora_layers=states["unet"],
            text_encoder_lora_layers=states["text_encoder"],
            text_encoder_2_lora_layers=states["text_encoder_2"],
            unet_lora_adapter_metadata=clean(metadata["unet"]),
            text_encoder_lora_adapter_metadata=clean(metadata["text_encoder"]),
            text_encoder_2_lora_adapter_metadata=clean(metadata["text_encoder_2"]),
        )
        (file,) = Path(folder).iterdir()
        (HERE / "attention.diffusers.safetensors").write_bytes(file.read_bytes())
    prefixes = {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}
    spelled = {"kohya": {}, "sgm": {}, "old": {}}
    for component, state in states.items():
        for key, tensor in state.items():
            path, side = key.removesuffix(".weight").rsplit(".lora_", 1)
            if component != "unet" and not path.startswith("text_model."):
                path = f"text_model.{path}"
            end = {"A": "lora_down.weight", "B": "lora_up.weight"}[side]
            for spelling in ("kohya", "sgm"):
                name = sgm(path) if spelling == "sgm" and component == "unet" else path
                layer = prefixes[component] + name.replace(".", "_")
                spelled[spelling][f"{layer}.{end}"] = tensor
                spelled[spelling][f"{layer}.alpha"] = torch.tensor(6.0)
            # diffusers before PEFT had no alpha: it is in the numbers.
            scale, side = (1.5, "up") if side == "B" else (1, "down")
            spelled["old"][f"{component}.{processor(path, component)}.{side}.weight"] = scale * tensor
    for spelling, tensors in spelled.items():
        save(f"attention.{spelling}", tensors)
    merged = {}
    for spelling in ("diffusers", *spelled):
        pipe = load()
        state = load_file(HERE / f"attention.{spelling}.safetensors")
        if spelling != "diffusers":
            state = {key: tensor for key, tensor in state.items() if key.startswith(("unet.", "lora_unet_"))}
        pipe.load_lora_weights(HERE if spelling == "diffusers" else state, weight_name="attention.diffusers.safetensors")
        pipe.fuse_lora(lora_scale=0.7, components=list(COMPONENTS if spelling == "diffusers" else COMPONENTS[:1]))
        merged[spelling] = plain(pipe)
        for name, tensor in merged[spelling].items():
            if name.startswith("unet/"):
                torch.testing.assert_close(tensor, merged["diffusers"][name], msg=f"{spelling} {name}")
    save("attention.merged", changed(merged["diffusers"], base))


def clean(config):
    """What save_lora_weights can write as JSON."""
    return {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}


def sgm(path):
    """sgm's names of this UNet's attentions: two levels of one layer, with attention in the second."""
    for ours, theirs in {
        "down_blocks.1.attentions.0": "input_blocks.3.1",
        "mid_block.attentions.0": "middle_block.1",
        "up_blocks.0.attentions.0": "output_blocks.0.1",
        "up_blocks.0.attentions.1": "output_blocks.1.1",
    }.items():
        if path.startswith(ours):
            return theirs + path.removeprefix(ours)
    raise ValueError(path)


def processor(path, component):
    layer, name = path.rsplit(".", 1)
    if component == "unet":
        if path.endswith(".to_out.0"):
            return path.removesuffix(".to_out.0") + ".processor.to_out_lora"
        return f"{layer}.processor.{name}_lora" if name in ("to_q", "to_k", "to_v") else f"{path}.lora"
    short = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}
    return f"{layer}.{short[name]}_lora" if name in short else f"{path}.lora_linear_layer"


TO_Q = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
ATTN = "up_blocks.0.attentions.0.transformer_blocks.0"
KINDS = {
    "conv_in": (LoConModule, {"lora_dim": 3, "alpha": 2}),
    "down_blocks.0.resnets.0.conv1": (LoConModule, {"lora_dim": 4, "alpha": 1, "use_tucker": True}),
    "down_blocks.1.resnets.0.conv_shortcut": (LoConModule, {"lora_dim": 2, "alpha": 2}),
    TO_Q: (LoConModule, {"lora_dim": 4, "alpha": 8, "rs_lora": True}),
    "down_blocks.0.downsamplers.0.conv": (LohaModule, {"lora_dim": 3, "alpha": 2}),
    "down_blocks.0.resnets.0.conv2": (LohaModule, {"lora_dim": 4, "alpha": 3, "use_tucker": True}),
    TO_Q[:-1] + "k": (LohaModule, {"lora_dim": 3, "alpha": 1}),
    TO_Q[:-1] + "v": (LokrModule, {"lora_dim": 2, "alpha": 1, "factor": 4}),
    TO_Q[:-4] + "to_out.0": (LokrModule, {"lora_dim": 100, "alpha": 7, "factor": 4}),
    f"{ATTN}.attn1.to_q": (LokrModule, {"lora_dim": 1, "alpha": 3, "factor": 4, "decompose_both": True}),
    "up_blocks.0.resnets.0.conv1": (LokrModule, {"lora_dim": 2, "alpha": 3, "factor": 4}),
    "up_blocks.0.resnets.0.conv2": (LokrModule, {"lora_dim": 2, "alpha": 3, "factor": 4, "use_tucker": True}),
    f"{ATTN}.attn1.to_k": (LoConModule, {"lora_dim": 3, "alpha": 2, "weight_decompose": True, "wd_on_out": True}),
    f"{ATTN}.attn2.to_k": (LoConModule, {"lora_dim": 3, "alpha": 2, "weight_decompose": True, "wd_on_out": False}),
    f"{ATTN}.attn1.to_v": (LohaModule, {"lora_dim": 3, "alpha": 2, "weight_decompose": True, "wd_on_out": True}),
    "up_blocks.0.resnets.1.conv1": (LoConModule, {"lora_dim": 3, "weight_decompose": True, "wd_on_out": False}),
    "up_blocks.0.resnets.1.conv2": (LoConModule, {"lora_dim": 3, "weight_decompose": True, "wd_on_out": True}),
    "time_embedding.linear_1": (FullModule, {}),
    "conv_norm_out": (NormModule, {}),
}


def merge(adapter, module):
    """
    The weights that a module of LyCORIS computes with. Its own get_merged_weight does so for LoCon and norms; of LoHa and
    LoKr it multiplies with alpha / rank twice, where forward does once, and of whole differences it stumbles over the bias.
    """
    if isinstance(adapter, FullModule):
        return adapter.weight, adapter.bias
    if isinstance(adapter, (LohaModule, LokrModule)):
        sum = adapter.org_weight + adapter.get_weight(module.weight.shape).view(module.weight.shape)
        return adapter.apply_weight_decompose(sum) if adapter.wd else sum, None
    return adapter.get_merged_weight(1.0, module.weight.shape)


def kinds():
    unet = load().unet
    modules = dict(unet.named_modules())
    tensors, merged = {}, {}
    for path, (kind, options) in KINDS.items():
        module = modules[path]
        adapter = kind(path, module, 1.0, **options)
        with torch.no_grad():
            for name, parameter in adapter.named_parameters():
                noise = randn(parameter.shape, "kinds", path, name)
                if "dora_scale" in name:
                    parameter.mul_(1 + 0.3 * noise)
                elif kind is FullModule:
                    parameter.add_(0.1 * noise)
                else:
                    parameter.copy_(0.4 * noise)
        state = adapter.custom_state_dict() if kind not in (NormModule,) else adapter.state_dict()
        state = state if state is not None else adapter.state_dict()
        for name, tensor in state.items():
            tensors[f"lora_unet_{path.replace('.', '_')}.{name}"] = tensor
        weight, bias = merge(adapter, module)
        merged[f"unet/{path}.weight"] = weight
        if bias is not None and not torch.equal(bias, module.bias):
            merged[f"unet/{path}.bias"] = bias
    save("kinds", tensors)
    save("kinds.merged", merged)


def peft():
    for label, options in {
        "rslora": {"use_rslora": True, "lora_bias": True, "alpha_pattern": {"attn2.to_out.0": 9}},
        "dora": {"use_dora": True},
    }.items():
        base = weights(load())
        pipe = load()
        targets = r"(mid_block|up_blocks\.0\.\w+\.0)\.(.*\.)?(to_out\.0|conv2|conv_shortcut)"
        add_adapter(pipe.unet, "unet", label, r=3, lora_alpha=5, target_modules=targets, **options)
        state = get_peft_model_state_dict(pipe.unet, adapter_name="a")
        metadata = clean(pipe.unet.peft_config["a"].to_dict())
        with tempfile.TemporaryDirectory() as folder:
            StableDiffusionXLPipeline.save_lora_weights(
                folder, unet_lora_layers=state, unet_lora_adapter_metadata=metadata
            )
            (file,) = Path(folder).iterdir()
            (HERE / f"peft.{label}.safetensors").write_bytes(file.read_bytes())
        pipe = load()
        pipe.load_lora_weights(HERE, weight_name=f"peft.{label}.safetensors")
        pipe.fuse_lora(lora_scale=0.6)
        save(f"peft.{label}.merged", changed(plain(pipe), base))


if __name__ == "__main__":
    torch.set_num_threads(1)
    attention()
    kinds()
    peft()
    for file in sorted(HERE.glob("*.safetensors")):
        print(f"{file.name}: {len(load_file(file))} tensors, {file.stat().st_size} bytes")
