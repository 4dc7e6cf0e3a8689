/**
 * A single file (the layout of CompVis' and Stability's own code, A1111 and ComfyUI) as the diffusers folder that it would
 * be: configs and tokenizers made from what it holds, weights renamed while they stream. Nobody else knows the difference.
 */
import { MixdqError } from "../base/errors.ts";
import { printable } from "../base/printable.ts";
import type { ModelFiles } from "../weights/files.ts";
import type { PlacedHeader } from "../weights/header.ts";
import { readSafetensorsHeader } from "../weights/safetensors.ts";
import {
  ENCODERS,
  modelIndex,
  schedulerConfig,
  textConfig,
  tokenizerOf,
  unetConfig,
  vaeConfig,
  type Facts,
} from "./configs.ts";
import { FAMILIES, readContents, type Component, type Contents } from "./contents.ts";
import { readFacts } from "./facts.ts";
import { unetPrefix } from "./kinds.ts";
import { openSource, whereOf, type FileSource } from "./source.ts";
import { streamComponent } from "./stream.ts";
import { clipVocabulary } from "./vocabulary.ts";

/** A diffusers folder, and what it is in truth. */
export interface CheckpointFiles extends ModelFiles {
  readonly contents: Contents;
  readonly facts: Facts;
  readonly header: PlacedHeader;
}

const WEIGHTS: Readonly<Record<string, Component>> = {
  "unet/diffusion_pytorch_model.safetensors": "unet",
  "vae/diffusion_pytorch_model.safetensors": "vae",
  "text_encoder/model.safetensors": "text_encoder",
  "text_encoder_2/model.safetensors": "text_encoder_2",
};

/**
 * Reads the header and nothing else but a few small tensors. Throws `invalid-model` for a file that is no whole model of the
 * family, with what it is; `network`, `integrity`, `aborted`.
 */
export async function checkpointFiles(source: FileSource, signal?: AbortSignal): Promise<CheckpointFiles> {
  const where = whereOf(source);
  const header = await readSafetensorsHeader(await openSource(source, signal), where, signal);
  const contents = readContents(header.tensors, unetPrefix(header, where), where);
  const facts = await readFacts(source, header, contents, signal);
  const text = async (path: string): Promise<string | undefined> => {
    const [folder = "", name = ""] = path.split("/");
    const values =
      configOf(path, contents, facts, where) ?? (name === "" ? undefined : tokenizerConfig(folder, name, contents));
    if (values !== undefined) return JSON.stringify(values);
    if (!hasTokenizer(folder, contents) || (name !== "vocab.json" && name !== "merges.txt")) return undefined;
    return (await clipVocabulary())[name === "vocab.json" ? "vocab" : "merges"];
  };
  const tensorsOf = (path: string) => {
    const component = Object.hasOwn(WEIGHTS, path) ? WEIGHTS[path] : undefined;
    return component && contents.components.get(component);
  };
  const open = async (path: string, signal?: AbortSignal) => {
    const tensors = tensorsOf(path);
    return tensors && streamComponent(source, header.dataStart, tensors, signal);
  };
  return {
    location: where,
    isLocal: true,
    notes: notesOf(contents, where),
    contents,
    facts,
    header,
    text,
    open,
    async size(path) {
      const tensors = tensorsOf(path);
      if (!tensors) return (await text(path))?.length;
      const stream = streamComponent(source, header.dataStart, tensors);
      await stream.body.cancel();
      return stream.bytes;
    },
  };
}

/** Nothing of a file is left over in silence. */
function notesOf({ unknown }: Contents, where: string): readonly string[] {
  if (unknown.length === 0) return [];
  const [first, ...others] = unknown.map((name) => printable(name));
  const more = others.length === 0 ? "" : ` and ${others.length} more`;
  return [`${where}: ${first}${more} mean nothing to this engine, and are not used.`];
}

/** A config of the folder. Throws `invalid-model` for that of a part which the family has and the file lacks. */
function configOf(path: string, contents: Contents, facts: Facts, where: string): object | undefined {
  const { components, family } = contents;
  if (path === "model_index.json") return modelIndex(contents, facts);
  if (path === "scheduler/scheduler_config.json") return schedulerConfig(family, facts);
  const [, component] = /^(unet|vae|text_encoder|text_encoder_2)\/config\.json$/.exec(path) ?? [];
  if (component === undefined) return undefined;
  const isEncoder = component.startsWith("text_encoder");
  if (isEncoder && !(component in ENCODERS[family])) return undefined;
  const tensors = components.get(component as Component);
  if (!tensors) throw lacks(component, where, family);
  if (component === "unet") return unetConfig(contents, facts, where);
  if (component === "vae") return vaeConfig(family, tensors, where);
  return textConfig(tensors, hasOpenClip(component, contents), where);
}

/** The encoders that Stability trained with; Stable Diffusion 1 and SDXL's first have OpenAI's. */
const hasOpenClip = (component: string, { family }: Contents): boolean =>
  family === "sd2" || component === "text_encoder_2";

const hasTokenizer = (folder: string, { family }: Contents): boolean =>
  Object.keys(ENCODERS[family]).some((component) => tokenizerOf(component) === folder);

/** OpenCLIP's pads with "!", whose id is 0; OpenAI's with the end token. */
function tokenizerConfig(folder: string, name: string, contents: Contents): object | undefined {
  if (name !== "tokenizer_config.json" || !hasTokenizer(folder, contents)) return undefined;
  const isOpen = hasOpenClip(folder.replace("tokenizer", "text_encoder"), contents);
  return { model_max_length: 77, ...(isOpen && { pad_token: "!" }) };
}

function lacks(component: string, where: string, family: Contents["family"]): MixdqError {
  const option = component.replaceAll("_", "-");
  const part = component === "vae" ? "a VAE" : component === "unet" ? "a UNet" : `${component}`;
  return new MixdqError(
    "invalid-model",
    `${where}: got ${FAMILIES[family]} without ${part}, expected the whole model. Name a diffusers folder or a file to take ` +
      `it from (${option.replace("text-encoder-2", "text-encoder")}).`,
  );
}
