/** The last step of an allocation, where pictures are asked: the sweep's best are drawn, and the baselines with them. */
import { allocationAt, type Allocation } from "../../mixdq/allocation/allocate.ts";
import { baselines, type Baseline } from "../../mixdq/allocation/baselines.ts";
import {
  chooseByPictures,
  contendersOf,
  roundsOf,
  type Choice,
  type Contender,
  type Trial,
} from "../../mixdq/allocation/choice.ts";
import type { SamplePicture } from "../../mixdq/report/report.ts";
import type { Sensitivity } from "../../mixdq/allocation/sensitivity.ts";
import type { Point } from "../../mixdq/allocation/sweep.ts";
import { progressBar } from "../../node/progressBar.ts";
import { openTrials, type TrialOptions } from "./trials.ts";

/** What there is to choose from. */
export interface Asked {
  readonly sensitivity: Sensitivity;
  readonly balanced: Allocation;
  readonly points: readonly Point[];
  /** Bits per weight. */
  readonly budget: number;
  /** Of the random baselines. */
  readonly seed: number;
  /** Draws the baselines too: for a report. */
  readonly drawsBaselines: boolean;
}

export interface Decision {
  readonly allocation: Allocation;
  readonly baselines: readonly Baseline[];
  readonly choice: Choice;
  readonly samples: readonly SamplePicture[];
  /** For mixdq.json. */
  readonly provenance: Readonly<Record<string, unknown>>;
}

export async function chooseAllocation(asked: Asked, options: TrialOptions): Promise<Decision> {
  const { programs } = asked.balanced.weights;
  const contenders = await contendersOf(programs, asked.points);
  const trials = await openTrials(options);
  const rounds = roundsOf(contenders.length, trials.count);
  const drawn = rounds.map(({ prompts }, i) => prompts - (rounds[i - 1]?.prompts ?? 0));
  let total = trials.count + rounds.reduce((sum, round, i) => sum + round.contenders * drawn[i], 0);
  let done = 0;
  const bar = progressBar("allocate", "pictures");
  const count = (): void => bar.show(++done, total);
  await trials.begin(count);

  const score = (contender: Contender, prompts: number) => trials.score(contender, prompts, count);
  const ranked = await chooseByPictures(contenders, trials.count, score);
  const [chosen] = ranked;
  const allocation = await allocationAt(asked.balanced, chosen!.point);
  const others = await baselinesOf(asked, allocation);
  const drawnBaselines: Trial[] = [];
  if (asked.drawsBaselines) total += others.length * trials.count;
  for (const { name, bits, averageBits, objectives } of asked.drawsBaselines ? others : []) {
    const shares = objectives.map((sum, i) => programs[i].shareOf(sum));
    const contender = { name, bits, averageBits, shares, point: undefined };
    drawnBaselines.push({ ...contender, scores: await score(contender, trials.count) });
  }
  bar.end();
  return {
    allocation,
    baselines: others,
    choice: { trials: ranked, baselines: drawnBaselines },
    samples: trials.samples(chosen!),
    provenance: {
      by: "ssim",
      ...trials.provenance(),
      chosen: chosen!.scores,
      candidates: ranked.map(({ point: { budget, ratio }, averageBits, scores: { prompts, ssim, psnr } }) => ({
        ...{ budget, ratio, averageBits, prompts },
        ...{ ssim: ssim.value, psnr: psnr.value },
      })),
      ...(drawnBaselines.length > 0 && {
        baselines: drawnBaselines.map(({ name, averageBits, scores }) => ({ name, averageBits, ...scores })),
      }),
    },
  };
}

/** The baselines with as many bits. */
export function baselinesOf(
  { sensitivity, budget, seed }: Pick<Asked, "sensitivity" | "budget" | "seed">,
  { weights: { programs, chosen } }: Allocation,
): Promise<Baseline[]> {
  const bits = new Map(chosen.groups.flatMap((group) => [...group.bits]));
  return baselines(programs, sensitivity.layers, bits, budget, seed);
}
