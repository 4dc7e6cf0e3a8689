/** The chain without a GPU: what is refused before it begins, and what is made anew, with commands that only write files. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeEach, describe, expect, test, vi } from "vitest";
import { MixdqError } from "../../base/errors.ts";
import { auto, runSteps, type Commands } from "./auto.ts";
import { AUTO_FLAGS, readAutoRequest } from "./autoFlags.ts";
import { stepsOf, type Step, type StepName } from "./autoSteps.ts";
import { readFlags } from "../flags.ts";
import { withLock } from "../../node/lock.ts";

const root = mkdtempSync(path.join(os.tmpdir(), "mixdq-auto-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const printed: string[] = [];
beforeEach(() => {
  printed.length = 0;
  vi.spyOn(console, "log").mockImplementation((line: string) => void printed.push(line));
});

let folders = 0;
const fresh = (): string => path.join(root, `${folders++}`);
const textFile = (content: string): string => {
  const file = path.join(root, `${folders++}.txt`);
  writeFileSync(file, content);
  return file;
};

describe("asked", () => {
  const MODELS = path.join(import.meta.dirname, "../../../models");
  const SMALL = path.join(import.meta.dirname, "../../../e2e/golden/sd21-turbo");
  const PROMPTS = textFile("a red fox\nan old house\na boat\n");
  const asked = async (...args: string[]) => readAutoRequest(readFlags(args, AUTO_FLAGS).flags);
  const small = (...args: string[]) => asked("--out", "there", "--model", SMALL, "--prompts", PROMPTS, ...args);

  test("for nothing but a folder, takes the model's own prompts and judge", async () => {
    const request = await asked("--out", "there");
    expect(request).toMatchObject({ samples: 4, pictures: 2, ssim: "content", trials: { ofJudge: 32 }, seed: 0 });
    expect(request.prompts).toBe(path.join(MODELS, "postcard/calibration.txt"));
    expect(request.prompt).toBe(readFileSync(request.prompts, "utf8").split("\n")[0]);
    const steps = stepsOf(request);
    expect(steps.map(({ name }) => name)).toEqual(["calibrate", "sensitivity", "allocate", "quantize", "generate"]);
    expect(steps[2].runs[0]).toEqual(
      expect.arrayContaining(["--weight-bits=4", "--act-bits=8", "--prompts=32", "--out=there/mixdq.json"]),
    );
  });

  test("notes no path of this machine", async () => {
    const steps = stepsOf(await small("--trials", PROMPTS));
    expect(JSON.stringify(steps.map(({ runs }) => runs))).toContain(JSON.stringify(`--model=${SMALL}`));
    expect(JSON.stringify(steps.map(({ record }) => record))).not.toContain("/");
    expect(steps[0].record[0]).toContain("--model=sd21-turbo");
  });

  test("without a judge, lets pictures of its last prompts decide", async () => {
    const [, , allocate] = stepsOf(await small("--trials", "2"));
    expect(allocate!.texts).toEqual({ "trials.txt": "an old house\na boat\n" });
    expect(allocate!.runs[0]).toContain("--prompts=there/trials.txt");
    const [, , alone] = stepsOf(await small("--trials", "0"));
    expect(alone!.runs[0].join()).not.toContain("--prompts");
  });

  test.each([
    ["8", "--act-candidates=8"],
    ["16", "--act-candidates=none"],
    ["6.5", "--act-candidates=4,8"],
  ])("for inputs of %s bits measures what allocate asks for", async (bits, flag) => {
    expect(stepsOf(await small("--act-bits", bits))[1].runs[0]).toContain(flag);
  });

  test("sees no difference between 4 and 4.0", async () => {
    const [one, other] = [await small("--weight-bits", "4"), await small("--weight-bits", "4.0")];
    expect(stepsOf(one)).toEqual(stepsOf(other));
  });

  test.each<[string, string[], string]>([
    ["a flag that it does not know", ["--weightbits", "4"], "Unknown option '--weightbits'"],
    ["a model that is missing", ["--model", "/nowhere"], "--model /nowhere: no such folder"],
    ["prompts that are missing", ["--prompts", "/nowhere.txt"], "--prompts /nowhere.txt cannot be read"],
    ["bits that are no number", ["--weight-bits", "NaN"], "--weight-bits NaN: expected a number"],
    ["bits below what the widths allow", ["--weight-bits", "1.9"], "--weight-bits 1.9: expected 2, which all"],
    ["bits below the least width", ["--weight-bits", "3.9", "--candidates", "4,8"], "3.9: expected 4, which all"],
    ["inputs of 3 bits", ["--act-bits", "3"], "--act-bits 3: expected 4 to 8, or 16"],
    ["another sum", ["--sum", "squares"], "--sum squares: expected decibels, noise"],
    ["widths that nobody stores", ["--candidates", "2,5"], "--candidates 2,5: expected bit-widths of 2, 3, 4, 8"],
    ["more samples than prompts", ["--samples", "4"], "--samples 4: "],
    ["no samples", ["--samples", "0"], "--samples 0: expected at least one"],
    ["no pictures", ["--pictures", "0"], "--pictures 0: expected at least one"],
    ["another metric", ["--ssim", "some"], "--ssim some: expected all, content"],
    ["a single trial", ["--trials", "1"], "--trials 1: expected 2 to 3"],
    ["more trials than prompts", ["--trials", "4"], "--trials 4: expected 2 to 3"],
    ["trials that are missing", ["--trials", "/nowhere.txt"], "--trials /nowhere.txt cannot be read"],
    ["a seed that is none", ["--seed", "1.5"], "--seed: got 1.5"],
    ["another precision", ["--precision", "w8a8"], "--precision w8a8: sensitivity disturbs the float model"],
    ["other kernels", ["--kernels", "fast"], "--kernels fast: expected direct, tiled"],
  ])("refuses %s", async (_, flags, says) => {
    const out = fresh();
    const error = await auto(["--out", out, "--model", SMALL, "--prompts", PROMPTS, ...flags]).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(MixdqError);
    expect(error).toMatchObject({ code: "invalid-input", message: expect.stringContaining(says) });
    expect(existsSync(out)).toBe(false);
  });

  test("refuses a model without prompts, more trials than the judge has, and other places than a folder beside the model", async () => {
    await expect(asked("--out", "there", "--model", SMALL)).rejects.toThrow("has no calibration.txt either");
    await expect(asked("--model", SMALL)).rejects.toThrow("--out is missing");
    for (const out of [SMALL, path.join(SMALL, "unet/..", "made")])
      await expect(asked("--out", out, "--model", SMALL)).rejects.toThrow("lies in the model's folder");
    await expect(asked("--out", "there", "--trials", "2000")).rejects.toThrow("--trials 2000: expected at most");
    await expect(auto(["--out", PROMPTS, "--model", SMALL, "--prompts", PROMPTS])).rejects.toThrow(
      "is not a folder that you may write to",
    );
  });
});

test("a second chain in one folder is refused, and leaves it as it was", async () => {
  const out = fresh();
  const prompts = textFile("a red fox\nan old house\n");
  const model = path.join(import.meta.dirname, "../../../e2e/golden/sd21-turbo");
  await withLock(path.join(out, "steps.json"), async () => {
    const second = auto(["--out", out, "--model", model, "--prompts", prompts]);
    await expect(second).rejects.toThrow(`process ${process.pid} on ${os.hostname()} is writing it (steps.json.lock`);
    expect(readdirSync(out)).toEqual(["steps.json.lock"]);
  });
  expect(existsSync(out)).toBe(false);
});

/** Thrown where a process would be killed. */
class Killed extends Error {}

