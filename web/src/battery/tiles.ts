// The newest values in large figures.
import { fill, h, setText } from "../dom";
import { NONE, count, duration, fixed, percent, spread } from "../format";
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
  private isStored = false;

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

  /** Takes the last stored values, while nothing is live. */
  takeStored(stored: Live): void {
    this.isStored = true;
    // What the estimator is doing now nobody but the twin knows.
    this.take({ ...stored, estimator_phase: undefined } as unknown as Live);
  }

  /** Marks charge and health as live again. */
  liveAgain(): void {
    this.isStored = false;
  }

  /** Takes a newer row; what it does not tell of estimators stays. */
  take(live: Live): void {
    this.live = { ...(this.live ?? {}), ...live };
    const { voltage, current, temperature } = this.live;
    // What is shown as 0 is no current, however small the noise.
    const flow = Number((current ?? 0).toFixed(3));
    this.set("voltage", fixed(voltage, 4));
    this.set("current", fixed(current, 3), current === null ? "" : flow > 0 ? "charging" : flow < 0 ? "discharging" : "at rest");
    this.set("temperature", fixed(temperature, 1));
    const { state_of_charge: charge, state_of_health: health } = this.live;
    this.set("charge", percent(charge), this.beside(charge, this.live.state_of_charge__std));
    this.set("health", percent(health), this.beside(health, this.live.state_of_health__std));
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
    const trust = this.live?.estimator_trust;
    for (const key of ["charge", "health"]) this.tiles[key]!.value.classList.toggle("distrusted", trust === "diverged");
    const said = this.live?.estimator_error ?? (trust && trust !== "healthy" ? `not trusted: ${trust}` : "");
    setText(extra, said.length > 28 ? `${said.slice(0, 27)}…` : said);
    extra.title = said;
    extra.classList.toggle("bad", said !== "");
  }

  /** How uncertain an estimate is, and whether it is one of before. */
  private beside(mean: number | null | undefined, std: number | null | undefined): string {
    const isOld = this.isStored && typeof mean === "number";
    return [typeof std === "number" && `± ${spread(std)} (2σ)`, isOld && "last stored"].filter(Boolean).join(", ");
  }

  private set(key: string, value: string, extra?: string): void {
    const tile = this.tiles[key]!;
    setText(tile.value, value);
    if (extra !== undefined) setText(tile.extra, extra);
  }
}
