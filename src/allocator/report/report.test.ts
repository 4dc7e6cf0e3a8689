import { expect, test } from "vitest";
import { allocate } from "../allocate.ts";
import { baselines } from "../baselines.ts";
import { onlyGroup, sampleSensitivity } from "../samples.testing.ts";
import type { Sensitivity } from "../sensitivity.ts";
import { sweep } from "../sweep.ts";
import { renderReport, type SamplePicture } from "./report.ts";

async function reportOf(sensitivity: Sensitivity, pictures: readonly SamplePicture[] = []): Promise<string> {
  const weightBits = 4.5;
  const allocation = await allocate(sensitivity, { weightBits, protectedAs: "float", certify: false });
  const { programs, chosen } = allocation.weights;
  const bits = new Map(chosen.groups.flatMap((solution) => [...solution.bits]));
  return renderReport({
    sensitivity,
    allocation,
    weightBits,
    points: await sweep(programs, weightBits, { budgets: 3, ratios: 4, below: 0.2 }),
    baselines: await baselines(programs, sensitivity.layers, bits, weightBits, 0),
    pictures,
  });
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
  const layers = new Map([...sensitivity.layers, [evil, [...sensitivity.layers.values()][0]!]]);
  const title = "a <b>red</b> house";
  const pictures = [{ title, reference: Uint8Array.of(1, 2, 3), quantized: Uint8Array.of(255) }];
  const page = await reportOf({ ...sensitivity, layers }, pictures);
  expect(page).not.toMatch(/<script|<img src=x|<b>red/);
  expect(page).toContain("&#60;script&#62;");
  expect(page).toContain('src="data:image/png;base64,AQID"');
  expect(page).toContain('src="data:image/png;base64,/w=="');
});
