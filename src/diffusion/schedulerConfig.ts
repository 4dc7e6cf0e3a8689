/**
 * Reading a scheduler_config.json: typed values or an error that names the key, and the training noise schedule that
 * every scheduler starts from. Arithmetic is rounded to float32 exactly where diffusers 0.40 computes in float32.
 */
import { Config } from "../base/config.ts";
import { MixdqError } from "../base/errors.ts";
import { printable, show } from "../base/printable.ts";

/** One run's schedule. Elementwise, so samples may be in any layout; nothing here changes its arguments. */
export interface Scheduler {
  /** What the UNet is told at each step; its length is the number of steps. */
  readonly timesteps: Float32Array;
  /** The start noise (unit variance) is multiplied by this. */
  readonly initNoiseSigma: number;
  /** The UNet's input at a step. */
  scaleModelInput(sample: Float32Array, stepIndex: number): Float32Array;
  /**
   * The sample at the next noise level, and the clean sample as estimated now (for previews). `noise` gives fresh
   * N(0, 1) values, as many as the sample has; it is called exactly when diffusers draws from its generator.
   */
  step(modelOutput: Float32Array, stepIndex: number, sample: Float32Array, noise: () => Float32Array): SchedulerStep;
}

export interface SchedulerStep {
  readonly prev: Float32Array;
  readonly denoised: Float32Array;
}

/** A schedule for so many steps (1 up to what the model was trained with). Throws `invalid-input` for other counts. */
export type SchedulerFactory = (steps: number) => Scheduler;

export const PREDICTION_TYPES = ["epsilon", "v_prediction", "sample"] as const;
export type PredictionType = (typeof PREDICTION_TYPES)[number];

export const TIMESTEP_SPACINGS = ["linspace", "leading", "trailing"] as const;
export type TimestepSpacing = (typeof TIMESTEP_SPACINGS)[number];

const BETA_SCHEDULES = ["linear", "scaled_linear", "squaredcos_cap_v2"] as const;

/** Far above any model (1000), far below what would stall the page. */
const MAX_TRAIN_TIMESTEPS = 10_000;

/** The share of the clean picture's variance that is left at the noisiest timestep; SD has 0.005. */
const MAX_LAST_SIGNAL = 0.99;

/** Typed reads of one parsed config; a missing or null key gives the default, as in diffusers. */
export class SchedulerConfig {
  readonly where: string;
  readonly className: string;
  readonly #config: Config;

  /** `where` is the file, for messages. Throws `invalid-model` for anything but an object with a `_class_name`. */
  constructor(config: unknown, where: string) {
    this.#config = new Config(where, config, "Save the scheduler again with diffusers.");
    this.where = where;
    this.className = this.#config.className;
  }

  /** A finite number, `least` to `most` where these are given. */
  number(key: string, fallback: number, least?: number, most?: number): number {
    return this.#config.number(key, fallback, least, most);
  }

  optionalNumber(key: string, least?: number, most?: number): number | undefined {
    return this.#config.optional(key, () => this.number(key, 0, least, most));
  }

  /** An integer in min .. max. */
  integer(key: string, fallback: number, min: number, max: number): number {
    return this.#config.get(key, fallback).integer(min, max);
  }

  flag(key: string, fallback = false): boolean {
    return this.#config.boolean(key, fallback);
  }

  text(key: string, fallback: string): string {
    return this.#config.string(key, fallback);
  }

  choice<T extends string>(key: string, fallback: T, supported: readonly T[]): T {
    const value = this.text(key, fallback);
    const match = supported.find((candidate) => candidate === value);
    if (match === undefined) throw this.unsupported(key, `one of ${supported.join(", ")}`);
    return match;
  }

  /** Finite numbers, at most as many as a schedule can have. */
  numbers(key: string): number[] | undefined {
    return this.#config.optional(key, () =>
      this.#config
        .get(key)
        .items(0, MAX_TRAIN_TIMESTEPS)
        .map((item) => item.number()),
    );
  }

  /** An option that diffusers has and we do not: only `false` (or nothing) is accepted. */
  refuse(key: string): void {
    if (this.flag(key)) throw this.unsupported(key, "false");
  }

  unsupported(key: string, expected: string): MixdqError {
    const whose = key === "_class_name" ? "" : `${printable(this.className)}'s `;
    return new MixdqError(
      "unsupported",
      `${this.where}: got ${whose}"${key}" ${show(this.#config.get(key).value)}, expected ${expected}. ` +
        `Change the value, or save the model with a scheduler that does not need it.`,
    );
  }

  invalid(key: string, expected: string): MixdqError {
    const value = this.#config.get(key);
    return value.error(show(value.value), expected);
  }
}

