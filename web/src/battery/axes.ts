// The axes of a chart: which steps they take and how their labels read.
import uPlot from "uplot";
import { count } from "../format";
import { colour } from "../shell";
import type { ChartOptions } from "./chart";
import type { Axis } from "./view";

const FONT = "11px system-ui, 'DejaVu Sans', sans-serif";
const SECOND_STEPS = [
  0.001, 0.01, 0.1, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200,
  86_400, 172_800, 432_000, 864_000, 2_592_000, 8_640_000, 31_536_000,
];
/** From here on labels are written as 40M, so that they fit. */
const LONG = 1e6;
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });

let palette = new Map<string, string>();

/** The theme changed: colours are looked up anew. */
export function forgetColours(): void {
  palette = new Map();
}

export function paint(name: string): string {
  let found = palette.get(name);
  if (!found) palette.set(name, (found = colour(name)));
  return found;
}

export function faint(name: string, share: number): string {
  return paint(name).replace(/^rgba?\(([^)]+)\)$/, (_, inner: string) => `rgba(${inner.split(",").slice(0, 3).join(",")}, ${share})`);
}

function look(): uPlot.Axis {
  const grid = { stroke: () => paint("faint"), width: 1 };
  return { stroke: () => paint("soft"), grid, ticks: { show: false }, font: FONT };
}

export function xAxis(options: ChartOptions, axis: Axis | null): uPlot.Axis {
  const place = { ...look(), size: 28, gap: 8 };
  if (options.points) {
    // Cycles are counted: there is none between two.
    const values = (_: uPlot, splits: number[]) => splits.map((x) => options.xText?.(x) ?? "");
    return { ...place, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000], space: 70, values };
  }
  if (axis === "received") return { ...place, space: 84, values: (_, splits) => clocks(splits) };
  if (axis !== "test_time") return { ...place, values: (_, splits) => decimals(splits, count) };
  const values = (plot: uPlot, splits: number[]) => {
    const range = plot.scales.x!.max! - plot.scales.x!.min!;
    return splits.map((x) => elapsed(x, stepOf(splits), range));
  };
  return { ...place, space: 66, incrs: SECOND_STEPS, values };
}

export function yAxis({ words }: ChartOptions): uPlot.Axis {
  const place = { ...look(), size: 58, gap: 4, space: 22 };
  if (words) return { ...place, incrs: [1], values: (_, splits) => splits.map((y) => words[y] ?? "") };
  const plain = (y: number) => (Math.abs(y) < LONG ? y.toFixed(0) : short.format(y));
  return { ...place, values: (_, splits) => decimals(splits, plain) };
}

function stepOf(splits: number[]): number {
  return Math.abs((splits[1] ?? 1) - (splits[0] ?? 0)) || 1;
}

/** Labels with the digits that tell them apart; whole ones in a way of their own. */
function decimals(splits: number[], whole: (value: number) => string): string[] {
  const digits = digitsOf(stepOf(splits));
  return splits.map((value) => (digits === 0 ? whole(value) : value.toFixed(digits)).replace("-", "−"));
}

/** Digits behind the point that a step between two labels needs. */
function digitsOf(step: number): number {
  let digits = 0;
  while (digits < 9 && Math.abs(step * 10 ** digits - Math.round(step * 10 ** digits)) > 1e-6 * 10 ** digits * step) digits++;
  return digits;
}

/** Seconds of a test in the unit that suits the step between two labels. */
function elapsed(x: number, step: number, range: number): string {
  const units: [number, string][] = [[86_400, "d"], [3600, "h"], [60, "min"]];
  for (const [width, unit] of units) {
    if (range >= 2 * width && Number.isInteger((step / width) * 4)) return `${Number((x / width).toFixed(2))} ${unit}`;
  }
  return `${Number(x.toFixed(3))} s`;
}

/** Moments of the reader's clock: the date stands where a day begins, and at the first label. */
function clocks(splits: number[]): string[] {
  const step = stepOf(splits);
  const two = (n: number) => String(n).padStart(2, "0");
  let before = "";
  return splits.map((seconds) => {
    const at = new Date(seconds * 1000);
    const day = `${two(at.getMonth() + 1)}-${two(at.getDate())}`;
    let time = `${two(at.getHours())}:${two(at.getMinutes())}`;
    if (step < 60) time += `:${two(at.getSeconds())}`;
    if (step < 1) time += `.${String(at.getMilliseconds()).padStart(3, "0")}`;
    const isNewDay = day !== before;
    before = day;
    if (step >= 86_400) return `${at.getFullYear()}-${day}`;
    return isNewDay ? `${day} ${time}` : time;
  });
}
