/** A VAE in a file of its own, in any of the ways in which it is passed on, as the folder `vae` of a diffusers model. */
import { MixdqError } from "../base/errors.ts";
import type { ModelFiles } from "../weights/files.ts";
import type { PlacedHeader, TensorEntry } from "../weights/header.ts";
import { vaeConfig } from "./configs.ts";
import { VAE_PREFIX, type Family, type Mapped } from "./contents.ts";
import { below, countOf, type Shapes } from "./shapes.ts";
import { whereOf, type FileSource } from "./source.ts";
import { streamComponent } from "./stream.ts";
import { vaeNames } from "./vaeLayout.ts";

const WEIGHTS = "vae/diffusion_pytorch_model.safetensors";

/** Whether the tensors are a VAE's, and nothing else's. */
export function isVae({ tensors }: PlacedHeader): boolean {
  return (
    tensors.some(({ name }) => DECODER.test(name)) &&
    !tensors.some(({ name }) => /diffusion_model|(^|\.)down_blocks\.\d+\.attentions\.0\.transformer/.test(name))
  );
}

const DECODER = /^(first_stage_model\.)?decoder\.(conv_in|layers\.0)\.weight$|^1\.weight$/;

/** `family`: that of the model which the VAE is for. Throws `invalid-model` for tensors that no decoder has. */
export function vaeFiles(source: FileSource, header: PlacedHeader, family: Family): ModelFiles {
  const where = whereOf(source);
  const tensors = mapVae(header.tensors);
  const isTiny = tensors.some(({ name }) => name.startsWith("decoder.layers."));
  if (!tensors.some(({ name }) => name.startsWith("decoder.")))
    throw new MixdqError("invalid-model", `${where}: got no decoder, expected a VAE. Check the file.`);
  const config = isTiny ? tinyConfig(tensors) : vaeConfig(family, tensors, where);
  const open = (signal?: AbortSignal) => streamComponent(source, header.dataStart, tensors, signal);
  return {
    location: where,
    isLocal: true,
    text: async (path) => (path === "vae/config.json" ? JSON.stringify(config) : undefined),
    open: async (path, signal) => (path === WEIGHTS ? open(signal) : undefined),
    async size(path) {
      if (path !== WEIGHTS) return undefined;
      const { bytes, body } = open();
      await body.cancel();
      return bytes;
    },
  };
}

function mapVae(entries: readonly TensorEntry[]): Mapped[] {
  const shapes: Shapes = new Map(entries.map(({ name, shape }) => [name, shape]));
  const prefix = shapes.has(`${VAE_PREFIX}decoder.conv_in.weight`) ? VAE_PREFIX : "";
  const nameOf = vaeNames(below(shapes, prefix));
  return entries.flatMap((entry) => {
    const name = entry.name.slice(prefix.length);
    const [, layer, rest] = /^(\d+)\.(.*)$/.exec(name) ?? [];
    // TAESD's own files count the clamp that the decoder begins with as a layer.
    const target =
      layer === undefined ? (nameOf(name) ?? diffusersName(name)) : `decoder.layers.${Number(layer) - 1}.${rest}`;
    return target === undefined ? [] : [{ name: target, entry }];
  });
}

const diffusersName = (name: string): string | undefined =>
  /^(encoder|decoder)\.(down_blocks|up_blocks|mid_block|conv_norm_out|layers)\./.test(name) ? name : undefined;

/** TAESD's: a level ends with an upsampling, whose convolution alone has no bias. */
function tinyConfig(tensors: readonly Mapped[]): object {
  const shapes: Shapes = new Map(tensors.map(({ name, entry }) => [name, entry.shape]));
  const count = countOf(shapes, "decoder.layers.");
  const blocks: number[] = [];
  let inLevel = 0;
  for (let layer = 1; layer < count; layer++) {
    if (shapes.has(`decoder.layers.${layer}.conv.0.weight`)) inLevel++;
    else if (shapes.has(`decoder.layers.${layer}.weight`)) {
      blocks.push(inLevel);
      inLevel = 0;
    }
  }
  // Behind the last level's convolution comes the one that makes the picture.
  const levels = blocks.filter((number) => number > 0);
  const [width, latents] = shapes.get("decoder.layers.0.weight") ?? [64, 4];
  return {
    _class_name: "AutoencoderTiny",
    latent_channels: latents,
    num_decoder_blocks: levels,
    num_encoder_blocks: levels.toReversed(),
    decoder_block_out_channels: levels.map(() => width),
    encoder_block_out_channels: levels.map(() => width),
    scaling_factor: 1,
  };
}
