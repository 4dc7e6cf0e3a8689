/** Made-up sensitivities for tests, seeded: shaped like a small SDXL UNet, with values that rise with the bits. */
import { makeRandom } from "./random.ts";
import { type Group, type LayerSensitivity, type Sensitivity } from "./sensitivity.ts";

const SIZES = [320 * 320, 640 * 640, 1280 * 1280, 640 * 2048, 5120 * 1280, 320 * 320 * 9];

/** `blocks` down blocks of two resnets and two transformer blocks each: 28 layers a block. */
export function sampleSensitivity(
  blocks: number,
  seed: number,
  { widths = [2, 4, 8] }: { widths?: number[] } = {},
): Sensitivity {
  const random = makeRandom(seed);
  const layers = new Map<string, LayerSensitivity>();
  const add = (path: string, group: Group): void => {
    const weights = SIZES[Math.floor(random() * SIZES.length)];
    const side = (): LayerSensitivity["weight"] => {
      const start = 10 + 40 * random();
      const slope = 3 + 3 * random();
      const sqnr = new Map(widths.map((bits) => [bits, start + slope * bits + random()]));
      const harm = 10 ** (-1 - 3 * random());
      const ssim = new Map(widths.map((bits) => [bits, 1 - harm * 4 ** (2 - bits) * (0.8 + 0.4 * random())]));
      return new Map([
        ["sqnr", sqnr],
        ["ssim", ssim],
      ]);
    };
    const activations = 320 * (1 + Math.floor(random() * 64));
    layers.set(path, { group, weights, activations, weight: side(), activation: side() });
  };
  for (let block = 0; block < blocks; block++) {
    const here = `down_blocks.${block}`;
    for (const i of [0, 1]) {
      for (const name of ["conv1", "time_emb_proj", "conv2", "conv_shortcut"])
        add(`${here}.resnets.${i}.${name}`, "quality");
      const transformer = `${here}.attentions.${i}.transformer_blocks.0`;
      for (const name of ["to_q", "to_k", "to_v", "to_out.0"]) {
        add(`${transformer}.attn1.${name}`, "quality");
        add(`${transformer}.attn2.${name}`, "content");
      }
      for (const name of ["ff.net.0.proj", "ff.net.2"]) add(`${transformer}.${name}`, "content");
    }
  }
  return { model: "sample", samples: 8, shard: undefined, provenance: {}, layers };
}

/** Only the layers of one group. */
export function onlyGroup(sensitivity: Sensitivity, group: Group): Sensitivity {
  const layers = new Map([...sensitivity.layers].filter(([, layer]) => layer.group === group));
  return { ...sensitivity, layers };
}
