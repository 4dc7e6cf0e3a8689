/**
 * manifest.json of a pack: a model whose UNet has been quantized, ready to be copied to a GPU. It says of every tensor
 * where it lies in the shards; read as what it is, a stranger's file.
 *
 * Components follow one another in the order in which they are loaded, each from the beginning of a shard of its own, its
 * tensors one after the other, each at the next multiple of 16 bytes. One that does not fit into what is left of a shard
 * begins the next; one that is larger than a shard fills as many as it needs, cut between rows.
 *
 * A layer with integer weights has two tensors: `<module path>.weight`, its codes as quant/codes.ts packs them (shape: the
 * checkpoint's), and right after it `<module path>.parameters`, U32 [segments, rows, words] as quant/parameters.ts has them.
 * `<module path>.bos` holds a layer's product with the BOS token, F32 [1, N].
 */
import { MixdqError } from "../base/errors.ts";
import { isObject, show } from "../base/json.ts";
import { isInsteadOf } from "./sniff.ts";

export const MANIFEST = "manifest.json";
const FORMAT = "mixdq-pack";
const VERSION = 1;

/** Of a shard: what a loader holds at a time. */
export const MAX_SHARD_BYTES = 32 * 2 ** 20;
export const PACK_ALIGNMENT = 16;
/** Beside shards: SDXL's tokenizer.json has 2.3 MB. */
export const MAX_FILE_BYTES = 64 * 2 ** 20;
/** SDXL at 8 bits has about 150 shards and 5,000 tensors in 0.9 MB. */
const MAX_SHARDS = 4096;
const MAX_TENSORS = 100_000;
const MAX_FILES = 1000;
const MAX_NAME_LENGTH = 1024;
const MAX_RANK = 8;

/** How a tensor's bytes are to be read: floats, the codes of integer weights (bits), or words of parameters. */
export const PACK_FORMATS = {
  F32: { bytes: 4 },
  F16: { bytes: 2 },
  U32: { bytes: 4 },
  I8: { bits: 8 },
  U4: { bits: 4 },
  U3: { bits: 3 },
  U2: { bits: 2 },
} as const;

export type PackFormat = keyof typeof PACK_FORMATS;

export interface PackTensor {
  readonly name: string;
  readonly format: PackFormat;
  readonly shape: readonly number[];
  /** The shard that it begins in, and where. */
  readonly shard: number;
  readonly offset: number;
  /** Of the whole tensor. */
  readonly bytes: number;
}

export interface PackShard {
  readonly file: string;
  readonly bytes: number;
  readonly sha256: string;
}

export interface PackManifest {
  /** The model's name, for people. */
  readonly model: string;
  /** The bit-width configuration, one of `files`. */
  readonly config: string;
  /** The model's licence, one of `files`; null where it came without. */
  readonly licence: string | null;
  /** The text state of the BOS token that `.bos` tensors were computed from; none where the configuration wants none. */
  readonly bos: readonly Float32Array[];
  /** Everything that is read as text, by path. */
  readonly files: ReadonlyMap<string, { readonly bytes: number; readonly sha256: string }>;
  readonly shards: readonly PackShard[];
  readonly components: ReadonlyMap<string, readonly PackTensor[]>;
}

/** A run of a tensor's bytes within one shard, `from` its own beginning. */
export interface Piece {
  readonly shard: number;
  readonly offset: number;
  readonly from: number;
  readonly bytes: number;
}

/** `sizes` are the shards'. */
export function piecesOf({ shard, offset, bytes }: PackTensor, sizes: readonly number[]): Piece[] {
  const pieces: Piece[] = [];
  for (let [at, from, i] = [offset, 0, shard]; from < bytes && i < sizes.length; i++, at = 0) {
    const count = Math.min(bytes - from, sizes[i]! - at);
    pieces.push({ shard: i, offset: at, from, bytes: count });
    from += count;
  }
  return pieces;
}