/** Three steps over one file: each copies what it reads and its flag into its output. */
function chain(out: string, source: string, flags: Partial<Record<StepName, string>> = {}): Step[] {
  const at = (name: string) => path.join(out, name);
  const step = (name: StepName, input: string, output: string, rest: Partial<Step> = {}): Step => {
    const [flag, name2] = [`--weight-bits=${flags[name] ?? "4"}`, path.basename(input)];
    const runs = [[flag, `--from=${input}`, `--out=${at(output)}`]];
    const record = [[flag, `--from=${name2}`, `--out=${output}`]];
    return {
      name,
      runs,
      record,
      inputs: { [name2]: { at: input } },
      outputs: [output],
      texts: {},
      goesOn: false,
      ...rest,
    };
  };
  return [
    step("calibrate", source, "a.json", { goesOn: true }),
    step("allocate", at("a.json"), "b.json"),
    step("quantize", at("b.json"), "pack"),
  ];
}

const valueOf = (args: readonly string[], flag: string): string =>
  args.find((arg) => arg.startsWith(`--${flag}=`))!.split("=")[1];

/** `called` hears of every call; `before` and `after` may end it. */
function commands(hooks: { before?: (name: string, out: string) => void; after?: (name: string) => void } = {}) {
  const called: string[] = [];
  const command = (name: StepName) => async (args: readonly string[]) => {
    called.push(name);
    const out = valueOf(args, "out");
    hooks.before?.(name, out);
    const content = `${readFileSync(valueOf(args, "from"), "utf8")} ${name} ${valueOf(args, "weight-bits")}`;
    expect(existsSync(out)).toBe(false);
    if (name === "quantize") mkdirSync(out);
    writeFileSync(name === "quantize" ? path.join(out, "shard.bin") : out, content);
    rmSync(`${out}.partial`, { force: true });
    hooks.after?.(name);
  };
  const all = Object.fromEntries(
    (["calibrate", "sensitivity", "allocate", "quantize", "generate"] as const).map((name) => [name, command(name)]),
  ) as unknown as Commands;
  return { all, called };
}

