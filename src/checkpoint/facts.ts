/** What a model predicts: it shows in marks that the file carries, and of Stable Diffusion 2 in one tensor's values. */
import { isReadable, type PlacedHeader, type TensorEntry } from "../weights/header.ts";
import { toFloat32 } from "../weights/convert.ts";
import { PREDICTION_TYPES, type Facts } from "./configs.ts";
import type { Contents } from "./contents.ts";
import { readEntries, type FileSource } from "./source.ts";

/** A norm before an attention near the picture, whose biases spread wider in the models that predict v. */
const TELLTALE = "output_blocks.11.1.transformer_blocks.0.norm1.bias";
/** Their standard deviation, above which ComfyUI takes a model for one of v: 2-1 has 0.2, 2-1-base 0.04. */
const MOST_SPREAD = 0.09;

/** Reads 0.6 to 2.5 KB at most. */
export async function readFacts(
  source: FileSource,
  { metadata, dataStart }: PlacedHeader,
  { family, flags, components }: Contents,
  signal?: AbortSignal,
): Promise<Facts> {
  const isZeroSnr = flags.has("ztsnr");
  if (flags.has("v_pred")) return { prediction: "v_prediction", isZeroSnr };
  // Stability's ModelSpec.
  const said = metadata.get("modelspec.prediction_type");
  const named = PREDICTION_TYPES.find((type) => type === said) ?? (said === "v" ? "v_prediction" : undefined);
  if (named) return { prediction: named, isZeroSnr };
  const mapped = components.get("unet")?.find(({ entry }) => entry.name.endsWith(TELLTALE));
  const entry = family === "sd2" && mapped?.entry.shape[0] === 320 ? mapped.entry : undefined;
  const spread = entry && (await spreadOf(source, dataStart, entry, signal));
  return { prediction: spread !== undefined && spread > MOST_SPREAD ? "v_prediction" : "epsilon", isZeroSnr };
}

async function spreadOf(
  source: FileSource,
  dataStart: number,
  entry: TensorEntry,
  signal?: AbortSignal,
): Promise<number | undefined> {
  const { dtype } = entry;
  if (!isReadable(dtype) || (dtype !== "F32" && dtype !== "F16" && dtype !== "BF16")) return undefined;
  for await (const [, bytes] of readEntries(source, dataStart, [{ entry }], signal)) {
    const values = toFloat32(bytes, dtype);
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length);
  }
  return undefined;
}