/** One line a tensor; the same manifest gives the same text. */
export function writeManifest({ components, shards, files, bos, model, config, licence }: PackManifest): string {
  const lines = (items: readonly unknown[], indent: string): string =>
    items.map((item) => `\n${indent}${JSON.stringify(item)}`).join(",");
  const head = { format: FORMAT, version: VERSION, model, config, licence };
  const bosStates = bos.map((state) => Array.from(state));
  const parts = Array.from(
    components,
    ([name, tensors]) => `\n    ${JSON.stringify(name)}: {"tensors": [${lines(tensors, "      ")}]}`,
  );
  const named = Array.from(files, ([path, file]) => `\n    ${JSON.stringify(path)}: ${JSON.stringify(file)}`);
  return [
    `${JSON.stringify(head).slice(0, -1)},`,
    `  "files": {${named.join(",")}},`,
    `  "bos": ${JSON.stringify(bosStates)},`,
    `  "shards": [${lines(shards, "    ")}],`,
    `  "components": {${parts.join(",")}}`,
    "}\n",
  ].join("\n");
}

/**
 * undefined for a page in the file's place and another program's manifest. Throws `invalid-model`; `where` is the file,
 * for messages.
 */
export function readManifest(text: string, where: string): PackManifest | undefined {
  if (isInsteadOf(MANIFEST, text)) return undefined;
  const file = object(parse(text, where), where);
  // Web apps have one of this name, too.
  if (!("format" in file || "shards" in file)) return undefined;
  expectThat(file["format"] === FORMAT, where, `format ${show(file["format"])}`, `"${FORMAT}"`);
  expectThat(file["version"] === VERSION, where, `version ${show(file["version"])}`, `${VERSION}`);
  const files = readFiles(file["files"], where);
  const { model, config, licence } = file;
  expectThat(typeof model === "string", where, `model ${show(model)}`, "the model's name");
  expectThat(typeof config === "string" && files.has(config), where, `config ${show(config)}`, "one of its files");
  const isLicence = licence === null || (typeof licence === "string" && files.has(licence));
  expectThat(isLicence, where, `licence ${show(licence)}`, "one of its files, or null");
  const shards = readShards(file["shards"], where);
  const components = new Map<string, PackTensor[]>();
  let end = { shard: 0, offset: 0 };
  const names = Object.entries(object(file["components"], `${where}: components`));
  expectThat(names.length > 0 && names.length <= 16, where, `${names.length} components`, "1 to 16");
  for (const [name, component] of names) {
    const here = `${where}: ${name}`;
    expectThat(/^[\w-]{1,64}$/.test(name), where, `a component ${show(name)}`, "a folder's name");
    const tensors = list(object(component, here)["tensors"], MAX_TENSORS, here, "tensors").map((tensor) =>
      readTensor(tensor, here),
    );
    expectThat(tensors.length > 0, here, "no tensors", "some");
    end = checkPlaces(tensors, shards, end, here);
    checkPairs(tensors, here);
    components.set(name, tensors);
  }
  expectThat(end.shard === shards.length, where, `${shards.length} shards`, `${end.shard}, as the tensors fill`);
  return {
    model: model as string,
    config: config as string,
    licence: licence as string | null,
    bos: readBos(file["bos"], where),
    files,
    shards,
    components,
  };
}

function readFiles(json: unknown, where: string): PackManifest["files"] {
  const entries = Object.entries(object(json, `${where}: files`));
  expectThat(entries.length <= MAX_FILES, where, `${entries.length} files`, `at most ${MAX_FILES}`);
  return new Map(
    entries.map(([path, entry]) => {
      // A path that leaves the folder, or an address, could lead anywhere.
      const isPath = path.length <= MAX_NAME_LENGTH && /^[\w-][\w.-]*(\/[\w-][\w.-]*)*$/.test(path);
      expectThat(isPath && path !== MANIFEST, `${where}: files`, show(path), "the path of a file within the pack");
      const { bytes, sha256 } = object(entry, `${where}: ${path}`);
      return [
        path,
        { bytes: size(bytes, 0, MAX_FILE_BYTES, `${where}: ${path}`), sha256: digest(sha256, path, where) },
      ];
    }),
  );
}