/** Runs the chain and tells what was called. */
async function run(steps: readonly Step[], out: string): Promise<string[]> {
  printed.length = 0;
  const { all, called } = commands();
  await runSteps(steps, out, all);
  return called;
}

const times = (out: string): Record<string, number> =>
  Object.fromEntries(
    readdirSync(out, { recursive: true, encoding: "utf8" }).map((file) => [
      file,
      statSync(path.join(out, file)).mtimeMs,
    ]),
  );

const ALL = ["calibrate", "allocate", "quantize"];

describe("a chain", () => {
  const start = async () => {
    const [out, source] = [fresh(), textFile("prompts")];
    expect(await run(chain(out, source), out)).toEqual(ALL);
    const read = (name: string) => readFileSync(path.join(out, name), "utf8");
    return { out, source, read };
  };

  test("is made once", async () => {
    const { out, source, read } = await start();
    expect(printed).toEqual(ALL.map((name, i) => `${name}: done in 0 s (${i + 1} of 3)`));
    expect(read("pack/shard.bin")).toBe("prompts calibrate 4 allocate 4 quantize 4");
    const before = times(out);
    expect(await run(chain(out, source), out)).toEqual([]);
    expect(printed).toEqual(ALL.map((name, i) => `${name}: is there already (${i + 1} of 3)`));
    expect(times(out)).toEqual(before);
    expect(readdirSync(out).sort()).toEqual(["a.json", "b.json", "pack", "steps.json"]);
  });

  test("is made anew from the step on whose flag has changed", async () => {
    const { out, source, read } = await start();
    const before = times(out);
    expect(await run(chain(out, source, { allocate: "5" }), out)).toEqual(["allocate", "quantize"]);
    expect(printed[1]).toBe("allocate: made anew, for --weight-bits was 4 and is 5");
    expect(printed[3]).toBe("quantize: made anew, for b.json has changed");
    expect(read("pack/shard.bin")).toBe("prompts calibrate 4 allocate 5 quantize 4");
    expect(times(out)["a.json"]).toBe(before["a.json"]);
  });

  test("is made anew where what it was made of has changed, as far as that makes a difference", async () => {
    const { out, source } = await start();
    writeFileSync(source, "other prompts");
    expect(await run(chain(out, source), out)).toEqual(ALL);
    expect(printed[0]).toMatch(/^calibrate: made anew, for \d+\.txt has changed$/);
    rmSync(path.join(out, "a.json"));
    expect(await run(chain(out, source), out)).toEqual(["calibrate"]);
    expect(printed[0]).toBe("calibrate: made anew, for a.json is missing");
  });

  test("keeps what somebody has changed", async () => {
    const { out, source, read } = await start();
    for (const [edit, place] of [
      ["mine", "b.json.kept"],
      ["mine too", "b.json.kept2"],
    ] as const) {
      writeFileSync(path.join(out, "b.json"), edit);
      expect(await run(chain(out, source), out)).toEqual(["allocate"]);
      expect(printed[1]).toBe(`allocate: made anew, for b.json has changed; what was changed by hand is in ${place}`);
      expect(read(place)).toBe(edit);
    }
    writeFileSync(path.join(out, "pack/index.html"), "a page");
    writeFileSync(path.join(out, "notes.txt"), "a note");
    expect(await run(chain(out, source, { quantize: "8" }), out)).toEqual(["quantize"]);
    expect(readdirSync(path.join(out, "pack.kept")).sort()).toEqual(["index.html", "shard.bin"]);
    expect(readdirSync(path.join(out, "pack"))).toEqual(["shard.bin"]);
    expect(read("notes.txt")).toBe("a note");
  });

  test("takes away what a step writes no more", async () => {
    const { out, source, read } = await start();
    const [first, allocate, last] = chain(out, source);
    const texts = { "trials.txt": "a fox" };
    const with_ = {
      ...allocate!,
      texts,
      outputs: ["trials.txt", "b.json"],
      inputs: { ...allocate!.inputs, "trials.txt": { text: "a fox" } },
    };
    expect(await run([first!, with_, last!], out)).toEqual(["allocate"]);
    expect(printed[1]).toBe("allocate: made anew, for trials.txt is new");
    expect(read("trials.txt")).toBe("a fox");
    expect(await run([first!, with_, last!], out)).toEqual([]);
    expect(await run([first!, allocate!, last!], out)).toEqual(["allocate"]);
    expect(existsSync(path.join(out, "trials.txt"))).toBe(false);
  });

  test("is not begun over files that are somebody else's", async () => {
    for (const name of ["b.json", "pack.partial", "steps.json"]) {
      const [out, source] = [fresh(), textFile("prompts")];
      mkdirSync(out);
      writeFileSync(path.join(out, name), "mine");
      const { all, called } = commands();
      await expect(runSteps(chain(out, source), out, all)).rejects.toThrow(/Choose another --out, or move it away\.$/);
      expect(called).toEqual([]);
      expect(readdirSync(out)).toEqual([name]);
    }
  });

  test.each([
    ["cut short", (text: string) => text.slice(0, -9), "got something that is not JSON"],
    ["of another version", (text: string) => text.replace('"version": 1', '"version": 2'), 'got "version" 2'],
    [
      "damaged",
      (text: string) => text.replace(/"seconds": [\d.]+/, '"seconds": "0"'),
      'steps: calibrate: got "seconds" "0", expected a finite number',
    ],
  ])("is not begun where steps.json is %s", async (_, damage, says) => {
    const { out, source, read } = await start();
    writeFileSync(path.join(out, "steps.json"), damage(read("steps.json")));
    await expect(runSteps(chain(out, source), out, commands().all)).rejects.toThrow(says);
  });

  test("says which step has failed", async () => {
    const [out, source] = [fresh(), textFile("prompts")];
    const { all } = commands();
    const fail = async () => {
      throw new MixdqError("out-of-memory", "weights: no room.");
    };
    const error = await runSteps(chain(out, source), out, { ...all, allocate: fail }).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: "out-of-memory", message: "allocate: weights: no room." });
    expect(await run(chain(out, source), out)).toEqual(["allocate", "quantize"]);
  });
});

