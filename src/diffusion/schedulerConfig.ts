/**
 * Reading a scheduler_config.json: typed values or an error that names the key, and the training noise schedule that
 * every scheduler starts from. Arithmetic is rounded to float32 exactly where diffusers 0.40 computes in float32.
 */
import { Config } from "../base/config.ts";
import { MixdqError } from "../base/errors.ts";
import { printable, show } from "../base/printable.ts";

/**
 * One run: the model is called once a timestep, in order, and `step` is told what came out. Elementwise, so samples may be
 * in any layout (but for `thresholding`, one sample at a time); nothing here changes its arguments.
 */
export interface Run {
  /** What the UNet is told at each call. */
  readonly timesteps: Float32Array;
  /** The start noise (unit variance) is multiplied by this. */
  readonly initNoiseSigma: number;
  /** The UNet's input at a call. Default: the sample. */
  scaleModelInput?(sample: Float32Array, call: number): Float32Array;
  /** A clean sample with as much noise as samples have before a call; `noise` of unit variance. */
  addNoise(clean: Float32Array, noise: Float32Array, call: number): Float32Array;
  /** The clean sample as this call's output estimates it. Depends on nothing but its arguments. */
  denoised(modelOutput: Float32Array, call: number, sample: Float32Array): Float32Array;
  /**
   * The sample at the next noise level. Multistep solvers remember earlier outputs: call after call, from where the run begins. `noise`
   * gives fresh N(0, 1) values, as many as the sample has, exactly when diffusers draws from its generator.
   */
  step(modelOutput: Float32Array, call: number, sample: Float32Array, noise: () => Float32Array): Float32Array;
  /** Which step a call belongs to, from 1; only where there are more calls than steps. */
  stepOf?(call: number): number;
}

/** What was asked of a run, checked but for what only one class can know. */
export interface Asked {
  readonly steps: number;
  /** Instead of steps, where the class takes them. */
  readonly timesteps: readonly number[] | undefined;
  /** 0 .. 1: how much noise comes back at each step of DDIM and TCD. */
  readonly eta: number;
  /** 0 .. 1: the part of a distillation's timesteps, from the cleanest on, among which LCM picks its steps. */
  readonly distilledStrength: number;
}

/** A scheduler class's config, read: makes runs. Throws `invalid-input` for what the class refuses. */
export type Family = (asked: Asked) => Run;

const BETA_SCHEDULES = ["linear", "scaled_linear", "squaredcos_cap_v2"] as const;
type BetaSchedule = (typeof BETA_SCHEDULES)[number] | "exp";

/** A class's own defaults, and what it has beyond the others. */
export interface TrainingDefaults {
  readonly start: number;
  readonly end: number;
  readonly schedule: BetaSchedule;
  /** Whether the class has `rescale_betas_zero_snr`; others do not read it. */
  readonly zeroSnr?: boolean;
  readonly exp?: boolean;
}

/** Far above any model (1000), far below what would stall the page. */
const MAX_TRAIN_TIMESTEPS = 10_000;

/** The share of the clean picture's variance that is left at the noisiest timestep; SD has 0.005. */
const MAX_LAST_SIGNAL = 0.99;

/** Typed reads of one parsed config; a missing or null key gives the default, as in diffusers. */
export class SchedulerConfig {
  readonly where: string;
  readonly className: string;
  readonly #config: Config;

  /**
   * `where` is the file, for messages; `className` goes before the config's own. Throws `invalid-model` for anything but an
   * object with a `_class_name`.
   */
  constructor(config: unknown, where: string, className?: string) {
    this.#config = new Config(where, config, "Save the scheduler again with diffusers.");
    this.where = where;
    this.className = className ?? this.#config.className;
  }

  /** A finite number, `least` to `most` where these are given. */
  number(key: string, fallback: number, least?: number, most?: number): number {
    return this.#config.number(key, fallback, least, most);
  }

  optionalNumber(key: string, least?: number, most?: number): number | undefined {
    return this.#config.optional(key, () => this.number(key, 0, least, most));
  }

