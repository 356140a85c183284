// Measured columns over the chosen range.
import { fill, h, setText } from "../dom";
import type { Live } from "../live";
import { Chart } from "./chart";
import { along, reduced } from "./series";
import type { View } from "./view";

const USUAL = ["voltage", "current", "temperature"];
const TITLES: Record<string, string> = { voltage: "Voltage", current: "Current", temperature: "Temperature" };
const UNITS: Record<string, string> = { voltage: "V", current: "A", temperature: "°C" };
/** Pixels that a bucket of the reduction is wide. */
const BUCKET_PX = 2;
const MOST_POINTS = 20_000;

export class History {
  readonly element = h("div", { class: "charts stacked" });
  readonly choice = h("details", {}, h("summary", {}, "Columns"));
  /** Says why a usual column is missing. */
  readonly note = h("p", { class: "note warn", role: "status", hidden: true });
  private charts = new Map<string, Chart>();
  private columns: string[] = [];
  private readonly chosen = new Set(USUAL);

  constructor(
    private readonly battery: string,
    private readonly view: View,
    private readonly changed: () => void,
  ) {}

  /** Takes the battery's numeric columns. */
  offer(columns: string[], units: Record<string, string>): void {
    if (columns.join() === this.columns.join()) return;
    this.columns = columns;
    const boxes = columns.map((column) => {
      const box = h("input", { type: "checkbox", checked: this.chosen.has(column) });
      box.addEventListener("change", () => {
        if (box.checked) this.chosen.add(column);
        else this.chosen.delete(column);
        this.arrange(units);
        this.changed();
      });
      return h("label", {}, box, column);
    });
    fill(this.choice, h("summary", {}, "Columns"), h("div", { class: "checks" }, ...boxes));
    this.arrange(units);
  }

  /** Looks for text where numbers are usual: a file with a word in that column makes it so. */
  warn(cells: Record<string, unknown[]>): void {
    const texts = [...USUAL, "test_time"].filter((column) => typeof cells[column]?.[0] === "string");
    this.note.hidden = texts.length === 0;
    setText(this.note, `${texts.join(" and ")} came as text, so no chart shows it and no estimator can use it. Send rows with numbers under another name of the battery.`);
  }

  shown(): string[] {
    return [...this.charts.keys()];
  }

  list(): Chart[] {
    return [...this.charts.values()];
  }

  private arrange(units: Record<string, string>): void {
    const wanted = [...USUAL, ...this.columns].filter(
      (column, at, all) => this.chosen.has(column) && this.columns.includes(column) && all.indexOf(column) === at,
    );
    const charts = new Map<string, Chart>();
    for (const column of wanted) {
      const made = () =>
        new Chart({ title: TITLES[column] ?? column, unit: UNITS[column] ?? units[column] ?? "", view: this.view });
      charts.set(column, this.charts.get(column) ?? made());
    }
    this.charts = charts;
    fill(this.element, ...[...charts.values()].map((chart) => chart.element));
  }

  async load(signal: AbortSignal): Promise<void> {
    const columns = this.shown();
    if (columns.length === 0) return;
    const buckets = Math.max(100, this.element.clientWidth / BUCKET_PX);
    const points = Math.min(MOST_POINTS, Math.ceil(buckets * 2 * (columns.length + 1)));
    const path = `/db/${encodeURIComponent(this.battery)}/rows`;
    const page = await reduced(path, this.view, columns, points, signal);
    const found = along(page, this.view.axis, columns);
    columns.forEach((column, at) => this.charts.get(column)?.set(found.x, [found.columns[at]!]));
  }

  /** Adds a row that has just come, until the next reduction has it. */
  take(live: Live, place: number): void {
    for (const [column, chart] of this.charts) {
      const value = live[column];
      chart.push(place, [typeof value === "number" ? value : null]);
    }
  }
}
