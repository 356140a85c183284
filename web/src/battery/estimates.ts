// What an estimator said over the chosen range, each with the band of two standard deviations.
import { Refusal, getJson } from "../api";
import { fill, h } from "../dom";
import { Chart } from "./chart";
import type { Page } from "./series";
import { along, reduced } from "./series";
import type { View } from "./view";

const MEANING =
  "Bands are ± 2σ: where the estimator is right, the truth lies inside 95 times in 100. " +
  "The innovation is the measured less the predicted voltage and should stay inside; trust is concluded from it.";
const NOTHING = "No estimates yet. An estimator that is registered shows charge, capacity and resistance here.";
const POINTS = 2400;
const STD = "__std";
/** Not states, or shown in other ways. */
const OTHER = new Set(["revision", "generation", "test_time", "innovation", "trust", "energy_throughput", "equivalent_full_cycles"]);

interface Shown {
  title: string;
  unit: string;
  scale: number;
  /** Shown at once; others after a click. */
  isUsual: boolean;
}

/** Puts a column of estimates into words: `rc_elements__0__r__base_values`. */
export function describe(column: string): Shown {
  const usual = (title: string, unit: string, scale = 1) => ({ title, unit, scale, isUsual: true });
  if (column === "soc") return usual("State of charge", "%", 100);
  if (column === "state_of_health") return usual("State of health", "%", 100);
  const parts = column.split("__");
  const values = parts.filter((part) => !part.startsWith("base_values"));
  const nodes = parts.flatMap((part) => /^base_values(\d+)$/.exec(part)?.[1] ?? []);
  const node = nodes[0] === undefined ? "" : `, node ${Number(nodes[0]) + 1}`;
  if (values[0] === "q_t") return usual("Capacity", "A h");
  if (values[0] === "r0" && !values.includes("temperature_dependence_factor")) return usual(`Series resistance${node}`, "mΩ", 1000);
  if (values[0] === "rc_elements") {
    const pair = `RC pair ${Number(values[1]) + 1}`;
    if (values[2] === "r") return usual(`${pair} resistance${node}`, "mΩ", 1000);
    if (values[2] === "c") return usual(`${pair} capacitance${node}`, "F");
  }
  const pair = /^i_rc(\d*)$/.exec(column)?.[1];
  if (pair !== undefined) return { title: `RC${pair && ` pair ${Number(pair) + 1}`} current`, unit: "A", scale: 1, isUsual: false };
  if (column === "hyst") return { title: "Hysteresis", unit: "mV", scale: 1000, isUsual: false };
  return { title: column.replaceAll("__", "."), unit: "", scale: 1, isUsual: false };
}

export class Estimates {
  readonly element = h("section", { class: "card" });
  private readonly grid = h("div", { class: "charts" });
  private readonly more = h("div", { class: "charts" });
  private readonly note = h("p", { class: "soft", role: "status" }, "");
  private readonly meaning = h("p", { class: "soft small" }, MEANING);
  private readonly rest = h("details", { hidden: true }, h("summary", {}, "More states"), this.more);
  private charts = new Map<string, Chart>();
  private readonly innovation: Chart;
  private readonly trust: Chart;
  private estimator = "default";

  constructor(
    private readonly battery: string,
    private readonly view: View,
  ) {
    this.innovation = new Chart({ title: "Innovation in its 2σ band", unit: "mV", scale: 1000, band: true, isRobust: true, view });
    this.trust = new Chart({ title: "Trust", unit: "", words: ["healthy", "suspect", "diverged"], view });
    this.rest.addEventListener("toggle", () => this.rest.open && this.asked());
    fill(this.element, h("h2", {}, "Estimates, ± 2σ"), this.note, this.grid, this.rest, this.meaning);
  }

  private asked: () => void = () => {};

  onAsk(listener: () => void): void {
    this.asked = listener;
  }

  list(): Chart[] {
    return [...this.grid.children].flatMap((child) => this.all().filter((chart) => chart.element === child));
  }

  private all(): Chart[] {
    return [...this.charts.values(), this.innovation, this.trust];
  }

  choose(estimator: string): void {
    if (estimator === this.estimator) return;
    this.estimator = estimator;
    this.charts = new Map();
  }

