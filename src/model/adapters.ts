/** LoRAs for a model, and its components' weights with the LoRAs merged into them. */
import { MixdqError } from "../base/errors.ts";
import type { AdaptedComponent } from "../lora/layers.ts";
import { withLoras } from "../lora/merge.ts";
import { readLora, type Lora, type LoraSource, type ReadOptions } from "../lora/read.ts";
import { union } from "../runtime/weightStream.ts";
import type { ComponentWeights } from "../weights/folder.ts";
import type { PackedComponent } from "../weights/pack.ts";
import type { ComponentGraphs } from "./graphs.ts";

const adapted = ({ component, graphs }: ComponentGraphs): AdaptedComponent => ({
  component,
  weights: union(graphs).weights,
});

/**
 * LoRAs for a model of these components: all of them, because every layer in a LoRA must be one of the model's. Throws as
 * `readLora`.
 */
export async function readLoras(
  sources: readonly LoraSource[],
  components: readonly ComponentGraphs[],
  options?: ReadOptions,
): Promise<readonly Lora[]> {
  if (sources.length === 0) return [];
  const layers = components.map(adapted);
  const loras: Lora[] = [];
  for (const source of sources) loras.push(await readLora(source, layers, options));
  return loras;
}

/** Throws `unsupported` for a pack, whose weights are integers. */
export function mergeLoras<W extends ComponentWeights | PackedComponent>(
  weights: W,
  component: ComponentGraphs,
  loras: readonly Lora[],
): W | ComponentWeights {
  if (loras.length === 0) return weights;
  if ("parts" in weights) throw loraOnPack(loras[0].address);
  return withLoras(weights, adapted(component), loras, { isExact: component.storage === "exact" });
}

export function loraOnPack(address: string): MixdqError {
  return new MixdqError(
    "unsupported",
    `${address}: got a LoRA for a pack, whose weights are integers already, expected a model in floats. Load the model that ` +
      "the pack was made of, or make a pack with the LoRA merged into it (mixdq quantize).",
  );
}
