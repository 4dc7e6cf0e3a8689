/** A measurement of a model: which layers there are, what each evaluation costs, and the evaluations themselves. */
import type { LoadedModel } from "../../model/loaded.ts";
import type { Settings } from "../../model/request.ts";
import type { Executor } from "../../gpu/executor.ts";
import type { WeightStore } from "../../gpu/store.ts";
import type { WeightQuant } from "../../quant/formats.ts";
import { openNetwork } from "../../runtime/webgpuNetwork.ts";
import type { LayerSensitivity, Metrics } from "../allocation/sensitivity.ts";
import type { Calibration, RangeRule } from "../calibration/file.ts";
import { layerGroup } from "../calibration/layers.ts";
import { checkCalibration } from "../calibration/preset.ts";
import { CostModel } from "./costModel.ts";
import { Probe, type Findings } from "./probe.ts";
import { makeSample, type Sample } from "./samples.ts";
import { evaluationsOf, sitesOf, type Candidates, type Evaluation, type Side, type Site } from "./sites.ts";

/** What to try, and how. */
export interface Rules {
  readonly candidates: Candidates;
  readonly weights: Omit<WeightQuant, "bits">;
  readonly rangeRule: RangeRule;
  /** Layers whose pictures are compared: all, or those that are judged by them. */
  readonly ssim: "all" | "content";
}

export interface MeasurementOptions {
  /** In floats, on our own kernels. */
  readonly model: LoadedModel;
  readonly settings: Settings;
  /** One sample of each. */
  readonly prompts: readonly string[];
  /** How many of the samples are decoded. */
  readonly pictures: number;
  readonly calibration: Calibration;
  readonly rules: Rules;
}

/** Evaluations of a layer that are to be done. */
export interface Work {
  readonly site: Site;
  readonly evaluations: readonly Evaluation[];
}

export class Measurement {
  /** All layers of the UNet, in the order in which its plan runs them. */
  readonly sites: readonly Site[];
  readonly #options: MeasurementOptions;
  readonly #executor: Executor;
  readonly #store: WeightStore;
  readonly #costs: CostModel;

  /** Throws `invalid-input` where the calibration is of other layers. */
  constructor(options: MeasurementOptions) {
    const { model, settings, prompts, pictures, calibration } = options;
    const { height, width } = model.latentShape(settings);
    const unet = model.graphs.unet({ batch: 1, height, width, tokens: model.graphs.tokens });
    const { executor, store } = openNetwork(model.unet.network, unet);
    this.sites = sitesOf(unet.build(), executor.plan);
    checkCalibration(this.sites, calibration);
    const decoder = openNetwork(model.vae.network, model.graphs.vae({ height, width }));
    this.#costs = new CostModel(executor.plan, decoder.executor.plan, pictures / prompts.length);
    this.#options = options;
    this.#executor = executor;
    this.#store = store;
  }

  /** All evaluations of a layer. */
  evaluationsOf({ path }: Site): readonly Evaluation[] {
    return evaluationsOf(path, this.#options.rules.candidates);
  }

  /** Multiply-accumulates of some evaluations, for one sample. */
  costOf(work: readonly Work[]): number {
    return work.reduce(
      (sum, { site, evaluations }) => sum + evaluations.length * this.#costs.of(site, this.#wantsPicture(site)),
      0,
    );
  }

  /** How much of a full run of the network the evaluations of a layer run, 0 to 1: the mean over layers. */
  shareOfNetwork(work: readonly Work[]): number {
    return work.reduce((sum, { site }) => sum + this.#costs.shareOfNetwork(site), 0) / work.length;
  }

  /** Does all of `work`, whose layers are in the order of `sites`; `weightOf` gives a layer's weight as the checkpoint has it. */
  async *run(
    work: readonly Work[],
    weightOf: (site: Site) => Float32Array,
  ): AsyncGenerator<Work & { evaluation: Evaluation; findings: Findings }> {
    if (work.length === 0) return;
    const { model, settings, prompts, pictures, calibration, rules } = this.#options;
    const options = { model, executor: this.#executor, settings };
    const samples: Sample[] = [];
    for (const [i, prompt] of prompts.entries()) samples.push(await makeSample(prompt, i, i < pictures, options));
    const { rangeRule, weights } = rules;
    const probe = new Probe({ ...options, store: this.#store, samples, calibration, rangeRule, weights, weightOf });
    try {
      for (const item of work)
        for await (const found of probe.measure(item.site, item.evaluations, this.#wantsPicture(item.site)))
          yield { ...item, evaluation: found.evaluation, findings: rounded(found.findings) };
    } finally {
      probe.dispose();
    }
  }

  /** A layer's row of a sensitivity.json, from what its evaluations found. */
  describe(site: Site, findingsOf: (evaluation: Evaluation) => Findings): LayerSensitivity {
    const { path, weights, activations } = site;
    const found = this.evaluationsOf(site).map((evaluation) => ({ evaluation, findings: findingsOf(evaluation) }));
    const metrics = (side: Side): Metrics =>
      new Map(
        (["sqnr", "x0", "ssim"] as const).flatMap((metric): [string, Map<number, number>][] => {
          const values = found.flatMap(({ evaluation: { side: own, bits }, findings }): [number, number][] => {
            const value = findings[metric];
            return own !== side || value === undefined ? [] : [[bits, value]];
          });
          return values.length > 0 ? [[metric, new Map(values)]] : [];
        }),
      );
    const group = layerGroup(path);
    return { group, weights, activations, weight: metrics("weight"), activation: metrics("activation") };
  }

  #wantsPicture({ path }: Site): boolean {
    return this.#options.rules.ssim === "all" || layerGroup(path) === "content";
  }
}

/** To what can be told apart: 0.0001 dB, and 1e-7 of SSIM. */
function rounded({ sqnr, x0, ssim }: Findings): Findings {
  const round = (value: number, digits: number): number => Number(value.toFixed(digits));
  return { sqnr: round(sqnr, 4), x0: round(x0, 4), ssim: ssim === undefined ? undefined : round(ssim, 7) };
}
