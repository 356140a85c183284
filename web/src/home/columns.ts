// What the fleet's table tells of a battery, and by what it can be sorted.
import { fill, h, setText } from "../dom";
import { ageOf, rowsOf } from "../fleet";
import type { Battery } from "../fleet";
import { NONE, count, duration, fixed, percent, spread } from "../format";
import { badge, phaseLevel, severityLevel, trustLevel } from "../shell";
import { stateOf, trustOf, urgency } from "./attention";

export interface Column {
  key: string;
  title: string;
  unit?: string;
  number?: boolean;
  wide?: boolean;
  /** The greatest first, where it is sorted by at first. */
  falls?: boolean;
  value: (battery: Battery) => number | string | null;
  show: (cell: HTMLElement, battery: Battery) => void;
}

/** Letters at the end of a name that are never cut off. */
const SHOWN_END = 12;
const TRUST = ["diverged", "suspect", "healthy", "none"];
/** Columns that the style sheet knows by their names. */
const NAMED = ["name", "charge", "health", "attention"];
const STATES = ["broken", "starting", "catching_up", "live", "none"];

/** A figure of the newest row. */
function measured(key: "voltage" | "current" | "temperature", title: string, unit: string, digits: number): Column {
  const value = (battery: Battery) => battery.live?.[key] ?? null;
  const show = (cell: HTMLElement, battery: Battery) => setText(cell, fixed(value(battery), digits));
  return { key, title, unit, number: true, falls: true, value, show };
}

export const COLUMNS: Column[] = [
  { key: "name", title: "Battery", value: (b) => b.name.toLowerCase(), show: showName },
  {
    key: "charge",
    title: "Charge",
    unit: "%",
    number: true,
    falls: true,
    value: (b) => b.live?.state_of_charge ?? null,
    show: showCharge,
  },
  {
    key: "health",
    title: "Health ± 2σ",
    unit: "%",
    number: true,
    falls: true,
    value: (b) => b.live?.state_of_health ?? null,
    show: showHealth,
  },
  measured("voltage", "Voltage", "V", 3),
  measured("current", "Current", "A", 2),
  measured("temperature", "Temp.", "°C", 1),
  {
    key: "rows",
    title: "Rows",
    number: true,
    falls: true,
    wide: true,
    value: rowsOf,
    show: (cell, b) => setText(cell, count(rowsOf(b))),
  },
  { key: "age", title: "Age", number: true, falls: true, value: ageOf, show: (cell, b) => setText(cell, duration(ageOf(b))) },
  { key: "state", title: "Estimator", value: (b) => STATES.indexOf(stateOf(b)), show: showState },
  { key: "trust", title: "Trust", value: (b) => TRUST.indexOf(trustOf(b)), show: showTrust },
  { key: "attention", title: "Needs attention", falls: true, value: urgency, show: showAttention },
];

function showName(cell: HTMLElement, battery: Battery): void {
  if (cell.dataset.name === battery.name) return;
  cell.dataset.name = battery.name;
  fill(cell, h("a", { href: `/dashboard/${encodeURIComponent(battery.name)}` }, ...bothEnds(battery.name)));
  cell.title = battery.title && battery.title !== battery.name ? `${battery.name}: ${battery.title}` : battery.name;
}

/** A name that is cut in its middle where it is long: names of a fleet often differ at their ends. */
function bothEnds(name: string): Node[] {
  const end = Math.max(0, name.length - SHOWN_END);
  return [h("span", { class: "start" }, name.slice(0, end)), h("span", {}, name.slice(end))];
}

function showCharge(cell: HTMLElement, battery: Battery): void {
  const charge = battery.live?.state_of_charge ?? null;
  const text = percent(charge);
  if (cell.textContent === text) return;
  const level = h("i");
  level.style.width = `${Math.min(100, Math.max(0, 100 * (charge ?? 0)))}%`;
  fill(cell, charge !== null && h("span", { class: "meter", "aria-hidden": "true" }, level), h("span", { class: "figure" }, text));
}

function showHealth(cell: HTMLElement, { live }: Battery): void {
  const std = live?.state_of_health__std;
  const beside = typeof std === "number" ? ` ± ${spread(std)}` : "";
  const mean = percent(live?.state_of_health);
  if (cell.textContent === mean + beside) return;
  fill(cell, mean, beside && h("span", { class: "plus" }, beside));
}

function showState(cell: HTMLElement, battery: Battery): void {
  const state = stateOf(battery);
  const hasError = Boolean(battery.live?.estimator_error);
  if (!isNew(cell, `${battery.isStored} ${state} ${hasError}`)) return;
  const level = hasError && state === "live" ? "warn" : phaseLevel(state);
  if (battery.isStored) return fill(cell, h("span", { class: "soft" }, "not known"));
  fill(cell, state === "none" ? NONE : badge(state.replace("_", " "), level));
}

function showTrust(cell: HTMLElement, battery: Battery): void {
  const trust = trustOf(battery);
  if (isNew(cell, trust)) fill(cell, trust === "none" ? NONE : badge(trust, trustLevel(trust)));
}

/** The gravest alert by its rule, the estimator's error, and whether it is believed. */
function showAttention(cell: HTMLElement, battery: Battery): void {
  const error = battery.live?.estimator_error ?? "";
  const others = battery.alerts > 1 ? ` and ${count(battery.alerts - 1)} more` : "";
  const alert = battery.alerts ? `${battery.rule ?? ""}${others}` : "";
  const trust = trustOf(battery) === "suspect" || trustOf(battery) === "diverged" ? trustOf(battery) : "";
  if (!isNew(cell, `${battery.gravest} ${alert} ${error} ${trust}`)) return;
  const said = [alert, error, trust && `estimate ${trust}`].filter(Boolean).join("; ");
  cell.title = said;
  fill(cell, battery.gravest && badge(battery.gravest, severityLevel(battery.gravest)), said && ` ${said}`);
}

function isNew(cell: HTMLElement, mark: string): boolean {
  if (cell.dataset.mark === mark) return false;
  cell.dataset.mark = mark;
  return true;
}

export function classOf(column: Column): string | null {
  const classes = [column.number && "n", column.wide && "wide", NAMED.includes(column.key) && column.key];
  return classes.filter(Boolean).join(" ") || null;
}

/** What is not known comes last, whichever way it is sorted. */
export function compare(a: number | string | null, b: number | string | null, sign: number): number {
  if (a === b) return 0;
  if (a === null) return 1;
  if (b === null) return -1;
  return a < b ? -sign : sign;
}
