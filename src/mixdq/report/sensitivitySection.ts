/** Two charts a group of what quantizing each layer alone costs: along the network, and by type of layer. */
import { axis, colorOf, INK, LINE, MUTED, type Chart } from "./charts.ts";
import { format, METRIC_NAMES, type ReportInput } from "./input.ts";
import { groupBy, inNetworkOrder, placeOf } from "./place.ts";
import { METRIC_OF, type Group } from "../allocation/sensitivity.ts";

const GROUP_TEXT: Readonly<Record<Group, string>> = {
  content: "Content layers (cross-attention and feed-forward), by the picture’s SSIM",
  quality: "Quality layers (all others), by the SQNR of the UNet’s output",
};
const SIZE = { width: 1140, height: 330 };
const GRID = { left: 70, right: 16, top: 26, bottom: 44 };
/** SSIM of two equal pictures is 1, which has no place on a logarithmic axis. */
const LEAST_LOSS = 1e-7;
/** How far one width's marks lie from the next one's, and how far they spread, in a type's place of width 1. */
const SLOT = 0.26;
const SPREAD = 0.2;

export function sensitivityCharts({ sensitivity, allocation }: ReportInput): Chart[] {
  return allocation.weights.programs.flatMap(({ group, candidates }) => {
    if (candidates.length === 0) return [];
    const values = new Map(
      candidates.map(({ path }) => [path, sensitivity.layers.get(path)!.weight.get(METRIC_OF[group])!]),
    );
    const paths = inNetworkOrder(values.keys());
    const widths = [...candidates[0].values.keys()].sort((a, b) => a - b);
    const isContent = group === "content";
    const y = (path: string, width: number): number => {
      const value = values.get(path)!.get(width)!;
      return isContent ? Math.max(1 - value, LEAST_LOSS) : value;
    };
    const heights = paths.flatMap((path) => widths.map((width) => y(path, width)));
    const [lowest, highest] = [heights.reduce((a, b) => Math.min(a, b)), heights.reduce((a, b) => Math.max(a, b))];
    const yAxis = isContent
      ? axis("1 − SSIM", {
          ...{ type: "log", inverse: true, min: lowest / 1.6, max: highest * 1.6, nameGap: 46 },
          axisLabel: { color: MUTED, fontSize: 11, showMinLabel: false, showMaxLabel: false, formatter: tick },
        })
      : axis("dB", { type: "value", scale: true, nameGap: 46 });

    const series = (x: (path: string, i: number, width: number) => number): object[] =>
      widths.map((width) => ({
        type: "scatter",
        name: `${width} bits`,
        symbolSize: 5,
        itemStyle: { color: colorOf(width) },
        data: paths.map((path, i) => ({
          value: [x(path, i, width), y(path, width)],
          itemStyle: { opacity: allocation.layers.get(path)?.weightBits === width ? 1 : 0.22 },
        })),
      }));
    const hint = (index: number, at: number): string => {
      const [path, width] = [paths[at], widths[index]];
      return `${path}\n${width} bits: ${METRIC_NAMES[group]} ${format(group, values.get(path)!.get(width)!)}`;
    };
    const legend = { top: 0, right: 16, textStyle: { color: INK }, itemWidth: 10, itemHeight: 10 };
    const common = { legend, grid: GRID, yAxis };
    const bare = { axisLabel: { show: false }, splitLine: { show: false }, axisTick: { show: false } };

    const [first, ...others] = series((_, i) => i);
    const along = [{ ...first, markLine: blockLines(paths, isContent ? "end" : "start") }, ...others];
    const alongAxis = axis("", { type: "value", min: -0.5, max: paths.length - 0.5, ...bare });

    const types = [...groupBy(paths, (path) => placeOf(path).type).keys()];
    const byType = series((path, i, width) => {
      const slot = (widths.indexOf(width) - (widths.length - 1) / 2) * SLOT;
      return types.indexOf(placeOf(path).type) + slot + ((((i * 7) % 13) - 6) / 13) * SPREAD;
    });
    const typeAxes = [
      axis("", { type: "value", min: -0.5, max: types.length - 0.5, show: false }),
      axis("", {
        ...{ type: "category", data: types, position: "bottom" },
        axisLabel: { color: MUTED, fontSize: 11, interval: 0, rotate: types.length > 9 ? 24 : 0 },
      }),
    ];
    return [
      {
        ...{ ...SIZE, name: `${group}-along`, title: `${GROUP_TEXT[group]}, along the network`, hint },
        option: { ...common, xAxis: alongAxis, series: along },
      },
      {
        ...{ ...SIZE, name: `${group}-types`, title: `${GROUP_TEXT[group]}, by type`, hint },
        option: {
          ...{ ...common, xAxis: typeAxes, series: byType },
          grid: { ...GRID, bottom: types.length > 9 ? 84 : 44, left: types.length > 9 ? 116 : GRID.left },
        },
      },
    ];
  });
}

/** Where blocks begin; names only of those with room for one. */
function blockLines(paths: readonly string[], position: "start" | "end"): object {
  const blocks = groupBy(paths.keys(), (i) => placeOf(paths[i]).block);
  const wide = [...blocks].filter(([, all]) => all.length > paths.length / 13);
  return {
    symbol: "none",
    silent: true,
    lineStyle: { color: LINE, type: "solid", width: 1 },
    label: { position, color: MUTED, fontSize: 10.5, distance: 7, align: "left", formatter: "{b}" },
    data: wide.map(([block, [first]]) => ({ name: block, xAxis: first! - 0.5 })),
  };
}

/** The topmost marks are of pictures that are equal, or as good as. */
function tick(value: number): string {
  return `${value < 1.01 * LEAST_LOSS ? "≤ " : ""}${power(value)}`;
}

/** 0.001 as 10⁻³. */
function power(value: number): string {
  const digits = `${Math.round(Math.log10(value))}`;
  return `10${[...digits].map((digit) => (digit === "-" ? "⁻" : SUPERSCRIPTS[Number(digit)])).join("")}`;
}

const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";