function readShards(json: unknown, where: string): PackShard[] {
  const shards = list(json, MAX_SHARDS, where, "shards").map((entry, i): PackShard => {
    const here = `${where}: shards[${i}]`;
    const { file, bytes, sha256 } = object(entry, here);
    expectThat(
      typeof file === "string" && /^[\w-][\w.-]{0,200}$/.test(file),
      here,
      `file ${show(file)}`,
      "a file name",
    );
    return {
      file: file as string,
      bytes: size(bytes, 1, MAX_SHARD_BYTES, here),
      sha256: digest(sha256, String(file), where),
    };
  });
  const names = new Set(shards.map(({ file }) => file));
  expectThat(names.size === shards.length, where, "two shards of one name", "a file each");
  return shards;
}

function readTensor(json: unknown, where: string): PackTensor {
  const { name, format, shape, shard, offset, bytes } = object(json, `${where}: tensors`);
  const isName = typeof name === "string" && name.length <= MAX_NAME_LENGTH && /^[\w.-]+$/.test(name);
  expectThat(isName, where, `a tensor ${show(name)}`, "a name as in a checkpoint");
  const here = `${where}: ${String(name)}`;
  const isFormat = typeof format === "string" && Object.hasOwn(PACK_FORMATS, format);
  expectThat(isFormat, here, `format ${show(format)}`, Object.keys(PACK_FORMATS).join(", "));
  const isShape = Array.isArray(shape) && shape.length > 0 && shape.length <= MAX_RANK;
  expectThat(isShape, here, `shape ${show(shape)}`, `1 to ${MAX_RANK} sizes`);
  const tensor = {
    name: name as string,
    format: format as PackFormat,
    shape: (shape as unknown[]).map((count) => size(count, 1, 2 ** 32, `${here}: shape`)),
    shard: size(shard, 0, MAX_SHARDS, `${here}: shard`),
    offset: size(offset, 0, MAX_SHARD_BYTES, `${here}: offset`),
    bytes: size(bytes, 1, 2 ** 34, `${here}: bytes`),
  };
  const elements = tensor.shape.reduce((product, count) => product * count, 1);
  const described = PACK_FORMATS[tensor.format];
  const [least, most] =
    "bytes" in described
      ? [elements * described.bytes, elements * described.bytes]
      : // Input channels are filled up to whole elements of 16 (32 where 3 bits pair their highest bits).
        [(elements * described.bits) / 8, elements * 64];
  const fits = tensor.bytes >= least && tensor.bytes <= most && tensor.bytes % 2 === 0;
  expectThat(
    fits,
    here,
    `${tensor.bytes} bytes`,
    `${least}${most > least ? " or more" : ""} for ${show(shape)} in ${tensor.format}`,
  );
  return tensor;
}

