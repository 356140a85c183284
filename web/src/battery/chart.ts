// A small chart with its title, its newest or pointed-at value, and keys to move in it.
import uPlot from "uplot";
import { h, setText } from "../dom";
import { NONE, count, moment, significant, testTime } from "../format";
import { faint, forgetColours, paint, xAxis, yAxis } from "./axes";
import type { Axis, View } from "./view";

export interface Line {
  label: string;
  /** Name of a colour of the style sheet. */
  colour: string;
}

export interface ChartOptions {
  title: string;
  unit: string;
  /** What values are multiplied by before they are shown. */
  scale?: number;
  lines?: Line[];
  /** Whether columns are mean, lower and upper end of a band. */
  band?: boolean;
  bars?: boolean;
  points?: boolean;
  /** Names of the whole numbers from 0 on that the values are. */
  words?: string[];
  /** Whether a few outliers may be cut off, so that the rest can be seen. */
  isRobust?: boolean;
  height?: number;
  /** Linked to the view's range; else the whole of its data is shown. */
  view?: View;
  xText?: (x: number) => string;
}

type Column = (number | null)[];

const HEIGHT = 130;
/** In widths of the band. */
const OUTLIER = 4;
/** As a share of the largest value. */
const NOTHING = 1e-9;
const charts = new Set<Chart>();

window.addEventListener("themechange", () => {
  forgetColours();
  for (const chart of charts) chart.redraw();
});

export class Chart {
  readonly element: HTMLElement;
  private readonly reading = h("span", { class: "reading" });
  private readonly place = h("div", {});
  private readonly none = h("div", { class: "empty-chart", hidden: true }, "no values in this range");
  private readonly lines: Line[];
  private plot: uPlot | null = null;
  private data: uPlot.AlignedData = [[], []];
  private axis: Axis | null = null;
  private largest = 0;

  constructor(readonly options: ChartOptions) {
    this.lines = options.lines ?? [{ label: options.title, colour: "accent" }];
    const unit = options.unit && h("span", { class: "soft" }, options.unit);
    const legend = this.lines.length > 1 ? this.lines.map((line) => legendOf(line)) : [];
    this.element = h(
      "figure",
      { class: "chart", tabindex: "0", role: "group", style: null },
      h("figcaption", { class: "title" }, h("h3", {}, options.title), unit, ...legend, this.reading),
      this.place,
      this.none,
    );
    this.element.style.margin = "0";
    if (options.view) this.addKeys(options.view);
    new ResizeObserver(() => this.resize()).observe(this.element);
    charts.add(this);
  }

  /** Shows other values: places along the axis, and a column for each line (mean, low, high for a band). */
  set(x: number[], columns: Column[]): void {
    const scale = this.options.scale ?? 1;
    const scaled = columns.map((column) => column.map((value) => (value === null ? null : value * scale)));
    // Places of its own: charts share them, and each adds what comes.
    this.data = [[...x], ...scaled] as uPlot.AlignedData;
    this.largest = (scaled[0] ?? []).reduce<number>((most, value) => Math.max(most, Math.abs(value ?? 0)), 0);
    const hasValues = scaled[0]?.some((value) => value !== null) ?? false;
    this.none.hidden = hasValues;
    this.place.hidden = !hasValues;
    if (!hasValues) {
      setText(this.reading, "");
      this.element.setAttribute("aria-label", `${this.options.title}: no values in this range`);
      return;
    }
    if (!this.plot || this.axis !== (this.options.view?.axis ?? null)) this.make();
    else this.plot.setData(this.data, false);
    this.frame();
    this.read(null);
    this.describe();
  }

  /** Adds a newer point at the end. */
  push(x: number, values: (number | null)[]): void {
    const xs = this.data[0] as number[];
    const last = xs[xs.length - 1];
    if (!this.plot || (last !== undefined && x <= last)) return;
    const scale = this.options.scale ?? 1;
    xs.push(x);
    values.forEach((value, at) => (this.data[at + 1] as Column | undefined)?.push(value === null ? null : value * scale));
    this.plot.setData(this.data, false);
    this.frame();
    this.read(null);
  }

  canvas(): HTMLCanvasElement | null {
    return this.place.hidden ? null : (this.plot?.ctx.canvas ?? null);
  }

  redraw(): void {
    this.plot?.redraw(true, true);
  }

