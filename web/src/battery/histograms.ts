// How voltage, current and temperature are distributed over the chosen range, counted by the hub.
import { getJson } from "../api";
import { fill, h } from "../dom";
import { significant } from "../format";
import { Chart } from "./chart";
import type { View } from "./view";

interface Histogram {
  from: number | null;
  width: number;
  counts: number[];
}

const BINS = 60;
const SHOWN: [string, string, string][] = [
  ["voltage", "Voltage", "V"],
  ["current", "Current", "A"],
  ["temperature", "Temperature", "°C"],
];

export class Histograms {
  readonly element = h("section", { class: "card" });
  private readonly charts = new Map<string, Chart>();
  private columns: string[] = [];

  constructor(
    private readonly battery: string,
    private readonly view: View,
  ) {}

  offer(columns: string[]): void {
    this.columns = SHOWN.map(([column]) => column).filter((column) => columns.includes(column));
    for (const [column, title, unit] of SHOWN) {
      if (!this.columns.includes(column) || this.charts.has(column)) continue;
      const options = { title, unit, bars: true, height: 120, xText: (x: number) => `${significant(x, 4)} ${unit}` };
      this.charts.set(column, new Chart({ ...options, lines: [{ label: "rows", colour: "accent" }] }));
    }
    const grid = h("div", { class: "charts" }, ...[...this.charts.values()].map((chart) => chart.element));
    fill(this.element, h("h2", {}, "Distribution in this range"), grid);
  }

  list(): Chart[] {
    return [...this.charts.values()];
  }

  async load(signal: AbortSignal): Promise<void> {
    if (this.columns.length === 0) return;
    const query = this.view.query();
    query.set("bins", String(BINS));
    for (const column of this.columns) query.append("column", column);
    const path = `/db/${encodeURIComponent(this.battery)}/histogram?${query}`;
    const found = await getJson<{ columns: Record<string, Histogram> }>(path, signal);
    for (const [column, chart] of this.charts) {
      const one = found.columns[column];
      const from = one?.from ?? 0;
      const middles = (one?.counts ?? []).map((_, at) => from + (at + 0.5) * (one?.width ?? 0));
      chart.set(middles, [one?.counts ?? []]);
    }
  }
}