  async load(signal: AbortSignal): Promise<void> {
    const path = `/db/${encodeURIComponent(this.battery)}/estimates?estimator=${encodeURIComponent(this.estimator)}`;
    let newest: Page;
    try {
      newest = await getJson<Page>(`${path}&limit=1&order=desc`, signal);
    } catch (error) {
      if (!(error instanceof Refusal) || error.status !== 404) throw error;
      this.say(NOTHING);
      return;
    }
    if (newest.seq.length === 0) {
      this.say(this.estimator === "default" ? NOTHING : `The estimator ${this.estimator} has said nothing yet.`);
      return;
    }
    this.say("");
    const names = Object.keys(newest.columns);
    this.arrange(names.filter((name) => !name.endsWith(STD) && !OTHER.has(name)));
    const wanted = [...this.charts].filter(([name]) => describe(name).isUsual || this.rest.open);
    const hasTrust = names.includes("trust");
    this.trust.element.hidden = !hasTrust;
    this.innovation.element.hidden = !names.includes("innovation");
    await Promise.all([
      ...wanted.map(([name, chart]) => this.loadOne(path, name, names.includes(name + STD), chart, signal)),
      names.includes("innovation") ? this.loadInnovation(path, signal) : null,
      hasTrust ? this.loadPlain(path, "trust", this.trust, signal) : null,
    ]);
  }

  private say(text: string): void {
    this.note.textContent = text;
    this.note.hidden = text === "";
    this.grid.hidden = this.meaning.hidden = text !== "";
    this.rest.hidden = text !== "" || this.more.childElementCount === 0;
  }

  private arrange(names: string[]): void {
    if (names.join() === [...this.charts.keys()].join()) return;
    const first = ["soc", "state_of_health", "q_t__base_values"];
    const rank = (name: string) => (first.includes(name) ? first.indexOf(name) : first.length);
    const sorted = [...names].sort((a, b) => rank(a) - rank(b));
    const charts = new Map<string, Chart>();
    for (const name of sorted) {
      const shown = describe(name);
      const made = () => new Chart({ ...shown, band: true, lines: [{ label: shown.title, colour: "accent" }], view: this.view });
      charts.set(name, this.charts.get(name) ?? made());
    }
    this.charts = new Map(names.map((name) => [name, charts.get(name)!]));
    const isUsual = ([name]: [string, Chart]) => describe(name).isUsual;
    const usual = [...charts].filter(isUsual).map(([, chart]) => chart.element);
    const others = [...charts].filter((one) => !isUsual(one)).map(([, chart]) => chart.element);
    fill(this.grid, ...usual, this.innovation.element, this.trust.element);
    fill(this.more, ...others);
    this.rest.hidden = others.length === 0;
  }

  private async loadOne(path: string, name: string, hasStd: boolean, chart: Chart, signal: AbortSignal): Promise<void> {
    const columns = hasStd ? [name, name + STD] : [name];
    const page = await reduced(path, this.view, columns, POINTS, signal);
    const found = along(page, this.view.axis, columns);
    const [mean, std] = [found.columns[0]!, found.columns[1] ?? found.columns[0]!.map(() => null)];
    const shifted = (sign: number) => mean.map((value, at) => (value === null || std[at] == null ? value : value + sign * 2 * std[at]));
    chart.set(found.x, [mean, shifted(-1), shifted(1)]);
  }

  /** The band lies around zero: an innovation within it is as large as the filter expects. */
  private async loadInnovation(path: string, signal: AbortSignal): Promise<void> {
    const columns = ["innovation", "innovation" + STD];
    const page = await reduced(path, this.view, columns, POINTS, signal);
    const found = along(page, this.view.axis, columns);
    const std = found.columns[1]!;
    const edge = (sign: number) => std.map((value) => (value === null ? null : sign * 2 * value));
    this.innovation.set(found.x, [found.columns[0]!, edge(-1), edge(1)]);
  }

  private async loadPlain(path: string, name: string, chart: Chart, signal: AbortSignal): Promise<void> {
    const page = await reduced(path, this.view, [name], POINTS, signal);
    const found = along(page, this.view.axis, [name]);
    chart.set(found.x, [found.columns[0]!]);
  }
}
