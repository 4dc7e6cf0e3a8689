/** What a caller does first with what a reader has taken, and what must hold then. */
import { Config, parseConfigText } from "../../src/base/config.ts";
import { choice, readFlags } from "../../src/cli/flags.ts";
import { RUN_FLAGS, runFlags, WEIGHT_FLAGS, weightsOf } from "../../src/cli/options.ts";
import { createScheduler } from "../../src/diffusion/scheduler.ts";
import { createTokenizer } from "../../src/text/tokenizer.ts";
import { content, textOf, type Files } from "./files.ts";

export function expectThat(condition: boolean, what: string): void {
  if (!condition) throw new Error(`taken, although ${what}`);
}

export const open = (files: Files): Config =>
  new Config("config.json", parseConfigText(textOf(files, "config.json"), "config.json"));

const TOKENIZER = {
  tokenizerJson: "tokenizer.json",
  vocab: "vocab.json",
  merges: "merges.txt",
  config: "tokenizer_config.json",
  specialTokensMap: "special_tokens_map.json",
  addedTokens: "added_tokens.json",
} as const;

export const PROMPTS = ["a red house by the sea", "", "naïve <|endoftext|> constructor __proto__ <x> 😀 3.5!"];

export function runTokenizer(files: Files): void {
  const texts = Object.fromEntries(Object.entries(TOKENIZER).map(([key, name]) => [key, content(files, name)]));
  const tokenizer = createTokenizer(texts, "tokenizer");
  for (const prompt of PROMPTS) {
    const { ids, eosIndex } = tokenizer.encode(prompt);
    expectThat(ids.length === tokenizer.length, "it gives another number of ids");
    expectThat(
      ids.every((id) => id >= 0 && id <= tokenizer.largestId),
      `it gives ids beyond its largest, ${tokenizer.largestId}`,
    );
    expectThat(eosIndex >= 0, "there is no end token");
  }
}

export function runScheduler(files: Files): void {
  const config = open(files);
  const scheduler = createScheduler(config.values, config.where)({ steps: 4, eta: 0.5 });
  const isFinite = (values: Float32Array): boolean => values.every(Number.isFinite);
  expectThat(isFinite(scheduler.timesteps), "its timesteps are not finite");
  expectThat(scheduler.initNoiseSigma > 0 && scheduler.initNoiseSigma < Infinity, "its noise is nothing or infinite");
  let sample = Float32Array.of(scheduler.initNoiseSigma, -scheduler.initNoiseSigma);
  for (const i of scheduler.timesteps.keys()) {
    const input = scheduler.scaleModelInput(sample, i);
    sample = new Float32Array(scheduler.step(input, i, sample, () => Float32Array.of(0.5, -0.5)));
    expectThat(isFinite(sample), `step ${i} makes numbers that are not finite`);
  }
}

export const HALF = { batch: 1, height: 8, width: 8, tokens: 77 };

/** `--name value` a line. */
export const COMMAND_LINE =
  "--model\nx\n--precision\nw4a8\n--backend\nwebgpu\n--kernels\ntiled\n--debug\n1\n--group\n64\n--symmetric";

export function runFlagsOf(files: Files): void {
  const known = { ...RUN_FLAGS, ...WEIGHT_FLAGS, model: choice(["x"], "") };
  const { flags } = readFlags(textOf(files, "arguments.txt").split("\n"), known);
  runFlags(flags);
  weightsOf(flags);
}

export async function drain(tensors: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of tensors) void _;
}