describe("a chain that is killed", () => {
  const killed = async (hooks: Parameters<typeof commands>[0]) => {
    const [out, source] = [fresh(), textFile("prompts")];
    await expect(runSteps(chain(out, source), out, commands(hooks).all)).rejects.toThrow(Killed);
    return { out, source };
  };
  const inside = (name: StepName) => ({
    before(called: string, out: string) {
      if (called !== name) return;
      writeFileSync(`${out}.partial`, "half");
      throw new Killed();
    },
  });

  test("inside a step goes on with what that has left", async () => {
    const { out, source } = await killed(inside("calibrate"));
    const seen: string[] = [];
    const { all, called } = commands({ before: (_, file) => void seen.push(`${existsSync(`${file}.partial`)}`) });
    printed.length = 0;
    await runSteps(chain(out, source), out, all);
    expect([called, seen]).toEqual([ALL, ["true", "false", "false"]]);
    expect(printed[0]).toBe("calibrate: was stopped, goes on");
  });

  test("counts the time before", async () => {
    const { out, source } = await killed(inside("calibrate"));
    const file = path.join(out, "steps.json");
    const json = JSON.parse(readFileSync(file, "utf8")) as { steps: { calibrate: { begun: string } } };
    // As if it had run for a minute, an hour ago.
    const then = Date.now() - 3600e3;
    json.steps.calibrate.begun = new Date(then).toISOString();
    writeFileSync(file, JSON.stringify(json));
    utimesSync(path.join(out, "a.json.partial"), new Date(), new Date(then + 60e3));
    await run(chain(out, source), out);
    expect(printed[1]).toBe("calibrate: done in 1 min 0 s (1 of 3)");
    const [first] = await runSteps(chain(out, source), out, commands().all);
    expect(first!.seconds).toBeGreaterThanOrEqual(60);
    expect(first!.seconds).toBeLessThan(70);
  });

  test("inside a step does not go on where the flags are others then", async () => {
    const { out, source } = await killed(inside("calibrate"));
    const seen: string[] = [];
    const { all, called } = commands({ before: (_, file) => void seen.push(`${existsSync(`${file}.partial`)}`) });
    await runSteps(chain(out, source, { calibrate: "5" }), out, all);
    expect([called, seen]).toEqual([ALL, ["false", "false", "false"]]);
  });

  test("inside a step that cannot go on begins that again", async () => {
    const { out, source } = await killed(inside("quantize"));
    expect(await run(chain(out, source), out)).toEqual(["quantize"]);
    expect(printed[2]).toBe("quantize: was stopped, begins again");
  });

  test.each(ALL)("as soon as %s has written its output has that", async (name) => {
    const { out, source } = await killed({
      after(called) {
        if (called === name) throw new Killed();
      },
    });
    expect(await run(chain(out, source), out)).toEqual(ALL.slice(ALL.indexOf(name) + 1));
    expect(printed[ALL.indexOf(name)]).toContain(`${name}: is there already`);
  });

  test("leaves nothing of files that were being written", async () => {
    const { out, source } = await killed(inside("allocate"));
    const ours = ["steps.json.12.partial", "b.json.12.partial", "b.json.partial.345.partial"];
    for (const name of [...ours, "b.json.12.txt", "c.json.12.partial"]) writeFileSync(path.join(out, name), "half");
    await run(chain(out, source), out);
    expect(readdirSync(out).sort()).toEqual([
      ...["a.json", "b.json", "b.json.12.txt", "c.json.12.partial", "pack", "steps.json"],
    ]);
  });
});
