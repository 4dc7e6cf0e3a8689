/**
 * One layer disturbed, everything else in float: how much the UNet's output, the latents that it predicts and the picture
 * suffer. MixDQ (arXiv 2405.17873) section 3.2.
 *
 * Nothing is computed twice that stays the same: plan, pipelines and memory are those of the float network; the text's
 * keys and values are computed once a sample; and because layers come in the order of the plan, each sample waits in a
 * snapshot just before the layer, so that what lies before it is computed once for all layers together.
 */
import type { Calibration, LayerRanges, RangeRule } from "../calibration/file.ts";
import { rangesOf } from "../calibration/preset.ts";
import { toChannelsFirst } from "../../model/layout.ts";
import type { WeightStore } from "../../gpu/store.ts";
import type { Tensor } from "../../graph/ops.ts";
import { ssim } from "../quality/ssim.ts";
import { activationQuant } from "../../quant/activations.ts";
import type { WeightBits, WeightQuant } from "../../quant/formats.ts";
import { toHalf } from "../../quant/half.ts";
import { disturbedInput, disturbedWeights, merged } from "./disturb.ts";
import { SignalToNoise } from "./noise.ts";
import { pictureOf, type Sample, type SampleOptions } from "./samples.ts";
import type { Evaluation, Site } from "./sites.ts";

/** What an evaluation finds, larger for better. */
export interface Findings {
  /** Of the UNet's output, dB. */
  readonly sqnr: number;
  /** Of the clean latents that it predicts, dB. */
  readonly x0: number;
  /** Of the decoded pictures, mean; undefined where none are compared. */
  readonly ssim: number | undefined;
}

export interface ProbeOptions extends SampleOptions {
  /** Where the UNet's weights lie. */
  readonly store: WeightStore;
  readonly samples: readonly Sample[];
  readonly calibration: Calibration;
  readonly rangeRule: RangeRule;
  readonly weights: Omit<WeightQuant, "bits">;
  /** A layer's weight as the checkpoint has it. */
  readonly weightOf: (site: Site) => Float32Array;
}

export class Probe {
  readonly #options: ProbeOptions;
  readonly #ranges: LayerRanges;
  readonly #output: Tensor;
  /** Where the samples wait, and the results of that op before any disturbance where they are needed. */
  #from = 0;
  #before: Float32Array[] | undefined;

  constructor(options: ProbeOptions) {
    this.#options = options;
    this.#ranges = rangesOf(options.calibration, options.rangeRule);
    this.#output = options.executor.plan.outputs["out_sample"];
  }

