/** `mixdq allocate`: a sensitivity.json and a budget become a mixdq.json, and a report that people can read. */
import {
  allocate as solve,
  withWidths,
  type Allocation,
  type AllocateOptions,
} from "../../mixdq/allocation/allocate.ts";
import { renderReport } from "../../mixdq/report/report.ts";
import { readSensitivity } from "../../mixdq/allocation/sensitivity.ts";
import { sweep, type Point } from "../../mixdq/allocation/sweep.ts";
import { readRanges } from "../../mixdq/calibration/file.ts";
import { attachRanges, writeMixdqConfig } from "../../quant/config.ts";
import { ALLOCATE_FLAGS, chooseWeights, readAllocateRequest } from "./allocateFlags.ts";
import { describe, describeChoice, provenanceOf } from "./allocateSummary.ts";
import { command } from "../command.ts";
import { readBytes, sha256, textOf } from "../../node/inputFiles.ts";
import type { Values } from "../flags.ts";
import { assertWritable, writeWhole, tell } from "../../node/outputFiles.ts";
import { printable, show } from "../../base/printable.ts";
import { invalidInput } from "../../base/errors.ts";
import { baselinesOf, chooseAllocation } from "./pictureChoice.ts";
import { readPictures } from "./samplePictures.ts";

export const allocate = command({
  name: "allocate",
  summary: "a sensitivity.json and a budget become a mixdq.json, and a report that people can read",
  flags: ALLOCATE_FLAGS,
  run: writeAllocation,
});

async function writeAllocation(flags: Values<typeof ALLOCATE_FLAGS>): Promise<void> {
  const request = readAllocateRequest(flags);
  const { sensitivityFile, calibrationFile, options, rangeRule, out, report, seed, trials } = request;
  for (const file of [out, ...(report === undefined ? [] : [report])]) await assertWritable(file);
  const pictures = await readPictures(request.pictures);

  const source = await readBytes(sensitivityFile);
  const sensitivity = readSensitivity(textOf(source), sensitivityFile);
  const { shard } = sensitivity;
  if (shard && shard.count > 1)
    throw invalidInput(
      `${sensitivityFile}: got shard ${shard.index} of ${shard.count}, expected the whole: ` +
        `join the shards with mixdq sensitivity merge.`,
    );
  const { weights, other } = chooseWeights(flags, sensitivity);
  const calibration = calibrationFile === undefined ? undefined : await readBytes(calibrationFile);
  const ranges = calibration && readRanges(textOf(calibration), calibrationFile!, rangeRule);

  const balanced = await solve(sensitivity, options, sensitivityFile);
  const points = report || trials ? await sweepOf(balanced, options) : [];
  const configOf = (layers: Allocation["layers"]) => ({
    model: sensitivity.model,
    weights,
    bos: ranges?.bos ?? true,
    layers: ranges ? attachRanges(layers, ranges.layers) : layers,
  });
  const asked = {
    sensitivity,
    balanced,
    points,
    budget: options.weightBits,
    seed,
    drawsBaselines: report !== undefined,
  };
  const choice =
    trials &&
    (await chooseAllocation(asked, {
      ...trials,
      ...{ model: flags.model, firstSeed: seed },
      configOf: (bits) => ({
        ...configOf(withWidths(balanced.layers, bits)),
        ...{ averageWeightBits: undefined, provenance: {} },
      }),
    }));
  const allocation = choice?.allocation ?? balanced;
  const { averageBits } = allocation.weights;
  const config = {
    ...configOf(allocation.layers),
    averageWeightBits: averageBits,
    provenance: {
      made: "mixdq allocate",
      sensitivity: { sha256: sha256(source), samples: sensitivity.samples },
      ...(calibration && { calibration: { sha256: sha256(calibration), range: rangeRule } }),
      ...provenanceOf(allocation, options),
      ...(choice && { choice: choice.provenance }),
    },
  };
  const content = new TextEncoder().encode(writeMixdqConfig(config));
  const page =
    report &&
    (await renderReport({
      ...{ sensitivity, allocation, weightBits: options.weightBits, points, choice: choice?.choice },
      baselines: choice?.baselines ?? (await baselinesOf(asked, allocation)),
      pictures: pictures.length > 0 ? pictures : (choice?.samples ?? []),
    }));
  await writeWhole(out, content);
  if (page) await writeWhole(report, new TextEncoder().encode(page));

  if (ranges && ranges.model !== "" && sensitivity.model !== "" && ranges.model !== sensitivity.model)
    console.error(
      `warning: the sensitivity is of ${printable(sensitivity.model)}, the calibration of ${printable(ranges.model)}.`,
    );
  if (other)
    console.error(
      `warning: the sensitivity is of weights with ${show(other)}, the configuration asks for ` +
        `${show(weights)}. Measure the sensitivity with the same flags.`,
    );
  for (const note of allocation.notes) console.error(`note: ${note}`);
  tell(describe(out, sensitivity, allocation));
  if (choice) tell(describeChoice(choice.choice));
}

async function sweepOf({ weights }: Allocation, { weightBits }: AllocateOptions): Promise<Point[]> {
  const started = performance.now();
  const points = await sweep(weights.programs, weightBits);
  console.error(`sweep: ${points.length} points in ${((performance.now() - started) / 1000).toFixed(1)} s`);
  return points;
}
