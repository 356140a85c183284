// The estimators of a battery: what they are doing, how far they may be believed, their documents.
import { Refusal, askTwin } from "../api";
import { fill, h } from "../dom";
import { count, fixed, percent, prettyJson, rowsText, significant, spread, testTime } from "../format";
import { badge, phaseLevel, trustLevel } from "../shell";
import { describe } from "./estimates";

/** Figures of the battery's health; `…_std` are deviations. */
export interface Health {
  state_of_health: number;
  state_of_health_std?: number;
  nominal_capacity_ah: number;
  nominal_capacity_from: string;
  /** Series resistance over the document's. */
  resistance_growth?: number;
  resistance_growth_std?: number;
  charged_ah: number;
  discharged_ah: number;
  charged_wh: number;
  discharged_wh: number;
  equivalent_full_cycles: number;
  round_trip_efficiency?: number;
  self_discharge_per_month?: number;
  self_discharge_per_month_std?: number;
}

export interface Status {
  estimator: string;
  revision: number;
  phase: string;
  rows: number;
  rows_behind: number;
  steps: number;
  latest_time?: number;
  state_names: string[];
  mean: number[];
  covariance: number[][];
  normalised_innovation?: number;
  trust?: { state: string; reason?: string; since?: number; nis_average?: number; nis_band: [number, number]; autocorrelation?: number };
  health?: Health;
  initialisation?: { gathered_rows?: number; found: Record<string, unknown>[] };
  skipped: Record<string, number>;
  last_error?: string;
  warnings: string[];
  valid_from: number;
  definition: unknown;
}

export class Estimators {
  readonly element = h("section", { class: "card" });
  private readonly head = h("div", { class: "bar" });
  private readonly body = h("div", {});
  private readonly document = h("pre", { tabindex: "0" });
  private readonly details = h("details", {}, h("summary", {}, "Document"), this.document);
  private statuses: Record<string, Status> = {};
  private chosen = "default";
  private names = "";
  private said = "";

  constructor(
    private readonly battery: string,
    private readonly onChoose: (estimator: string) => void,
    /** Hears of the estimator that is looked at; null where there is none, undefined where nobody knows. */
    private readonly onStatus: (status: Status | null | undefined) => void,
  ) {
    fill(this.element, this.head, this.body, this.details);
  }

  async load(): Promise<void> {
    try {
      const path = `/online/${encodeURIComponent(this.battery)}`;
      this.statuses = (await askTwin<{ estimators: Record<string, Status> }>(path)).estimators;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      const isMissing = error.status === 404;
      if (isMissing) this.statuses = {};
      this.onStatus(isMissing ? null : undefined);
      const away = `${error.status === 0 ? "The Data Hub does not answer" : "The Digital Twin is away"}, so the estimators' state is not known. `;
      this.showNothing(isMissing ? "No estimator is registered. " : away, isMissing);
      return;
    }
    const names = Object.keys(this.statuses);
    if (!this.statuses[this.chosen] && names[0]) this.choose(names[0]);
    this.showHead(names);
    this.showBody();
  }

  /** Changes whenever the estimators got on. */
  progress(): string {
    return Object.values(this.statuses)
      .map((status) => `${status.revision}.${status.rows}`)
      .join();
  }

  private showNothing(text: string, canRegister: boolean): void {
    this.names = this.said = "";
    const link = canRegister && h("a", { href: `/register?battery=${encodeURIComponent(this.battery)}` }, "Register one");
    fill(this.head, h("h2", {}, "Estimator"));
    fill(this.body, h("p", { class: "soft" }, text, link));
    this.details.hidden = true;
  }

  private choose(name: string): void {
    this.chosen = name;
    this.onChoose(name);
  }

  private showHead(names: string[]): void {
    if (names.join() === this.names) return;
    this.names = names.join();
    const options = names.map((name) => h("option", { value: name, selected: name === this.chosen }, name));
    const select = h("select", { "aria-label": "Estimator" }, ...options);
    select.addEventListener("change", () => {
      this.choose(select.value);
      this.showBody();
    });
    const register = h("a", { class: "push", href: `/register?battery=${encodeURIComponent(this.battery)}` }, "Register another");
    fill(this.head, h("h2", {}, "Estimator"), names.length > 1 ? select : h("span", { class: "soft" }, names[0]), register);
  }

