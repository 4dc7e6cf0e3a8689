/** The form's fields as Settings, and back. */
import type { EngineInfo } from "../base/types.ts";
import { MixdqError } from "../base/errors.ts";
import { parseSeed } from "../base/seed.ts";
import { byId } from "./dom.ts";
import { comparable, readSeed, type Mode, type Settings, type Unseen } from "./settings.ts";

const input = (id: string): HTMLInputElement => byId(id, HTMLInputElement);

export function readForm(unseen: Unseen): Settings {
  const mode = checked("mode") as Mode;
  const precision = checked("precision") as Settings["precision"];
  const number = (id: string): number | undefined => (input(id).value === "" ? undefined : input(id).valueAsNumber);
  return {
    prompt: byId("prompt", HTMLTextAreaElement).value.trim(),
    negative: input("negative").value.trim(),
    seed: readSeed(input("seed").value),
    steps: number("steps"),
    width: number("width"),
    height: number("height"),
    guidance: number("guidance"),
    mode,
    precision: mode === "compare" ? comparable(precision) : precision,
    model: input("model").value.trim(),
    config: input("config").value.trim(),
    backend: byId("backend", HTMLSelectElement).value as Settings["backend"],
    amplify: input("amplify").valueAsNumber,
    split: input("split").valueAsNumber,
    ...unseen,
  };
}

export function writeForm(settings: Settings): void {
  byId("prompt", HTMLTextAreaElement).value = settings.prompt;
  for (const key of [
    "negative",
    "seed",
    "steps",
    "width",
    "height",
    "guidance",
    "model",
    "config",
    "amplify",
    "split",
  ] as const) {
    input(key).value = String(settings[key] ?? "");
  }
  for (const name of ["mode", "precision"] as const)
    for (const radio of radios(name)) radio.checked = radio.value === settings[name];
  byId("backend", HTMLSelectElement).value = settings.backend;
}

/**
 * The first field whose value cannot be used, and why, in our words: the browser's own bubble says neither what was got
 * nor what is expected, and is gone before it is read.
 */
export function findMistake(): { field: HTMLElement; message: string } | undefined {
  const fields = document.querySelectorAll<HTMLInputElement>("#controls :is(input, textarea)");
  const field = [...fields].find((each) => !each.checkValidity());
  if (!field) return findWrongSeed();
  const label = field.labels?.[0]?.textContent ?? field.id;
  const { min, max, step, value, validity } = field;
  if (validity.valueMissing) return { field, message: `${label}: got nothing, expected a text.` };
  const kind = step === "1" ? "a whole number" : Number(step) > 1 ? `a multiple of ${step} pixels` : "a number";
  return { field, message: `${label}: got ${value || "something else"}, expected ${kind} from ${min} to ${max}.` };
}

/** A seed has more digits than a number field holds exactly, so its text is read here. */
function findWrongSeed(): { field: HTMLElement; message: string } | undefined {
  const field = input("seed");
  try {
    if (field.value.trim() !== "") parseSeed(field.value, "Seed");
    return undefined;
  } catch (error) {
    if (!(error instanceof MixdqError)) throw error;
    return { field, message: error.message };
  }
}

/** What an empty field stands for, once the model is known. */
export function showDefaults(info: EngineInfo): void {
  input("steps").placeholder = String(info.defaultSteps);
  input("guidance").placeholder = String(info.defaultGuidanceScale);
  input("width").placeholder = String(info.defaultWidth);
  input("height").placeholder = String(info.defaultHeight);
}

function radios(name: string): HTMLInputElement[] {
  return [...document.querySelectorAll<HTMLInputElement>(`input[name="${name}"]`)];
}

function checked(name: "mode" | "precision"): string {
  const radio = radios(name).find((each) => each.checked);
  if (radio) return radio.value;
  throw new TypeError(`index.html: no radio button named ${name} is checked.`);
}
