// Capacity, energy and efficiency of each cycle.
import { getJson } from "../api";
import { fill, h, setText } from "../dom";
import { count, duration, fixed } from "../format";
import { Chart } from "./chart";

interface Cycle {
  cycle_number: number | null;
  segment: number;
  rows: number;
  is_complete: boolean;
  cycle_duration: number | null;
  capacity_charge: number | null;
  capacity_discharge: number | null;
  energy_charge: number | null;
  energy_discharge: number | null;
  V_minimum: number | null;
  V_maximum: number | null;
}

const LAST = 12;
/** A cycle whose charge in and out differ by more than this share is not closed. */
const OPEN = 0.1;
const IN_OUT = [
  { label: "charge", colour: "good" },
  { label: "discharge", colour: "accent" },
];

export class Cycles {
  readonly element = h("section", { class: "card" });
  private readonly note = h("p", { class: "soft" });
  private readonly table = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Cycles" });
  private readonly capacity: Chart;
  private readonly energy: Chart;
  private readonly efficiency: Chart;
  private cycles: Cycle[] = [];

  constructor(private readonly battery: string) {
    const xText = (x: number) => this.nameOf(Math.round(x) - 1);
    const common = { points: true, xText, height: 120 };
    this.capacity = new Chart({ ...common, title: "Capacity", unit: "A h", lines: IN_OUT });
    this.energy = new Chart({ ...common, title: "Energy", unit: "W h", lines: IN_OUT });
    this.efficiency = new Chart({ ...common, title: "Energy efficiency", unit: "%" });
    const charts = h("div", { class: "charts" }, this.capacity.element, this.energy.element, this.efficiency.element);
    fill(this.element, h("h2", {}, "Cycles"), this.note, charts, this.table);
  }

  private nameOf(at: number): string {
    const cycle = this.cycles[at];
    if (!cycle) return "";
    return cycle.cycle_number === null ? `test ${cycle.segment}` : `cycle ${cycle.cycle_number}`;
  }

  async load(signal: AbortSignal): Promise<void> {
    const answer = await getJson<{ cycles: Cycle[] }>(`/db/${encodeURIComponent(this.battery)}/cycles`, signal);
    this.cycles = answer.cycles;
    const number = this.cycles.length;
    setText(this.note, number === 0 ? "No cycle is counted yet; they follow the rows within seconds." : `${count(number)} counted. In and out lie between a cycle's lowest and highest charge; one that goes on is told as far as it came. Efficiency needs as much charge out as in.`);
    for (const chart of [this.capacity, this.energy, this.efficiency]) chart.element.hidden = number < 2;
    this.table.hidden = number === 0;
    const x = this.cycles.map((_, at) => at + 1);
    const of = (read: (cycle: Cycle) => number | null) => this.cycles.map(read);
    if (number >= 2) {
      this.capacity.set(x, [of((c) => c.capacity_charge), of((c) => c.capacity_discharge)]);
      this.energy.set(x, [of((c) => c.energy_charge), of((c) => c.energy_discharge)]);
      this.efficiency.set(x, [of((c) => (c.is_complete ? efficiency(c) : null))]);
    }
    fill(this.table, this.lines());
  }

  private lines(): HTMLElement {
    const head = ["Cycle", "Rows", "Duration", "In A h", "Out A h", "In W h", "Out W h", "Efficiency %", "Voltage V"];
    const from = Math.max(0, this.cycles.length - LAST);
    const lines = this.cycles.slice(from).map((cycle, at) => {
      const number = (text: string) => h("td", { class: "n" }, text);
      return h(
        "tr",
        {},
        h("td", {}, this.nameOf(from + at), !cycle.is_complete && h("span", { class: "soft" }, " goes on")),
        number(count(cycle.rows)),
        number(duration(cycle.cycle_duration)),
        number(fixed(cycle.capacity_charge, 3)),
        number(fixed(cycle.capacity_discharge, 3)),
        number(fixed(cycle.energy_charge, 3)),
        number(fixed(cycle.energy_discharge, 3)),
        number(fixed(cycle.is_complete ? efficiency(cycle) : null, 1)),
        number(`${fixed(cycle.V_minimum, 2)} … ${fixed(cycle.V_maximum, 2)}`),
      );
    });
    return h(
      "table",
      {},
      h("caption", { class: "hidden" }, `The last ${LAST} cycles`),
      h("thead", {}, h("tr", {}, ...head.map((text, at) => h("th", { scope: "col", class: at ? "n" : null }, text)))),
      h("tbody", {}, ...lines),
    );
  }
}

/** Known only where about as much charge came out as went in: else charge is left, not lost. */
function efficiency(cycle: Cycle): number | null {
  const { capacity_charge: charged, capacity_discharge: discharged } = cycle;
  const { energy_charge: into, energy_discharge: out } = cycle;
  if (!charged || !discharged || !into || !out) return null;
  const isClosed = Math.abs(charged - discharged) <= OPEN * Math.max(charged, discharged);
  return isClosed ? (100 * out) / into : null;
}