  private showBody(): void {
    const status = this.statuses[this.chosen];
    if (!status) return;
    this.onStatus(status);
    const said = JSON.stringify(status);
    if (said === this.said) return;
    this.said = said;
    const facts: [string, Node | string | null][] = [
      ["State", phase(status)],
      ["Trust", trust(status)],
      ["Consistency", consistency(status)],
      ["Rows", `${count(status.rows)}, ${count(status.steps)} steps`],
      ["Skipped", skipped(status)],
      ...states(status),
      ...health(status),
      ["Start from data", initialisation(status)],
    ];
    const lines = facts.flatMap(([name, value]) => (value ? [h("dt", {}, name), h("dd", {}, value)] : []));
    const error = status.last_error ? h("p", { class: "note bad", role: "alert" }, h("strong", {}, "Last error: "), h("span", {}, status.last_error)) : null;
    const warnings = status.warnings.map((warning) => h("p", { class: "note warn" }, warning));
    fill(this.body, error, ...warnings, h("dl", { class: "facts" }, ...lines));
    this.details.hidden = false;
    const { definition } = status;
    this.document.textContent = typeof definition === "string" ? definition : prettyJson(definition);
  }
}

function phase(status: Status): HTMLElement {
  const behind = status.rows_behind > 0 ? ` ${rowsText(status.rows_behind)} behind` : "";
  const revision = `, revision ${status.revision}, rows from ${testTime(status.valid_from)} on`;
  return h("span", {}, badge(status.phase.replace("_", " "), phaseLevel(status.phase)), h("span", { class: "soft" }, behind + revision));
}

function trust(status: Status): HTMLElement | null {
  const { trust } = status;
  if (!trust) return null;
  const why = trust.reason ? ` ${trust.reason.replaceAll("_", " ")}${trust.since === undefined ? "" : `, since ${testTime(trust.since)}`}` : "";
  return h("span", {}, badge(trust.state, trustLevel(trust.state)), why);
}

function consistency(status: Status): string | null {
  const { trust } = status;
  if (trust?.nis_average === undefined) return null;
  const band = `expected ${fixed(trust.nis_band[0], 2)} to ${fixed(trust.nis_band[1], 2)}`;
  return `normalised innovation squared ${fixed(trust.nis_average, 2)} (${band}), autocorrelation ${fixed(trust.autocorrelation, 2)}`;
}

function skipped(status: Status): string | null {
  const said = Object.entries(status.skipped).map(([reason, rows]) => `${count(rows)} ${reason.replaceAll("_", " ")}`);
  return said.join(", ") || null;
}

function states(status: Status): [string, string][] {
  return status.state_names.flatMap((name, at): [string, string][] => {
    const mean = status.mean[at];
    if (mean === undefined) return [];
    const column = name.replaceAll(".", "__").replaceAll(/[[\]]/g, "");
    const shown = describe(column);
    const std = Math.sqrt(status.covariance[at]?.[at] ?? NaN) * shown.scale;
    return [[shown.title, `${significant(mean * shown.scale)} ± ${significant(2 * std, 2)} ${shown.unit}`]];
  });
}

function health(status: Status): [string, string | null][] {
  const { health } = status;
  if (!health) return [];
  return [
    ["State of health", share(health.state_of_health, health.state_of_health_std)],
    ["Resistance, of its first", share(health.resistance_growth, health.resistance_growth_std)],
    ["Charge in, out", `${fixed(health.charged_ah, 2)} A h, ${fixed(health.discharged_ah, 2)} A h`],
    ["Energy in, out", `${fixed(health.charged_wh, 2)} W h, ${fixed(health.discharged_wh, 2)} W h`],
    ["Equivalent full cycles", fixed(health.equivalent_full_cycles, 2)],
    ["Round-trip efficiency", share(health.round_trip_efficiency)],
    ["Self-discharge a month", share(health.self_discharge_per_month, health.self_discharge_per_month_std)],
  ];
}

function share(value: number | undefined, std?: number): string | null {
  if (value === undefined) return null;
  return `${percent(value)}${std === undefined ? "" : ` ± ${spread(std)}`} %`;
}

function initialisation(status: Status): string | null {
  const found = status.initialisation;
  if (!found) return null;
  const gathered = found.gathered_rows === undefined ? [] : [`${count(found.gathered_rows)} rows gathered`];
  const said = found.found.map((one) => `${String(one.what)}: ${one.reason ? String(one.reason) : "found"}`);
  return [...gathered, ...said].join("; ") || null;
}
