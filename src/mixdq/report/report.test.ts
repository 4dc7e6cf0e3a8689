import { expect, test } from "vitest";
import { allocate } from "../allocation/allocate.ts";
import { baselines } from "../allocation/baselines.ts";
import type { Choice } from "../allocation/choice.ts";
import { onlyGroup, sampleSensitivity } from "../allocation/samples.testing.ts";
import type { Sensitivity } from "../allocation/sensitivity.ts";
import { sweep } from "../allocation/sweep.ts";
import { sampleChoice } from "./samples.testing.ts";
import { renderReport, type SamplePicture } from "./report.ts";

interface Extras {
  readonly pictures?: readonly SamplePicture[];
  /** Of made-up figures; what is returned is in the report. */
  readonly choice?: (made: Choice) => Choice;
  readonly judged?: boolean;
}

async function reportOf(sensitivity: Sensitivity, { pictures, choice, judged }: Extras = {}): Promise<string> {
  const weightBits = 4.5;
  const allocation = await allocate(sensitivity, { weightBits, protectedAs: "float", certify: false });
  const { programs, chosen } = allocation.weights;
  const bits = new Map(chosen.groups.flatMap((solution) => [...solution.bits]));
  const points = await sweep(programs, weightBits, { budgets: 3, ratios: 8, below: 0.2 });
  const others = await baselines(programs, sensitivity.layers, bits, weightBits, 0);
  return renderReport({
    ...{ sensitivity, allocation, weightBits, points, baselines: others },
    ...(pictures && { pictures }),
    ...(choice && { choice: choice(await sampleChoice(programs, points, others, { judged: judged ?? true })) }),
  });
}

/** Rows of the table of the section, as cells. */
function trialRows(page: string): string[][] {
  const body = /<table class="compared measured">.*?<tbody>(.*?)<\/tbody>/s.exec(page)![1];
  const text = (html: string): string => html.replace(/<[^>]+>/g, "").trim();
  return [...body.matchAll(/<tr>(.*?)<\/tr>/g)].map(([, row]) => row!.split("</td>").slice(0, -1).map(text));
}

