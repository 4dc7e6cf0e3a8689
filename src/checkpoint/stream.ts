/**
 * A component of a single file as the safetensors file of a diffusers folder, made while it is read: a new header, then
 * the tensors in the file's own order, one at a time. Fused matrices are cut, transposed ones turned, 8-bit floats widened.
 */
import { float8ToHalf, type Float8 } from "../quant/float8.ts";
import { fromHalf } from "../quant/half.ts";
import { MixdqError } from "../base/errors.ts";
import { printable } from "../base/printable.ts";
import { toFloat32 } from "../weights/convert.ts";
import type { FileStream } from "../weights/files.ts";
import { tensorBytes, type TensorEntry } from "../weights/header.ts";
import { shapeOf } from "./configs.ts";
import type { Mapped } from "./contents.ts";
import { readEntries, whereOf, type FileSource } from "./source.ts";

const FLOATS = ["F32", "F16", "BF16"];
const FLOATS_8 = ["F8_E4M3", "F8_E5M2"];

/** The tensors that one tensor of the file becomes. */
interface Group {
  readonly entry: TensorEntry;
  readonly targets: readonly Mapped[];
}

/** Throws `invalid-model` for tensors of other number types. */
export function streamComponent(
  source: FileSource,
  dataStart: number,
  tensors: readonly Mapped[],
  signal?: AbortSignal,
): FileStream {
  const groups = groupsOf(tensors, whereOf(source));
  const header: [string, unknown][] = [];
  let dataBytes = 0;
  for (const { targets } of groups)
    for (const target of targets) {
      const [dtype, shape] = [dtypeOf(target), shapeOf(target)];
      const end = dataBytes + tensorBytes(dtype, shape)!;
      header.push([target.name, { dtype, shape, data_offsets: [dataBytes, end] }]);
      dataBytes = end;
    }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(header)));
  const head = new Uint8Array(8 + json.length);
  new DataView(head.buffer).setUint32(0, json.length, true);
  head.set(json, 8);

  const chunks = generate(source, dataStart, groups, head, signal);
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { done, value } = await chunks.next();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      cancel: async () => void (await chunks.return()),
    },
    { highWaterMark: 0 },
  );
  return { bytes: head.length + dataBytes, body };
}

async function* generate(
  source: FileSource,
  dataStart: number,
  groups: readonly Group[],
  head: Uint8Array,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void, undefined> {
  yield head;
  const scales = await readScales(source, dataStart, groups, signal);
  for await (const [{ targets, entry }, bytes] of readEntries(source, dataStart, groups, signal))
    for (const target of targets) {
      const scale = target.scale && scales.get(target.scale.name);
      const converted = isFloat8(entry.dtype) ? widened(bytes, entry, scale) : bytes;
      const part = partOf(converted, target.part);
      if (part.length > 0) yield target.isTransposed ? transposed(part, entry, dtypeOf(target)) : part;
    }
}

/** In the order of the file. Parts of a matrix are its rows, in the order of the parts. */
function groupsOf(tensors: readonly Mapped[], where: string): Group[] {
  const groups = new Map<TensorEntry, Mapped[]>();
  for (const tensor of tensors) {
    const { entry, part, isTransposed } = tensor;
    const fits = (!part || entry.shape[0] % part[1] === 0) && (!isTransposed || entry.shape.length === 2);
    if (!fits || (!FLOATS.includes(entry.dtype) && !isFloat8(entry.dtype)))
      throw new MixdqError(
        "invalid-model",
        `${where}: ${printable(entry.name)}: got ${printable(entry.dtype)} [${entry.shape.join(", ")}], expected floats ` +
          `(${[...FLOATS, ...FLOATS_8].join(", ")})${fits ? "" : " of another shape"}. Use the model as it was before it was quantized.`,
      );
    groups.set(entry, [...(groups.get(entry) ?? []), tensor]);
  }
  return Array.from(groups, ([entry, targets]) => ({
    entry,
    targets: targets.toSorted((a, b) => (a.part?.[0] ?? 0) - (b.part?.[0] ?? 0)),
  })).sort((a, b) => a.entry.begin - b.entry.begin);
}

/** 8-bit floats become halves, which hold them exactly; times a scale, they are rounded once, to 32 bits. */
function dtypeOf({ entry: { dtype }, scale }: Mapped): string {
  return !isFloat8(dtype) ? dtype : scale ? "F32" : "F16";
}

const isFloat8 = (dtype: string): dtype is Float8 => FLOATS_8.includes(dtype);

function widened(bytes: Uint8Array, entry: TensorEntry, scale: Float32Array | undefined): Uint8Array {
  const halves = float8ToHalf(bytes, entry.dtype as Float8);
  if (!scale) return bytesOf(halves);
  const values = fromHalf(halves);
  // One scale for all, or one per row.
  const perScale = values.length / scale.length;
  for (let i = 0; i < values.length; i++) values[i] *= scale[Math.floor(i / perScale)];
  return bytesOf(values);
}

async function readScales(
  source: FileSource,
  dataStart: number,
  groups: readonly Group[],
  signal: AbortSignal | undefined,
): Promise<ReadonlyMap<string, Float32Array>> {
  const where = whereOf(source);
  const entries = groups.flatMap(({ entry, targets }) => {
    const scale = targets[0].scale;
    return scale && isFloat8(entry.dtype) ? [{ entry: scale, rows: entry.shape[0] ?? 1 }] : [];
  });
  const scales = new Map<string, Float32Array>();
  for (const { entry, rows } of entries) {
    const count = entry.shape.reduce((product, size) => product * size, 1);
    if (!FLOATS.includes(entry.dtype) || (count !== 1 && count !== rows))
      throw new MixdqError(
        "invalid-model",
        `${where}: ${printable(entry.name)}: got ${printable(entry.dtype)} [${entry.shape.join(", ")}], expected one scale, or ` +
          `${rows}, in floats. Use the model as it was before it was quantized.`,
      );
  }
  for await (const [{ entry }, bytes] of readEntries(source, dataStart, entries, signal))
    scales.set(entry.name, toFloat32(bytes, entry.dtype as "F32"));
  return scales;
}

function partOf(bytes: Uint8Array, part: Mapped["part"]): Uint8Array {
  if (!part) return bytes;
  const length = bytes.length / part[1];
  return bytes.subarray(part[0] * length, (part[0] + 1) * length);
}

/** [rows, columns] -> [columns, rows]. */
function transposed(bytes: Uint8Array, { shape: [rows, columns] }: TensorEntry, dtype: string): Uint8Array {
  const width = tensorBytes(dtype, [])!;
  const turned = new Uint8Array(bytes.length);
  for (let row = 0; row < rows!; row++)
    for (let column = 0; column < columns!; column++) {
      const [from, to] = [(row * columns! + column) * width, (column * rows! + row) * width];
      for (let i = 0; i < width; i++) turned[to + i] = bytes[from + i];
    }
  return turned;
}

const bytesOf = (values: ArrayBufferView): Uint8Array =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
