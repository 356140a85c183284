// The newest values in large figures.
import { fill, h, setText } from "../dom";
import { NONE, count, duration, fixed, percent } from "../format";
import { serverNow } from "../live";
import type { Live } from "../live";
import { badge, phaseLevel } from "../shell";

interface Tile {
  value: HTMLElement;
  extra: HTMLElement;
}

export class Tiles {
  readonly element = h("section", { class: "tiles", "aria-label": "Newest values" });
  private readonly tiles: Record<string, Tile> = {};
  private live: Live | null = null;
  private rowsStored = 0;

  constructor() {
    const units: [string, string, string][] = [
      ["voltage", "Voltage", "V"],
      ["current", "Current", "A"],
      ["temperature", "Temperature", "°C"],
      ["charge", "State of charge", "%"],
      ["health", "State of health", "%"],
      ["rows", "Rows", ""],
      ["age", "Newest row", "ago"],
      ["state", "Estimator", ""],
    ];
    for (const [key, label, unit] of units) {
      const value = h("span", { "data-value": key });
      const extra = h("div", { class: "extra" });
      this.tiles[key] = { value, extra };
      const shown = h("div", { class: "value" }, value, unit && h("span", { class: "unit" }, unit));
      this.element.append(h("div", { class: "tile" }, h("div", { class: "label" }, label), shown, extra));
    }
  }

  /** Takes a newer row; what it does not tell of estimators stays. */
  take(live: Live): void {
    this.live = { ...(this.live ?? {}), ...live };
    const { voltage, current, temperature } = this.live;
    this.set("voltage", fixed(voltage, 4));
    this.set("current", fixed(current, 3), current === null ? "" : current > 0 ? "charging" : current < 0 ? "discharging" : "at rest");
    this.set("temperature", fixed(temperature, 1));
    this.set("charge", percent(this.live.state_of_charge), spread(this.live.state_of_charge__std));
    this.set("health", percent(this.live.state_of_health), spread(this.live.state_of_health__std));
    this.set("rows", count(this.rowsStored), `row ${count(this.live.seq)}`);
    this.state();
    this.tick();
  }

  rows(stored: number): void {
    this.rowsStored = stored;
    this.set("rows", count(stored));
  }

  /** Shows how old the newest row is by now. */
  tick(): void {
    if (this.live) this.set("age", duration((serverNow() - this.live.timestamp) / 1000));
  }

  private state(): void {
    const { value, extra } = this.tiles.state!;
    const phase = this.live?.estimator_phase;
    if (value.dataset.phase !== String(phase)) {
      value.dataset.phase = String(phase);
      fill(value, phase ? badge(phase.replace("_", " "), phaseLevel(phase)) : h("span", { class: "soft" }, phase === null ? "none" : NONE));
    }
    const error = this.live?.estimator_error ?? "";
    setText(extra, error.length > 28 ? `${error.slice(0, 27)}…` : error);
    extra.title = error;
  }

  private set(key: string, value: string, extra?: string): void {
    const tile = this.tiles[key]!;
    setText(tile.value, value);
    if (extra !== undefined) setText(tile.extra, extra);
  }
}

function spread(std: number | null | undefined): string {
  return typeof std === "number" ? `± ${percent(2 * std)} (2σ)` : "";
}