/** Throws unless the tensors lie as the writer puts them, which leaves no room for gaps, overlaps or ends beyond a shard. */
function checkPlaces(
  tensors: readonly PackTensor[],
  shards: readonly PackShard[],
  begin: { shard: number; offset: number },
  where: string,
): { shard: number; offset: number } {
  const sizes = shards.map(({ bytes }) => bytes);
  let { shard, offset } = begin;
  const names = new Set<string>();
  for (const tensor of tensors) {
    const here = `${where}: ${tensor.name}`;
    expectThat(!names.has(tensor.name), here, "two tensors of this name", "one");
    names.add(tensor.name);
    // Where the one before ends its shard, or where there is no room behind it.
    if (offset > 0 && tensor.shard === shard + 1 && tensor.offset === 0) {
      expectThat(offset - sizes[shard]! < PACK_ALIGNMENT && offset >= sizes[shard]!, here, "a gap before it", "none");
      [shard, offset] = [shard + 1, 0];
    }
    const place = `shard ${tensor.shard}, offset ${tensor.offset}`;
    expectThat(tensor.shard === shard && tensor.offset === offset, here, place, `shard ${shard}, offset ${offset}`);
    const pieces = piecesOf(tensor, sizes);
    const last = pieces.at(-1);
    const isWhole =
      last !== undefined && last.from + last.bytes === tensor.bytes && pieces.every(({ bytes }) => bytes > 0);
    expectThat(isWhole, here, `${tensor.bytes} bytes at ${place}`, "an end within the shards");
    shard = last!.shard;
    offset = Math.ceil((last!.offset + last!.bytes) / PACK_ALIGNMENT) * PACK_ALIGNMENT;
  }
  const used = offset - sizes[shard]!;
  expectThat(
    used >= 0 && used < PACK_ALIGNMENT,
    where,
    `${sizes[shard]} bytes in shard ${shard}`,
    "tensors up to its end",
  );
  return { shard: shard + 1, offset: 0 };
}

/** Codes and their parameters come together. */
function checkPairs(tensors: readonly PackTensor[], where: string): void {
  const pathOf = ({ name }: PackTensor): string => name.replace(/\.\w+$/, "");
  tensors.forEach((tensor, i) => {
    const here = `${where}: ${tensor.name}`;
    const [before, after] = [tensors[i - 1], tensors[i + 1]];
    if ("bits" in PACK_FORMATS[tensor.format]) {
      const isPair =
        tensor.name.endsWith(".weight") && after?.format === "U32" && after.name === `${pathOf(tensor)}.parameters`;
      expectThat(isPair, here, `${after ? after.name : "nothing"} after it`, `${pathOf(tensor)}.parameters`);
    } else if (tensor.format === "U32") {
      const isPair = before !== undefined && "bits" in PACK_FORMATS[before.format] && tensor.shape.length === 3;
      expectThat(isPair, here, "parameters without codes", "the layer's codes before them");
    }
  });
}

function readBos(json: unknown, where: string): Float32Array[] {
  return list(json, 1, where, "bos").map((state) => {
    const values = list(state, 2 ** 16, where, "bos");
    expectThat(values.length > 0 && values.every(Number.isFinite), where, "a bos state of other things", "numbers");
    return Float32Array.from(values as number[]);
  });
}

function parse(text: string, where: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw invalid(where, `something that is not JSON (${String(cause).replaceAll("\n", " ")})`, "a pack's manifest");
  }
}

function object(json: unknown, where: string): Readonly<Record<string, unknown>> {
  if (!isObject(json)) throw invalid(where, show(json), "a JSON object");
  return json;
}

function list(json: unknown, most: number, where: string, what: string): readonly unknown[] {
  expectThat(Array.isArray(json), `${where}: ${what}`, show(json), "a list");
  const items = json as readonly unknown[];
  expectThat(items.length <= most, where, `${items.length} ${what}`, `at most ${most}`);
  return items;
}

function size(json: unknown, least: number, most: number, where: string): number {
  const isSize = Number.isSafeInteger(json) && (json as number) >= least && (json as number) <= most;
  expectThat(isSize, where, show(json), `a whole number from ${least} to ${most}`);
  return json as number;
}

function digest(json: unknown, file: string, where: string): string {
  const isDigest = typeof json === "string" && /^[0-9a-f]{64}$/.test(json);
  expectThat(isDigest, `${where}: ${file}`, `sha256 ${show(json)}`, "64 hexadecimal digits");
  return json as string;
}

function expectThat(condition: boolean, where: string, got: string, expected: string): void {
  if (!condition) throw invalid(where, got, expected);
}

function invalid(where: string, got: string, expected: string): MixdqError {
  const advice = "Write the pack again with mixdq quantize.";
  return new MixdqError("invalid-model", `${where}: got ${got}, expected ${expected}. ${advice}`);
}
