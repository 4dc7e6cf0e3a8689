/** An adapter's file becomes what is added to each weight of the model. */
import { MixdqError } from "../base/errors.ts";
import { printable } from "../base/printable.ts";
import { noSuchFile, type ModelFiles } from "../weights/files.ts";
import { readSafetensors, type StoredTensor } from "../weights/safetensors.ts";
import { assemble } from "./assemble.ts";
import type { Delta } from "./delta.ts";
import { familyOfKey, familyOfModel } from "./family.ts";
import { Layers, type AdaptedComponent, type Layer } from "./layers.ts";
import { LayerTensors, type PartTensor } from "./layerTensors.ts";
import { splitKey, type Part } from "./parts.ts";
import { scalingOfConfig, scalingOfMetadata, type Scaling } from "./settings.ts";

/** A LoRA, or one of its relatives, and how much of it. */
export interface LoraSource {
  readonly files: ModelFiles;
  /** The file, a .safetensors. */
  readonly path: string;
  /** 1 as it was trained, 0 not at all; may be negative, which takes away what the LoRA would add. */
  readonly scale: number;
}

export interface Lora {
  /** The file. */
  readonly address: string;
  readonly scale: number;
  /** By component, then by the weight's name in the component's graphs. */
  readonly deltas: ReadonlyMap<string, ReadonlyMap<string, Delta>>;
}

export interface ReadOptions {
  readonly signal?: AbortSignal | undefined;
  /** Told how many bytes have just arrived, and the file's size (0 if unknown). */
  readonly onBytes?: ((count: number, file: string, fileBytes: number) => void) | undefined;
}

/** PEFT's own files name no component, and keep alpha in a file beside them. */
const PEFT_PREFIX = "base_model.model.";
const PEFT_CONFIG = "adapter_config.json";

/**
 * Every tensor of the file must belong to a layer of the model, in a known spelling. Throws `invalid-model` for what does
 * not, `network`, `integrity`, `aborted`.
 */
export async function readLora(
  { files, path, scale }: LoraSource,
  components: readonly AdaptedComponent[],
  { signal, onBytes }: ReadOptions = {},
): Promise<Lora> {
  const where = `${files.location}/${path}`;
  if (/\.(bin|ckpt|pt|pth)$/i.test(path)) throw pickled(where);
  const stream = await files.open(path, signal);
  if (stream === undefined)
    throw noSuchFile(files, path, "a LoRA in a .safetensors file", "Check the address of the LoRA.");
  const report = onBytes && ((count: number) => onBytes(count, path, stream.bytes));
  const { tensors, metadata } = await readSafetensors(stream, where, { signal, onBytes: report });
  const found = groupByLayer(tensors, new Layers(components), where);
  const isPeft = [...tensors.keys()].some((key) => key.startsWith(PEFT_PREFIX));
  const scalingOf = isPeft ? await peftScaling({ files, path }, signal) : scalingOfMetadata(metadata, where);
  const deltas = new Map<string, Map<string, Delta>>();
  for (const layer of found) {
    const { component } = layer.layer;
    const own = deltas.get(component) ?? new Map<string, Delta>();
    deltas.set(component, own);
    for (const [name, delta] of assemble(layer, { scaling: scalingOf(component), strength: scale })) {
      if (own.has(name)) throw layer.error(`a second change of ${component} ${name}`, "one for each layer");
      own.set(name, delta);
    }
  }
  return { address: where, scale, deltas };
}

function groupByLayer(
  tensors: ReadonlyMap<string, StoredTensor>,
  layers: Layers,
  where: string,
): readonly LayerTensors[] {
  const groups = new Map<string, { layer: Layer; parts: Map<Part, PartTensor> }>();
  for (const [key, tensor] of tensors) {
    const split = splitKey(key);
    const found = split && layers.find(split.layer);
    if (!split || !found?.layer) throw unknownKey(where, key, layers, split && (found?.components[0] ?? "no part"));
    const { layer, part } = split;
    const group = groups.get(layer) ?? { layer: found.layer, parts: new Map<Part, PartTensor>() };
    groups.set(layer, group);
    if (group.parts.has(part)) throw twice(where, key, group.parts.get(part)!.key);
    group.parts.set(part, { key, tensor });
  }
  if (groups.size === 0) {
    const advice = "Use the .safetensors file of a LoRA.";
    throw new MixdqError("invalid-model", `${where}: got a file without tensors, expected a LoRA's. ${advice}`);
  }
  return Array.from(groups, ([name, { layer, parts }]) => new LayerTensors(where, name, layer, parts));
}

async function peftScaling(
  { files, path }: Pick<LoraSource, "files" | "path">,
  signal: AbortSignal | undefined,
): Promise<() => Scaling> {
  const config = [...path.split("/").slice(0, -1), PEFT_CONFIG].join("/");
  const text = await files.text(config, signal);
  const advice = "PEFT keeps the LoRA's alpha in it: put it beside the weights.";
  if (text === undefined) throw noSuchFile(files, config, "the settings of PEFT", advice);
  const scaling = scalingOfConfig(text, `${files.location}/${config}`);
  return () => scaling;
}

/** `of` says whose layer the name should be; undefined for a name that is no adapter's. */
function unknownKey(where: string, key: string, layers: Layers, of: string | undefined): MixdqError {
  const got = `${where}: ${printable(key)}: got`;
  const family = familyOfKey(key);
  const model = familyOfModel(layers);
  if (family !== undefined && family !== model)
    return new MixdqError(
      "invalid-model",
      `${got} a layer of ${family}, expected one of ${model}. Use a LoRA that was trained for this model's family.`,
    );
  if (of === undefined)
    return new MixdqError(
      "invalid-model",
      `${got} a tensor that is of no LoRA, LoCon, LoHa, LoKr or DoRA, expected only such. Nothing of a file is left out in ` +
        "silence: use a LoRA, save the other parts apart.",
    );
  return new MixdqError(
    "invalid-model",
    `${got} a layer that the model does not have in its ${of}, expected layers of ${layers.components.join(", ")}. Use a ` +
      "LoRA that was trained for this model.",
  );
}

function twice(where: string, key: string, other: string): MixdqError {
  const advice = "Save the LoRA again, in one spelling.";
  return new MixdqError(
    "invalid-model",
    `${where}: ${printable(key)}: got the same as ${printable(other)}, expected each tensor once. ${advice}`,
  );
}

function pickled(where: string): MixdqError {
  return new MixdqError(
    "invalid-model",
    `${where}: got a pickle, expected a .safetensors file (a pickle can run code when it is read). Convert it: in Python, ` +
      'safetensors.torch.save_file(torch.load(path, weights_only=True), "lora.safetensors").',
  );
}