  /** Lays out x by the view and y by what is in sight. */
  private frame(): void {
    const { plot } = this;
    if (!plot) return;
    const xs = this.data[0] as number[];
    const [from, to] = this.options.view?.shown() ?? this.whole(xs);
    plot.batch(() => {
      plot.setScale("x", { min: from, max: to > from ? to : from + 1 });
      const [low, high] = this.bounds();
      plot.setScale("y", { min: low, max: high });
    });
  }

  private whole(xs: number[]): [number, number] {
    const [first, last] = [xs[0] ?? 0, xs[xs.length - 1] ?? 1];
    const room = this.options.bars ? ((last - first) / Math.max(1, xs.length - 1) || 1) / 2 : (last - first) * 0.02;
    return [first - room, last + room];
  }

  /** The mean and the usual width of its band: a wide band at the start does not flatten the rest. */
  private bounds(): [number, number] {
    if (this.options.words) return [-0.3, this.options.words.length - 0.7];
    let [low, high] = [Infinity, -Infinity];
    const columns = this.options.band ? [this.data[1]] : this.data.slice(1);
    for (const column of columns) {
      for (const value of column as Column) {
        if (value === null) continue;
        low = Math.min(low, value);
        high = Math.max(high, value);
      }
    }
    if (this.options.band) {
      const [mean, lower, upper] = [this.data[1], this.data[2], this.data[3]] as Column[];
      const widths: number[] = [];
      mean!.forEach((value, at) => {
        const [under, over] = [lower![at], upper![at]];
        if (value !== null && under != null && over != null) widths.push(Math.max(value - under, over - value));
      });
      widths.sort((a, b) => a - b);
      const usual = widths[Math.floor(widths.length / 2)] ?? 0;
      if (this.options.isRobust) [low, high] = [Math.max(low, -OUTLIER * usual), Math.min(high, OUTLIER * usual)];
      low -= usual * 1.5;
      high += usual * 1.5;
    }
    if (this.options.bars) return [0, high * 1.08];
    const room = (high - low) * 0.06 || Math.abs(high) * 0.01 || 1;
    return [low - room, high + room];
  }

  private make(): void {
    this.plot?.destroy();
    this.axis = this.options.view?.axis ?? null;
    const { view } = this.options;
    const options: uPlot.Options = {
      width: Math.max(200, this.place.clientWidth || this.element.clientWidth),
      height: this.options.height ?? HEIGHT,
      legend: { show: false },
      cursor: {
        y: false,
        drag: { x: Boolean(view), y: false, setScale: false },
        ...(view ? { sync: { key: "battery", setSeries: false } } : {}),
        points: { size: 6 },
        bind: { dblclick: () => () => (view?.follow(), null) },
      },
      scales: { x: { time: view?.axis === "received", auto: false }, y: { auto: false } },
      axes: [xAxis(this.options, this.axis), yAxis(this.options)],
      series: [{}, ...this.series()],
      bands: this.options.band ? [{ series: [3, 2], fill: () => faint(this.lines[0]!.colour, 0.2) }] : [],
      hooks: {
        setSelect: [(plot) => this.selected(plot)],
        setCursor: [(plot) => this.read(plot.cursor.idx ?? null)],
      },
    };
    this.plot = new uPlot(options, this.data, this.place);
    if (view) this.addPointer(this.plot, view);
  }

  private series(): uPlot.Series[] {
    const line = (one: Line): uPlot.Series => ({
      label: one.label,
      stroke: () => paint(one.colour),
      width: 1.25,
      // One or two points make no line.
      points: { show: (_plot, _series, first, last) => Boolean(this.options.points) || (!this.options.bars && last - first < 2), size: 5, fill: () => paint(one.colour) },
      ...(this.options.bars
        ? { paths: uPlot.paths.bars!({ size: [1, 200], gap: 1 }), fill: () => faint(one.colour, 0.55), width: 0 }
        : {}),
    });
    const edge: uPlot.Series = { stroke: "transparent", width: 0, points: { show: false } };
    return this.options.band ? [line(this.lines[0]!), edge, { ...edge }] : this.lines.map(line);
  }

  private selected(plot: uPlot): void {
    const { left, width } = plot.select;
    if (width > 3 && this.options.view) {
      this.options.view.zoomTo(plot.posToVal(left, "x"), plot.posToVal(left + width, "x"));
    }
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  }

