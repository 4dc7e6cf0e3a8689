/** The steps of `mixdq auto`: which command is called with what, and which files it reads and writes; data. */
import type { Seed } from "../../base/seed.ts";
import path from "node:path";
import type { Source } from "../../node/fileDigests.ts";
import { nameOf } from "../../node/inputFiles.ts";

export type StepName = "calibrate" | "sensitivity" | "allocate" | "quantize" | "generate";

export interface Step {
  readonly name: StepName;
  /** The command's arguments, for each time it is called. */
  readonly runs: readonly (readonly string[])[];
  /** The same with names in place of paths: what must be the same for the step to be the same. */
  readonly record: readonly (readonly string[])[];
  readonly inputs: Readonly<Record<string, Source>>;
  /** Names in the folder. Each appears there whole or not at all, the last of them as the step's last act. */
  readonly outputs: readonly string[];
  /** Those of the outputs that are there before the command begins, for it to read. */
  readonly texts: Readonly<Record<string, string>>;
  /** The command takes up where it was killed; without, it begins again. */
  readonly goesOn: boolean;
}

/** Pictures that decide: the judge's last so many, those of a file, or prompts that are in no file yet. */
export type TrialPrompts = { readonly ofJudge: number } | { readonly file: string } | { readonly text: string };

export interface AutoRequest {
  readonly out: string;
  readonly model: string;
  readonly prompts: string;
  readonly weightBits: number;
  readonly actBits: number;
  readonly candidates: string;
  readonly sum: string;
  readonly samples: number;
  readonly pictures: number;
  readonly ssim: string;
  /** undefined where no picture is to decide. */
  readonly trials: TrialPrompts | undefined;
  /** The folder of the model's judge, where it has one. */
  readonly judge: string | undefined;
  readonly prompt: string;
  readonly seed: Seed;
  /** For the float model, and for every command that needs an adapter. */
  readonly precision: readonly string[];
  readonly device: readonly string[];
}

/** Where prompts of trials are put that are in no file yet. */
const TRIAL_PROMPTS = "trials.txt";

/** What the engine may read of a model's folder; its card, its judge and its recipe make no difference. */
const MODEL_PARTS = [
  ...["model_index.json", "unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"],
];
const MODEL_FILES = /\.(json|txt|safetensors)$/;

/** How a step names files: those that are in the folder, and those that are elsewhere. */
interface Place {
  readonly inside: (name: string) => string;
  readonly outside: (file: string) => string;
}

export function stepsOf(request: AutoRequest): Step[] {
  const { out, weightBits, actBits, candidates, sum, samples, pictures, ssim, trials, judge, prompt, seed } = request;
  const real: Place = { inside: (name) => path.join(out, name), outside: (file) => file };
  // A path of this machine would be another one where the folder is moved, or passed on.
  const named: Place = { inside: (name) => name, outside: nameOf };
  const model = { at: request.model, parts: MODEL_PARTS, wanted: MODEL_FILES };
  const prompts = { at: request.prompts };
  const made = (...names: string[]): Record<string, Source> =>
    Object.fromEntries(names.map((name) => [name, { at: real.inside(name) }]));
  const step = (
    name: StepName,
    runs: (place: Place) => readonly (readonly string[])[],
    rest: Pick<Step, "inputs" | "outputs"> & Partial<Step>,
  ): Step => ({ name, runs: runs(real), record: runs(named), texts: {}, goesOn: false, ...rest });
  const { precision, device } = request;
  const texts: Record<string, string> = trials && "text" in trials ? { [TRIAL_PROMPTS]: trials.text } : {};

  return [
    step(
      "calibrate",
      ({ inside, outside }) => [
        [
          ...[`--model=${outside(request.model)}`, `--prompts=${outside(request.prompts)}`],
          ...[`--out=${inside("calibration.json")}`, ...precision, ...device],
        ],
      ],
      { inputs: { model, prompts }, outputs: ["calibration.json"], goesOn: true },
    ),
    step(
      "sensitivity",
      ({ inside, outside }) => [
        [
          ...[`--model=${outside(request.model)}`, `--prompts=${outside(request.prompts)}`],
          ...[`--calibration=${inside("calibration.json")}`, `--out=${inside("sensitivity.json")}`],
          ...[`--samples=${samples}`, `--pictures=${pictures}`, `--ssim=${ssim}`, `--candidates=${candidates}`],
          ...[`--act-candidates=${actCandidates(actBits)}`, ...precision, ...device],
        ],
      ],
      { inputs: { model, prompts, ...made("calibration.json") }, outputs: ["sensitivity.json"], goesOn: true },
    ),
    step(
      "allocate",
      ({ inside, outside }) => [
        [
          ...[`--sensitivity=${inside("sensitivity.json")}`, `--calibration=${inside("calibration.json")}`],
          ...[`--weight-bits=${weightBits}`, `--act-bits=${actBits}`],
          ...[`--candidates=${candidates}`, `--sum=${sum}`],
          ...(trials
            ? [`--model=${outside(request.model)}`, `--prompts=${trialPrompts(trials, { inside, outside })}`]
            : []),
          ...[`--out=${inside("mixdq.json")}`, `--report=${inside("report.html")}`, ...device],
        ],
      ],
      {
        inputs: {
          ...made("calibration.json", "sensitivity.json"),
          ...(trials && { model, ...(judge !== undefined && { judge: { at: judge } }) }),
          ...trialInputs(trials),
        },
        outputs: [...Object.keys(texts), "mixdq.json", "report.html"],
        texts,
      },
    ),
    step(
      "quantize",
      ({ inside, outside }) => [
        [
          ...[`--model=${outside(request.model)}`, `--config=${inside("mixdq.json")}`, `--out=${inside("pack")}`],
          ...device,
        ],
      ],
      { inputs: { model, ...made("mixdq.json") }, outputs: ["pack"] },
    ),
    step(
      "generate",
      ({ inside, outside }) => {
        const picture = (model: string, name: string): string[] => [
          ...[`--model=${model}`, `--prompt=${prompt}`, `--seed=${seed}`, `--out=${inside(name)}`, ...device],
        ];
        return [
          picture(inside("pack"), "picture.png"),
          [...picture(outside(request.model), "picture.fp16.png"), "--precision=fp16"],
        ];
      },
      { inputs: { model, ...made("pack") }, outputs: ["picture.png", "picture.fp16.png"] },
    ),
  ];
}

/** Inputs are measured at no widths that `actBits` cannot choose: 8 alone decides which stay in float. */
function actCandidates(actBits: number): string {
  return actBits === 16 ? "none" : actBits === 8 ? "8" : "4,8";
}

function trialPrompts(trials: TrialPrompts, { inside, outside }: Place): string {
  if ("text" in trials) return inside(TRIAL_PROMPTS);
  return "file" in trials ? outside(trials.file) : `${trials.ofJudge}`;
}

function trialInputs(trials: TrialPrompts | undefined): Record<string, Source> {
  if (trials && "text" in trials) return { [TRIAL_PROMPTS]: { text: trials.text } };
  return trials && "file" in trials ? { trials: { at: trials.file } } : {};
}