  /** A number that may be -Infinity, which is also the default: where a range begins. */
  limit(key: string): number {
    return this.#config.get(key, -Infinity).value === -Infinity ? -Infinity : this.number(key, 0);
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
    const got = key === "_class_name" ? this.className : this.#config.get(key).value;
    return new MixdqError(
      "unsupported",
      `${this.where}: got ${whose}"${key}" ${show(got)}, expected ${expected}. ` +
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

/** The schedule that a config describes. Throws `invalid-model` or `unsupported`. */
export function makeTrainingSchedule(config: SchedulerConfig, defaults: TrainingDefaults): TrainingSchedule {
  const trainTimesteps = config.integer("num_train_timesteps", 1000, 1, MAX_TRAIN_TIMESTEPS);
  let betas = makeBetas(config, trainTimesteps, defaults);
  if (!betas.every((beta) => beta >= 0 && beta <= 1)) {
    throw config.invalid("beta_end", "(with the other betas) noise variances between 0 and 1");
  }
  const endsWithoutSignal = defaults.zeroSnr === true && config.flag("rescale_betas_zero_snr");
  if (endsWithoutSignal) betas = rescaleToZeroTerminalSnr(betas);
  const alphasCumprod = cumulativeAlphas(betas);
  // In float32, betas that are large enough leave nothing, which schedulers then divide by.
  if (!endsWithoutSignal && alphasCumprod[trainTimesteps - 1] === 0)
    throw config.invalid("beta_end", "(with the other betas) a schedule that leaves some signal");
  // Denoising begins with noise alone: a schedule of which the noisiest timestep has next to none gives no picture.
  if (!(alphasCumprod[trainTimesteps - 1] <= MAX_LAST_SIGNAL))
    throw config.invalid("beta_end", "(with the other betas) a schedule that ends in noise");
  // Steps are divided by the noise level that they begin at.
  if (!(alphasCumprod[0] < 1))
    throw config.invalid("beta_start", "betas above 0, so that there is noise at every timestep");
  return { trainTimesteps, alphasCumprod };
}

/** The noise-to-signal ratio of every training timestep: sqrt((1 - a) / a), in float32. */
export function trainingSigmas(alphasCumprod: Float32Array): Float32Array {
  return alphasCumprod.map((alpha) => Math.sqrt(Math.fround((1 - alpha) / alpha)));
}

/**
 * The same for schedulers that divide by the signal: with a zero terminal SNR the last alpha is diffusers' 2^-24, the
 * smallest subnormal of f16, instead of 0.
 */
export function makeSigmaSchedule(
  config: SchedulerConfig,
  defaults: TrainingDefaults,
): TrainingSchedule & { readonly sigmas: Float32Array } {
  const { trainTimesteps, alphasCumprod } = makeTrainingSchedule(config, defaults);
  const sigmas = trainingSigmas(alphasCumprod);
  if (defaults.zeroSnr && config.flag("rescale_betas_zero_snr")) {
    alphasCumprod[trainTimesteps - 1] = 2 ** -24;
    // sqrt(2^24 - 1) lies a hair below the middle of two float32 numbers; PyTorch's root on CPUs (MKL's) takes the upper.
    sigmas[trainTimesteps - 1] = 4096;
  }
  if (!sigmas.every(Number.isFinite)) throw config.invalid("trained_betas", "betas below 1, so that signal remains");
  return { trainTimesteps, alphasCumprod, sigmas };
}

function makeBetas(config: SchedulerConfig, count: number, defaults: TrainingDefaults): Float32Array {
  const trained = config.numbers("trained_betas");
  if (trained !== undefined) {
    if (trained.length !== count) {
      throw config.invalid("trained_betas", `null or as many numbers as num_train_timesteps, ${count}`);
    }
    return Float32Array.from(trained);
  }
  const start = config.number("beta_start", defaults.start);
  const end = config.number("beta_end", defaults.end);
  const schedules: readonly BetaSchedule[] = defaults.exp ? [...BETA_SCHEDULES, "exp"] : BETA_SCHEDULES;
  const fromAlphaBar = (alphaBar: (t: number) => number): Float32Array =>
    Float32Array.from({ length: count }, (_, i) =>
      Math.min(1 - alphaBar((i + 1) / count) / alphaBar(i / count), 0.999),
    );
  switch (config.choice("beta_schedule", defaults.schedule, schedules)) {
    case "linear":
      return linspace32(start, end, count);
    case "scaled_linear":
      return linspace32(Math.sqrt(start), Math.sqrt(end), count).map((root) => root * root);
    case "squaredcos_cap_v2": // Nichol & Dhariwal 2021, arXiv 2102.09672
      return fromAlphaBar((t) => Math.cos((((t + 0.008) / 1.008) * Math.PI) / 2) ** 2);
    case "exp":
      return fromAlphaBar((t) => Math.exp(-12 * t));
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