  /** Ctrl and wheel zoom about the pointer, Shift and drag move. */
  private addPointer(plot: uPlot, view: View): void {
    plot.over.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey && !event.metaKey) return;
        event.preventDefault();
        view.zoomBy(event.deltaY > 0 ? 1.25 : 0.8, plot.posToVal(event.offsetX, "x"));
      },
      { passive: false },
    );
    plot.over.addEventListener(
      "mousedown",
      (event) => {
        if (!event.shiftKey) return;
        event.stopImmediatePropagation();
        event.preventDefault();
        const [start, [from, to]] = [event.clientX, view.shown()];
        const perPixel = (to - from) / plot.over.clientWidth;
        const move = (moved: MouseEvent) => {
          const by = (start - moved.clientX) * perPixel;
          view.zoomTo(from + by, to + by);
        };
        const end = () => {
          removeEventListener("mousemove", move);
          removeEventListener("mouseup", end);
        };
        addEventListener("mousemove", move);
        addEventListener("mouseup", end);
      },
      { capture: true },
    );
  }

  private addKeys(view: View): void {
    this.element.setAttribute("aria-keyshortcuts", "+ - ArrowLeft ArrowRight 0");
    this.element.addEventListener("keydown", (event) => {
      const acts: Record<string, () => void> = {
        "+": () => view.zoomBy(0.6),
        "=": () => view.zoomBy(0.6),
        "-": () => view.zoomBy(1 / 0.6),
        ArrowLeft: () => view.pan(-0.25),
        ArrowRight: () => view.pan(0.25),
        "0": () => view.follow(),
      };
      const act = event.ctrlKey || event.metaKey ? undefined : acts[event.key];
      if (!act) return;
      event.preventDefault();
      act();
    });
  }

  /** Tells the values under the pointer, else the newest. */
  private read(at: number | null): void {
    const xs = this.data[0] as number[];
    const index = at ?? this.newest();
    const x = xs[index];
    if (x === undefined) return;
    // No bar is the newest.
    if (this.options.bars && at === null) return setText(this.reading, "");
    const value = (column: number) => this.rounded((this.data[column] as Column | undefined)?.[index] ?? null);
    let text: string;
    if (this.options.band) {
      const [mean, upper] = [value(1), value(3)];
      const spread = mean !== null && upper !== null ? ` ± ${significant(upper - mean, 2)}` : "";
      text = significant(mean) + spread;
    } else {
      const show = this.options.bars ? count : significant;
      text = this.options.words?.[value(1) ?? -1] ?? this.lines.map((_, line) => show(value(line + 1))).join(" / ");
    }
    if (text === NONE && at === null) return;
    const where = at === null ? "" : `  at ${this.placeText(x)}`;
    setText(this.reading, text + (this.options.bars ? " rows" : "") + where);
  }

  /** What is nothing beside the other values of the line is 0. */
  private rounded(value: number | null): number | null {
    return value !== null && Math.abs(value) < NOTHING * this.largest ? 0 : value;
  }

  private newest(): number {
    const column = this.data[1] as Column;
    let index = column.length - 1;
    while (index > 0 && column[index] == null) index--;
    return index;
  }

  private placeText(x: number): string {
    if (this.options.xText) return this.options.xText(x);
    if (this.axis === "received") return moment(x * 1000);
    if (this.axis === "seq") return `row ${count(Math.round(x))}`;
    return testTime(x);
  }

  /** The chart in words, for those who do not see it. */
  private describe(): void {
    let [low, high] = [Infinity, -Infinity];
    for (const value of this.data[1] as Column) {
      if (value === null) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
    const { title, unit } = this.options;
    const last = this.reading.textContent;
    this.element.setAttribute("aria-label", `${title}, from ${significant(low)} to ${significant(high)} ${unit}; newest ${last}`);
  }

  private resize(): void {
    const width = this.element.clientWidth;
    if (this.plot && width > 0 && width !== this.plot.width) {
      this.plot.setSize({ width, height: this.options.height ?? HEIGHT });
    }
  }
}

function legendOf(line: Line): HTMLElement {
  const swatch = h("span", { "aria-hidden": "true" }, "— ");
  swatch.style.color = `var(--${line.colour})`;
  swatch.style.fontWeight = "700";
  return h("span", { class: "soft" }, swatch, line.label);
}
