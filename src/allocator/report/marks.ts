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

export type PlaceLabels = (sides: readonly Side[]) => (label: { rect: Box; labelRect: Box }) => object;

const FONT = { color: INK, fontSize: 11, lineHeight: 15 };
/** What the card's colour around letters keeps legible on top of other marks. */
const HALO = { textBorderColor: "var(--card)", textBorderWidth: 3 };
const LABEL = { show: true, formatter: ({ name }: Mark) => name, ...FONT, ...HALO };
/** Between a mark and its label. */
const DISTANCE = 5;
/** ECharts without a canvas guesses how wide letters are; some system fonts are wider. */
const SLACK = 1.2;

export function scatter(data: readonly Mark[], rest: object): object {
  return { type: "scatter", data, ...rest };
}

/** The plainer ways, each with its name. */
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
 * For one chart: labels, in the order of its series, take the first of `sides` of their mark that is on the chart and
 * free of earlier labels and marks, else one further up or down. (ECharts' own `moveOverlap` does nothing to labels that
 * are attached to marks.)
 */
export function placeLabels({ width, height }: Pick<Chart, "width" | "height">): PlaceLabels {
  const taken: Box[] = [];
  const isFree = (box: Box): boolean =>
    box.x >= 0 &&
    box.y >= 0 &&
    box.x + box.width <= width &&
    box.y + box.height <= height &&
    !taken.some((other) => overlap(box, other));
  return (sides) =>
    ({ rect, labelRect }) => {
      const size = { width: SLACK * labelRect.width, height: FONT.lineHeight };
      const beside = sides.map((side) => boxAt(side, rect, size));
      const shifted = [1, -1, 2, -2, 3, -3].map((lines) => ({ ...beside[0]!, y: beside[0]!.y + lines * size.height }));
      const box = [...beside, ...shifted].find(isFree) ?? beside[0]!;
      taken.push(rect, box);
      return { x: box.x, y: box.y + box.height / 2, align: "left", verticalAlign: "middle" };
    };
}

function boxAt(side: Side, mark: Box, { width, height }: Pick<Box, "width" | "height">): Box {
  const [centerX, centerY] = [mark.x + mark.width / 2, mark.y + mark.height / 2];
  const x = { right: mark.x + mark.width + DISTANCE, left: mark.x - DISTANCE - width };
  const y = { above: mark.y - DISTANCE - height, below: mark.y + mark.height + DISTANCE };
  return side === "right" || side === "left"
    ? { x: x[side], y: centerY - height / 2, width, height }
    : { x: centerX - width / 2, y: y[side], width, height };
}

function overlap(a: Box, b: Box): boolean {
  return a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;
}