  /**
   * All of `evaluations`, which are of this layer, one after the other; layers must come in the order of the plan.
   * `wantsPicture`: whether pictures are compared.
   */
  async *measure(
    site: Site,
    evaluations: readonly Evaluation[],
    wantsPicture: boolean,
  ): AsyncGenerator<{ evaluation: Evaluation; findings: Findings }> {
    await this.#moveTo(site);
    const original = evaluations.some(({ side }) => side === "weight") ? this.#options.weightOf(site) : undefined;
    let isDisturbed = false;
    const repair = async (): Promise<void> => {
      if (isDisturbed) await this.#upload(site, original!);
      isDisturbed = false;
    };
    try {
      for (const evaluation of evaluations) {
        if (evaluation.side === "weight") {
          const quant = { ...this.#options.weights, bits: evaluation.bits as WeightBits };
          isDisturbed = true;
          await this.#upload(site, disturbedWeights(original!, site, quant));
        } else await repair();
        yield { evaluation, findings: await this.#evaluate(site, evaluation, wantsPicture) };
      }
    } finally {
      await repair();
    }
  }

  async #upload(site: Site, values: Float32Array): Promise<void> {
    await this.#options.store.accept(site.weight.name, (dtype) => (dtype === "f16" ? toHalf(values) : values));
  }

  /** Brings every sample to just before the layer's op. */
  async #moveTo(site: Site): Promise<void> {
    const { samples, executor, signal } = this.#options;
    const needsBefore = !site.isAlone || this.#keepsFirst(site);
    if (site.from === this.#from && (this.#before || !needsBefore)) return;
    if (site.from < this.#from) throw new Error(`${site.path}: layers must come in the order of the plan`);
    this.#before = needsBefore ? [] : undefined;
    for (const sample of samples) {
      const { snapshot } = sample;
      await executor.restore(snapshot);
      if (site.from > snapshot.at) {
        await executor.runPart(snapshot.at, site.from, executor.plan.textDispatches, signal);
        sample.snapshot = await executor.save(site.from);
        snapshot.buffer.destroy();
      }
      if (!this.#before) continue;
      await executor.runPart(site.from, site.to, undefined, signal);
      this.#before.push(await executor.read(site.op.y));
    }
    this.#from = site.from;
  }

  /** Keys and values of the text's first token come from a cache of the float weights. */
  #keepsFirst(site: Site): boolean {
    return site.isCrossKV && this.#options.calibration.bos;
  }

  async #evaluate(site: Site, evaluation: Evaluation, wantsPicture: boolean): Promise<Findings> {
    const { samples, model, settings } = this.#options;
    const latentShape = { ...model.latentShape(settings), channels: this.#output.shape[3] };
    const [output, x0] = [new SignalToNoise(), new SignalToNoise()];
    const where = `${site.path}, ${evaluation.side}s in ${evaluation.bits} bits`;
    let similarity = 0;
    let pictures = 0;
    for (const [i, sample] of samples.entries()) {
      const values = toChannelsFirst(await this.#run(site, evaluation, i), latentShape);
      const latents = sample.predict(values);
      output.add(sample.output, values, `The UNet's output with ${where},`);
      x0.add(sample.x0, latents, `The prediction with ${where},`);
      if (!wantsPicture || !sample.picture) continue;
      similarity += ssim(sample.picture, await pictureOf(latents, this.#options));
      pictures++;
    }
    return {
      sqnr: output.decibels,
      x0: x0.decibels,
      ssim: pictures > 0 ? similarity / pictures : undefined,
    };
  }

  /** The UNet's output with the layer disturbed, channels-last. Weights have been uploaded already. */
  async #run(site: Site, { side, bits }: Evaluation, i: number): Promise<Float32Array> {
    const { samples, executor, signal } = this.#options;
    const { from, to, op } = site;
    const keepsFirst = this.#keepsFirst(site);
    await executor.restore(samples[i].snapshot);
    const { dispatches, textDispatches } = executor.plan;
    const isMerged = keepsFirst || (side === "activation" && !site.isAlone);
    if (side === "weight" && !isMerged) {
      const others = site.isCrossKV
        ? new Set(dispatches.slice(to).filter((dispatch) => textDispatches.has(dispatch)))
        : textDispatches;
      await executor.runPart(from, dispatches.length, others, signal);
      return executor.read(this.#output);
    }
    // In place, for this op alone: others that read the same tensors must find them as they were.
    const inputs = side === "activation" ? await this.#disturbInputs(site, bits) : [];
    await executor.runPart(from, to, undefined, signal);
    for (const { tensor, values } of inputs) executor.write(tensor, values);
    if (isMerged) executor.write(op.y, merged(this.#before![i], await executor.read(op.y), site, keepsFirst));
    await executor.runPart(to, dispatches.length, textDispatches, signal);
    return executor.read(this.#output);
  }

  /** Overwrites the layer's input; returns what was there. */
  async #disturbInputs(site: Site, bits: number): Promise<{ tensor: Tensor; values: Float32Array }[]> {
    const { executor } = this.#options;
    const { act, act2 } = this.#ranges.get(site.path)!;
    const inputs = [
      { tensor: site.input, range: act },
      ...(site.skip && act2 ? [{ tensor: site.skip, range: act2 }] : []),
    ];
    const found: { tensor: Tensor; values: Float32Array }[] = [];
    for (const { tensor, range } of inputs) {
      const values = await executor.read(tensor);
      found.push({ tensor, values });
      const [images, , , channels] = tensor.shape;
      const quant = activationQuant(range.min, range.max, bits, site.path);
      const kept = this.#keepsFirst(site) ? channels : 0;
      executor.write(tensor, disturbedInput(values, quant, bits, { images, kept }));
    }
    return found;
  }

  /** Gives back the memory of the samples. */
  dispose(): void {
    for (const { snapshot } of this.#options.samples) snapshot.buffer.destroy();
  }
}