/** The noise schedule a model was trained with. */
export interface TrainingSchedule {
  readonly trainTimesteps: number;
  /** [trainTimesteps], the running product of 1 - beta. */
  readonly alphasCumprod: Float32Array;
}

/**
 * The schedule that a config describes; `defaults` are the class's own values of beta_start, beta_end and
 * beta_schedule. Throws `invalid-model` or `unsupported`.
 */
export function makeTrainingSchedule(
  config: SchedulerConfig,
  defaults: { readonly start: number; readonly end: number; readonly schedule: (typeof BETA_SCHEDULES)[number] },
): TrainingSchedule {
  const trainTimesteps = config.integer("num_train_timesteps", 1000, 1, MAX_TRAIN_TIMESTEPS);
  let betas = makeBetas(config, trainTimesteps, defaults);
  if (!betas.every((beta) => beta >= 0 && beta <= 1)) {
    throw config.invalid("beta_end", "(with the other betas) noise variances between 0 and 1");
  }
  const endsWithoutSignal = config.flag("rescale_betas_zero_snr");
  if (endsWithoutSignal) betas = rescaleToZeroTerminalSnr(betas);
  const alphasCumprod = cumulativeAlphas(betas);
  // In float32, betas that are large enough leave nothing, which schedulers then divide by.
  if (!endsWithoutSignal && alphasCumprod[trainTimesteps - 1] === 0)
    throw config.invalid("beta_end", "(with the other betas) a schedule that leaves some signal");
  // Denoising begins with noise alone: a schedule of which the noisiest timestep has next to none gives no picture.
  if (!(alphasCumprod[trainTimesteps - 1]! <= MAX_LAST_SIGNAL))
    throw config.invalid("beta_end", "(with the other betas) a schedule that ends in noise");
  return { trainTimesteps, alphasCumprod };
}

/** The noise-to-signal ratio of every training timestep: sqrt((1 - a) / a), in float32. */
export function trainingSigmas(alphasCumprod: Float32Array): Float32Array {
  return alphasCumprod.map((alpha) => Math.sqrt(Math.fround((1 - alpha) / alpha)));
}

function makeBetas(
  config: SchedulerConfig,
  count: number,
  defaults: { readonly start: number; readonly end: number; readonly schedule: (typeof BETA_SCHEDULES)[number] },
): Float32Array {
  const trained = config.numbers("trained_betas");
  if (trained !== undefined) {
    if (trained.length !== count) {
      throw config.invalid("trained_betas", `null or as many numbers as num_train_timesteps, ${count}`);
    }
    return Float32Array.from(trained);
  }
  const start = config.number("beta_start", defaults.start);
  const end = config.number("beta_end", defaults.end);
  switch (config.choice("beta_schedule", defaults.schedule, BETA_SCHEDULES)) {
    case "linear":
      return linspace32(start, end, count);
    case "scaled_linear":
      return linspace32(Math.sqrt(start), Math.sqrt(end), count).map((root) => root * root);
    case "squaredcos_cap_v2": {
      // Nichol & Dhariwal 2021, arXiv 2102.09672.
      const alphaBar = (t: number) => Math.cos((((t + 0.008) / 1.008) * Math.PI) / 2) ** 2;
      return Float32Array.from({ length: count }, (_, i) =>
        Math.min(1 - alphaBar((i + 1) / count) / alphaBar(i / count), 0.999),
      );
    }
  }
}

/**
 * torch.linspace in float32: the first half counts up from the start, the second down from the end, each with one
 * fused multiply-add (hence one rounding, which computing in double and storing as float32 reproduces).
 */
function linspace32(start: number, end: number, count: number): Float32Array {
  const first = Math.fround(start);
  const last = Math.fround(end);
  const step = count > 1 ? Math.fround(Math.fround(last - first) / (count - 1)) : 0;
  return Float32Array.from({ length: count }, (_, i) =>
    i < count / 2 ? first + step * i : last - step * (count - 1 - i),
  );
}

/** torch.cumprod of 1 - beta: float32 values, accumulated in double. */
function cumulativeAlphas(betas: Float32Array): Float32Array {
  let product = 1;
  return betas.map((beta) => (product *= Math.fround(1 - beta)));
}

/** Shifts and scales sqrt(alphasCumprod) so that the last timestep is pure noise. Lin et al. 2023, arXiv 2305.08891. */
function rescaleToZeroTerminalSnr(betas: Float32Array): Float32Array {
  const roots = cumulativeAlphas(betas).map(Math.sqrt);
  const first = roots[0];
  const last = roots[roots.length - 1];
  const scale = Math.fround(first / Math.fround(first - last));
  const alphasBar = roots.map((root) => Math.fround(Math.fround(root - last) * scale) ** 2);
  return alphasBar.map((alpha, i) => 1 - (i === 0 ? alpha : Math.fround(alpha / alphasBar[i - 1])));
}
