/**
 * Charts as SVG text that needs neither scripts nor a DOM: Apache ECharts in its server mode, with the page's colours as
 * CSS variables, so that one picture serves light and dark.
 */
import type { EChartsCoreOption } from "echarts/core";
import { importOptional } from "../../base/optional.ts";
import { escape } from "./html.ts";

export interface Chart {
  /** Unique on the page: becomes a part of ids. */
  readonly name: string;
  readonly title: string;
  readonly width: number;
  readonly height: number;
  readonly option: EChartsCoreOption;
  /** What a pointer on a mark shows. */
  readonly hint?: (series: number, index: number) => string | undefined;
}

export type DrawChart = (chart: Chart) => string;

export const INK = "var(--ink)";
export const MUTED = "var(--muted)";
export const LINE = "var(--line)";
export const colorOf = (bits: number): string => `var(--b${bits})`;

/** Loads ECharts, 1 MB of modules that only a report needs. */
export async function loadCharts(): Promise<DrawChart> {
  const load = () =>
    Promise.all([
      import("echarts/core"),
      import("echarts/charts"),
      import("echarts/components"),
      import("echarts/features"),
      import("echarts/renderers"),
    ]);
  const [core, charts, components, features, renderers] = await importOptional(load, "echarts", "A report's charts");
  core.use([charts.ScatterChart, charts.LineChart, charts.CustomChart, components.GridComponent]);
  core.use([components.LegendComponent, components.MarkLineComponent, features.LabelLayout, renderers.SVGRenderer]);
  return ({ name, title, width, height, option, hint }) => {
    const chart = core.init(null, null, { renderer: "svg", ssr: true, width, height });
    try {
      const textStyle = { color: INK, fontFamily: "system-ui, sans-serif" };
      chart.setOption({ animation: false, backgroundColor: "transparent", textStyle, ...option });
      return finish(chart.renderToSVGString(), { name, title, hint });
    } finally {
      chart.dispose();
    }
  };
}

/** An axis in the page's colours. */
export function axis(name: string, rest: object = {}): object {
  return {
    name,
    nameLocation: "middle",
    nameTextStyle: { color: MUTED, fontSize: 12 },
    axisLine: { onZero: false, lineStyle: { color: LINE } },
    axisTick: { lineStyle: { color: LINE } },
    axisLabel: { color: MUTED, fontSize: 11 },
    splitLine: { lineStyle: { color: LINE } },
    minorTick: { show: false },
    ...rest,
  };
}

/** Hints become the titles that browsers show; what only ECharts' own scripts would need goes. */
function finish(svg: string, { name, title, hint }: Pick<Chart, "name" | "title" | "hint">): string {
  return svg
    .replace(/<style[\s\S]*?<\/style>/g, "")
    .replace(/ class="zr\d+-cls-\d+"/g, "")
    .replace(/zr\d+-/g, `${name}-`) // its own numbers count up from chart to chart
    .replace(/^<svg width="\d+" height="\d+"/, `<svg role="img" aria-label="${escape(title)}"`)
    .replace(/<path([^>]*ecmeta_ssr_type="chart"[^>]*)><\/path>/g, (whole, attributes: string) => {
      const [series, index] = [/series_index="(\d+)"/, /data_index="(\d+)"/].map((key) => key.exec(attributes)?.[1]);
      // Lines between blocks say that they are marks too; only marks are filled.
      if (series === undefined || index === undefined || attributes.includes('fill="none"')) return whole;
      const text = hint?.(Number(series), Number(index));
      return text === undefined ? whole : `<path${attributes}><title>${escape(text)}</title></path>`;
    })
    .replace(/ (?:ecmeta_\w+|pointer-events)="[^"]*"/g, "")
    .replace(/\n+/g, "\n");
}
