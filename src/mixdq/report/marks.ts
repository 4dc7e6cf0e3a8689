/** Marks of whole allocations, alike on every chart, with labels that keep clear of each other. */
import { colorOf, INK, type Chart } from "./charts.ts";

export interface Mark {
  readonly name: string;
  readonly value: readonly number[];
}

type Side = "right" | "left" | "above" | "below";

interface Box {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

export interface Places {
  avoid(box: Box): void;
  /** For `labelLayout`. */
  beside(sides: readonly Side[]): (label: { rect: Box; labelRect: Box }) => object;
}

const FONT = { color: INK, fontSize: 11, lineHeight: 15 };
/** What the card's colour around letters keeps legible on top of other marks. */
const HALO = { textBorderColor: "var(--card)", textBorderWidth: 3 };
const LABEL = { show: true, formatter: ({ name }: Mark) => name, ...FONT, ...HALO };
/** Between a mark and its label. */
const DISTANCE = 5;
/** ECharts without a canvas guesses how wide letters are; some system fonts are wider. */
const SLACK = 1.2;
const LINES_OFF = [0, 1, 2, 3, 4, 5];

export function scatter(data: readonly Mark[], rest: object): object {
  return { type: "scatter", data, ...rest };
}

/** The baselines, each with its name. */
export function others(data: readonly Mark[], labelLayout: object): object {
  return scatter(data, { symbolSize: 7, itemStyle: { color: colorOf(2) }, label: LABEL, labelLayout, z: 3 });
}

/** The chosen one. */
export function ours(mark: Mark, labelLayout: object): object {
  const label = { ...LABEL, fontWeight: 600 };
  return scatter([mark], {
    symbol: "diamond",
    symbolSize: 14,
    itemStyle: { color: colorOf(8) },
    label,
    labelLayout,
    z: 4,
  });
}

/**
 * For one chart: each label, in the order of the series, takes the first of `sides` of its mark that is within the chart’s
 * axes and free of earlier labels, of their marks, and of what is to be avoided; else one some lines further off.
 * (ECharts' own `moveOverlap` does nothing to labels that are attached to marks.)
 */
export function placeLabels(
  chart: Pick<Chart, "width" | "height">,
  axes: { readonly left: number; readonly bottom: number },
): Places {
  const floor = chart.height - axes.bottom + FONT.lineHeight / 2;
  const taken: Box[] = [];
  const isFree = ({ box }: Place): boolean =>
    box.x >= axes.left &&
    box.y >= 0 &&
    box.x + box.width <= chart.width &&
    box.y + box.height <= floor &&
    !taken.some((other) => overlap(box, other));
  return {
    avoid: (box) => taken.push(box),
    beside:
      (sides) =>
      ({ rect, labelRect }) => {
        const width = SLACK * labelRect.width;
        const places = LINES_OFF.flatMap((lines) => sides.flatMap((side) => placesAt(side, rect, width, lines)));
        const { box, align } = places.find(isFree) ?? places[0];
        taken.push(rect, box);
        const x = { left: box.x, center: box.x + width / 2, right: box.x + width }[align];
        return { x, y: box.y + box.height / 2, align, verticalAlign: "middle" };
      },
  };
}

interface Place {
  readonly box: Box;
  readonly align: "left" | "center" | "right";
}

function placesAt(side: Side, mark: Box, width: number, lines: number): Place[] {
  const height = FONT.lineHeight;
  const [centerX, top] = [mark.x + mark.width / 2, mark.y + mark.height / 2 - height / 2];
  const off = lines * height;
  const place = (align: Place["align"], x: number, y: number): Place => ({ align, box: { x, y, width, height } });
  if (side === "above") return [place("center", centerX - width / 2, mark.y - DISTANCE - height - off)];
  if (side === "below") return [place("center", centerX - width / 2, mark.y + mark.height + DISTANCE + off)];
  const [align, x] =
    side === "right"
      ? (["left", mark.x + mark.width + DISTANCE] as const)
      : (["right", mark.x - DISTANCE - width] as const);
  return (off === 0 ? [0] : [off, -off]).map((by) => place(align, x, top + by));
}

function overlap(a: Box, b: Box): boolean {
  return a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;
}