test("a page on its own: every layer on the map, every mark with its hint, nothing from elsewhere", async () => {
  const sensitivity = sampleSensitivity(3, 4);
  const page = await reportOf(sensitivity);
  const without = page.replaceAll("http://www.w3.org/2000/svg", "").replaceAll("http://www.w3.org/1999/xlink", "");
  expect(without).not.toMatch(/https?:|\/\/[a-z]|@import|url\((?!#)|<script|<link|\son[a-z]+=/i);
  expect(page.match(/class="cell b/g)).toHaveLength(sensitivity.layers.size);
  for (const path of sensitivity.layers.keys()) expect(page).toContain(`<title>${path}\n`);
  // A mark for every layer at every width, along the network and by type.
  expect(page.match(/<title>down_blocks[^\n<]*\n\d bits: (?:SSIM|SQNR \(dB\)) [\d.-]+<\/title>/g)!.length).toBe(
    2 * [...sensitivity.layers.values()].reduce((sum, { group }) => sum + (group === "content" ? 3 : 2), 0) -
      2 * (3 + 2), // two layers are in float, and not among the candidates
  );
  for (const name of ["uniform 4-bit", "naive sorting", "SQNR only", "random", "perturbed", "chosen"])
    expect(page).toContain(`<td>${name}</td>`);
  expect(page).not.toMatch(/NaN|undefined|Infinity|ecmeta|zr\d/);
  const ids = [...page.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id);
  expect(new Set(ids).size).toBe(ids.length);
  expect(await reportOf(sensitivity)).toBe(page);
});

test("one group alone has its report too", async () => {
  for (const group of ["content", "quality"] as const) {
    const page = await reportOf(onlyGroup(sampleSensitivity(2, 4), group));
    expect(page).not.toMatch(/NaN|undefined|Infinity/);
    expect(page.match(/<figure>/g)).toHaveLength(3);
  }
});

test("names are text, pictures are in the page", async () => {
  const sensitivity = { ...sampleSensitivity(2, 4), model: `<img src=x onerror="alert(1)">` };
  const evil = "x\"><script>alert('1')</script>";
  const layers = new Map([...sensitivity.layers, [evil, [...sensitivity.layers.values()][0]]]);
  const title = "a <b>red</b> house";
  const pictures = [{ title, reference: Uint8Array.of(1, 2, 3), quantized: Uint8Array.of(255) }];
  const page = await reportOf({ ...sensitivity, layers }, { pictures });
  expect(page).not.toMatch(/<script|<img src=x|<b>red/);
  expect(page).toContain("&#60;script&#62;");
  expect(page).toContain('src="data:image/png;base64,AQID"');
  expect(page).toContain('src="data:image/png;base64,/w=="');
});

test("the choice by pictures: the chosen one, the baselines, the others as they were left", async () => {
  const sensitivity = sampleSensitivity(3, 4);
  let given: Choice | undefined;
  const choice = (made: Choice): Choice => (given = made);
  const page = await reportOf(sensitivity, { choice });
  const { trials, baselines } = given!;
  expect(trials.length).toBeGreaterThan(4);
  const rows = trialRows(page);
  const [first, ...rest] = trials;
  expect(rows.map(([name]) => name)).toEqual(
    [{ name: `chosen: ${first!.name}` }, ...baselines, ...rest].map(({ name }) => name),
  );
  const { ssim, psnr } = first!.scores;
  expect(rows[0]).toEqual([
    ...[`chosen: ${first!.name}`, first!.averageBits.toFixed(4), "64"],
    `${ssim.value.toFixed(4)} ${ssim.low.toFixed(4)} to ${ssim.high.toFixed(4)}`,
    ...[4, 5, 6].map(() => expect.stringMatching(/^[\d.]+ [\d.]+ to [\d.]+$/)),
    expect.stringMatching(/^1\d\d\.\d 1\d\d\.\d to \d{3}\.\d$/),
  ]);
  expect(rows.at(-1)![2]).toBe("16");
  const quarter = trials.filter(({ scores }) => scores.prompts >= 16).length;
  const half = trials.filter(({ scores }) => scores.prompts >= 32).length;
  const caption = page.slice(page.indexOf("Choice by pictures")).replace(/\s+/g, " ");
  expect(caption).toContain(
    `a quarter of the prompts (16) for all ${quarter}, half (32) for the better ${half}, all (64)`,
  );
  // Every trial has its mark, which says its name, and its whiskers; fewer pictures are paler.
  for (const { name, scores } of [...trials, ...baselines])
    expect(page).toContain(`<title>${name}\nSSIM ${scores.ssim.value.toFixed(4)} (`);
  const chart = /<svg[^>]*aria-label="SSIM of the pictures.*?<\/svg>/s.exec(page)![0];
  const whiskers = [...chart.matchAll(/d="(?:M[^M"]+){3}" fill="none" stroke="(.*?)"(?: stroke-opacity="(.*?)")?>/g)];
  const pale = { 64: "1", 32: "0.62", 16: "0.38" } as Record<number, string>;
  expect(whiskers.map(([, color, opacity = "1"]) => [color, opacity])).toEqual([
    ["var(--b8)", "1"],
    ...rest.map(({ scores }) => ["var(--ink)", pale[scores.prompts]]),
    ...baselines.map(() => ["var(--b2)", "1"]),
  ]);
  // Tiles and the table of the chosen configuration.
  expect(page).toContain(`<b>${ssim.value.toFixed(4)}</b><span>SSIM against FP16, 64 pictures (`);
  expect(page).toContain(`<b>${psnr.value.toFixed(1)} dB</b>`);
  expect(page).toContain("alignment with the prompts");
  expect(page).toMatch(/<h2>The chosen configuration<\/h2><div class="scroll"><table class=""><thead><tr><th>pictures/);
  expect(page).not.toMatch(/NaN|undefined|Infinity|ecmeta|zr\d/);
  expect(await reportOf(sensitivity, { choice })).toBe(page);
});

test("without a judge there are no columns for it; names of trials are text", async () => {
  const evil = "<img src=x onerror='alert(1)'>&{c}";
  const rename = <T extends { readonly name: string }>(trial: T): T => ({ ...trial, name: evil });
  const choice = (made: Choice): Choice => ({ trials: made.trials.map(rename), baselines: made.baselines.map(rename) });
  const page = await reportOf(sampleSensitivity(2, 4), { choice, judged: false });
  expect(page).not.toMatch(/<img|alignment|Fréchet/);
  expect(page).toContain("<td>&#60;img src=x onerror=&#39;alert(1)&#39;&#62;&#38;{c}</td>");
  expect(trialRows(page)[0]).toHaveLength(6);
});

test("some judged and some not, one trial alone, pictures that are equal, one group", async () => {
  const judgedFirst = ({ trials, baselines }: Choice): Choice => {
    const { alignment, frechet, ...scores } = baselines[0].scores;
    expect(alignment && frechet).toBeDefined();
    return { trials: trials.slice(0, 1), baselines: [{ ...baselines[0], scores }] };
  };
  const page = await reportOf(sampleSensitivity(2, 4), { choice: judgedFirst });
  expect(trialRows(page)[1].slice(-2)).toEqual(["–", "–"]);
  expect(page).toContain("One allocation of the sweep beats all others");

  const exact = { value: 1, low: 1, high: 1 };
  const equal = ({ trials }: Choice): Choice => ({
    trials: trials.map((trial) => ({ ...trial, scores: { ...trial.scores, ssim: exact } })),
    baselines: [],
  });
  for (const group of ["content", "quality"] as const) {
    const alone = await reportOf(onlyGroup(sampleSensitivity(2, 4), group), { choice: equal });
    expect(alone).not.toMatch(/NaN|undefined|Infinity/);
    expect(alone).toContain(`${group === "content" ? "SSIM" : "SQNR"} range kept (%)`);
    expect(alone).not.toContain("baselines</span>");
  }
});
