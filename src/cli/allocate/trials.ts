/** Pictures of allocations beside FP16's, as many as it takes to tell which is best: `mixdq allocate --prompts`. */
import type { Contender, PictureScores } from "../../mixdq/allocation/choice.ts";
import type { SamplePicture } from "../../mixdq/report/report.ts";
import { readModel } from "../../model/description.ts";
import { checkRequest } from "../../model/request.ts";
import { encodePixels } from "../../api/image.ts";
import * as figures from "../../mixdq/quality/figures.ts";
import type { Picture } from "../../mixdq/quality/picture.ts";
import { assertReadable } from "../../mixdq/quality/reader.ts";
import type { MixdqConfig } from "../../quant/config.ts";
import { requestNodeGpu } from "../../node/adapter.ts";
import { diskFiles } from "../../node/diskFiles.ts";
import { hashedFiles } from "../../node/hashedFiles.ts";
import { nameOf } from "../../node/inputFiles.ts";
import { choosePrompts, findJudge } from "../judging.ts";
import type { RunFlags } from "../options.ts";
import { makePictures } from "../pictures.ts";

export interface TrialOptions {
  readonly run: RunFlags;
  /** A diffusers folder. */
  readonly model: string;
  /** As the flag has it: so many of the judge's last, or a file. */
  readonly prompts: string;
  readonly judge: string | undefined;
  readonly firstSeed: number;
  /** What a contender's widths are as a configuration. */
  readonly configOf: (bits: Contender["bits"]) => MixdqConfig;
}

export interface Trials {
  /** How many prompts there are. */
  readonly count: number;
  /** Draws FP16's pictures; everything else comes after. */
  begin(onPicture: () => void): Promise<void>;
  /** Draws what has not been drawn yet of the first `prompts`; `onPicture` after each. */
  score(contender: Contender, prompts: number, onPicture: () => void): Promise<PictureScores>;
  /** The first of FP16's pictures beside the contender's, PNG. */
  samples(contender: Contender): SamplePicture[];
  /** What was drawn, for those who want to do it again. */
  provenance(): Readonly<Record<string, unknown>>;
}

/** Pictures that a report shows. */
const SHOWN = 6;

/** What a contender's pictures were like so far. */
interface Drawn {
  readonly closeness: figures.Closeness[];
  readonly judged: figures.Judged[];
  readonly shown: Picture[];
}

/** Throws `invalid-input` before anything is drawn. */
export async function openTrials({
  run,
  model: folder,
  judge: asked,
  firstSeed,
  configOf,
  ...options
}: TrialOptions): Promise<Trials> {
  const files = hashedFiles(await diskFiles(folder));
  const model = await readModel(files);
  const available = await findJudge(asked, folder);
  const { prompts, source } = await choosePrompts(options.prompts, available, "last");
  const judge = prompts[0].attributes && available;
  const settings = checkRequest({ prompt: prompts[0].prompt, seed: firstSeed + prompts.length - 1 }, model);
  if (judge) assertReadable(settings, judge.description.size);

  const engine = { ...run, gpu: await requestNodeGpu(run.adapter), files };
  const reference: Picture[] = [];
  let adapter = "";
  const drawnOf = new Map<string, Drawn>();
  const drawn = ({ bits }: Contender): Drawn => {
    const key = JSON.stringify([...bits]);
    const known = drawnOf.get(key) ?? { closeness: [], judged: [], shown: [] };
    drawnOf.set(key, known);
    return known;
  };
  return {
    count: prompts.length,
    async begin(onPicture) {
      const task = { prompts, firstSeed, judge };
      const { info } = await makePictures(task, { ...engine, precision: "fp16" }, (picture) => {
        reference.push(picture);
        onPicture();
      });
      adapter = info.adapter;
    },
    async score(contender, count, onPicture) {
      const { closeness, judged, shown } = drawn(contender);
      const from = closeness.length;
      if (from < count) {
        const task = { prompts: prompts.slice(from, count), firstSeed: firstSeed + from, judge };
        const made = await makePictures(task, { ...engine, config: configOf(contender.bits) }, (picture) => {
          closeness.push(figures.closenessOf(reference[closeness.length], picture));
          if (shown.length < SHOWN) shown.push(picture);
          onPicture();
        });
        judged.push(...made.judged);
      }
      const pictures = judged.slice(0, count);
      // A Fréchet distance of fewer pictures than features says nothing.
      const hasSpread = judge && count > judge.description.features;
      return {
        prompts: count,
        ...figures.comparedFigures(closeness.slice(0, count)),
        ...(hasSpread && figures.judgedFigures(pictures, judge.statistics)),
        ...(judge && !hasSpread && { alignment: figures.alignmentFigure(pictures) }),
      };
    },
    samples: (contender) =>
      drawn(contender).shown.map((picture, i) => ({
        title: prompts[i].prompt,
        reference: encodePixels(reference[i], {}),
        quantized: encodePixels(picture, {}),
      })),
    provenance: () => ({
      model: nameOf(folder),
      modelSha256: files.digest(),
      prompts: { source: nameOf(source), count: prompts.length, ...(/^\d+$/.test(options.prompts) && { end: "last" }) },
      seeds: { first: firstSeed, last: firstSeed + prompts.length - 1 },
      comparedWith: "fp16 with the same seeds",
      adapter,
      ...(judge && { judge: judge.provenance }),
    }),
  };
}
