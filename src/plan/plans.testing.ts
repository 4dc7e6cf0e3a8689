/** Graphs of whole models for tests of plans, without any weights: the default model's, and SDXL-Turbo's. */
import { SIMPLE, TILED } from "../kernels/choices.ts";
import type { Precision } from "../base/types.ts";
import { buildUNet } from "../diffusion/unet.ts";
import { buildVaeDecoder } from "../diffusion/vae.ts";
import type { Graph } from "../graph/ops.ts";
import { quantizeGraph } from "../graph/quantize.ts";
import type { DeviceCaps } from "../kernels/kernel.ts";
import { quantizableLayers } from "../mixdq/calibration/layers.ts";
import { readModel } from "../model/description.ts";
import { ModelGraphs } from "../model/graphs.ts";
import { describeSdxlTurbo } from "../model/known/sdxlTurbo.ts";
import { chooseQuantization } from "../model/quantization.ts";
import { diskFiles } from "../node/diskFiles.ts";
import { parseMixdqConfig, type MixdqConfig } from "../quant/config.ts";
import type { WeightBits, WeightQuant } from "../quant/formats.ts";
import { buildTextEncoder } from "../text/encoder.ts";
import { openPack } from "../weights/pack.ts";

/** What a large GPU is asked with: the tiled kernels with overrides compiled in; `direct` is what software adapters get. */
export const GPU_CAPS: DeviceCaps = {
  shaderF16: true,
  ...TILED,
  packedDot: true,
  maxWorkgroupsPerDimension: 65_535,
};
export const DIRECT_CAPS: DeviceCaps = { ...GPU_CAPS, ...SIMPLE, overrides: "constants" };

/**
 * The graphs of a folder or a pack at its default size, as loading them plans; `config` is the name of a configuration in
 * the folder, default the precision's own.
 */
export async function graphsOfModel(folder: string, asked: Precision, config?: string): Promise<Graph[]> {
  const onDisk = await diskFiles(folder);
  const pack = await openPack(onDisk);
  const files = pack?.files ?? onDisk;
  const named = config === undefined ? undefined : parseMixdqConfig((await files.text(config))!, config);
  const { precision, config: chosen } = await chooseQuantization(files, pack, { precision: asked, config: named });
  const components = new ModelGraphs(await readModel(files), precision, chosen).components();
  return components.flatMap(({ graphs }) => graphs.map(({ build }) => build()));
}

/** All layers of a UNet in one format; shortcuts over a concatenation with scales of their own for each half. */
export function configOfAll(graph: Graph, weightBits: WeightBits, weights: Omit<WeightQuant, "bits">, actBits: 8 | 16) {
  const [act, act2] = [
    { scale: 0.02, zeroPoint: 120 },
    { scale: 0.03, zeroPoint: 131 },
  ];
  const config: MixdqConfig = {
    model: "test",
    weights,
    layers: new Map(
      quantizableLayers(graph).map(({ path, hasSkip }) => [
        path,
        { weightBits, actBits, ...(actBits === 8 && { act, ...(hasSkip && { act2 }) }) },
      ]),
    ),
    bos: actBits === 8,
    averageWeightBits: undefined,
    provenance: {},
  };
  return config;
}

export interface SdxlOptions {
  /** Of the picture, in pixels. */
  readonly size: number;
  readonly batch?: number;
  readonly dtype?: "f32" | "f16";
}

const SDXL = describeSdxlTurbo();

export function sdxlUnet({ size, batch = 1, dtype = "f16" }: SdxlOptions): Graph {
  return buildUNet(SDXL.unet, { batch, height: size / 8, width: size / 8, tokens: 77 }, "unet", dtype);
}

export const quantizedSdxlUnet = (options: SdxlOptions, bits: WeightBits, actBits: 8 | 16): Graph => {
  const graph = sdxlUnet({ ...options, dtype: "f32" });
  return quantizeGraph(graph, configOfAll(graph, bits, { symmetric: false, range: "mse", group: null }, actBits));
};

export function sdxlVae({ size, batch = 1, dtype = "f16" }: SdxlOptions): Graph {
  return buildVaeDecoder(SDXL.vae, { batch, height: size / 8, width: size / 8 }, dtype);
}

export const sdxlTextEncoders = (): Graph[] =>
  SDXL.textEncoders.map(({ config, projects }) =>
    buildTextEncoder(config, { batch: 1, state: SDXL.textState, projects }, "f32"),
  );
