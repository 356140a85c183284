// Which batteries need somebody, and why.
import { ageOf } from "../fleet";
import type { Battery } from "../fleet";

/** After so long without a row a battery counts as silent. */
const SILENT_S = 60;

export function stateOf(battery: Battery): string {
  return battery.live?.estimator_phase ?? "none";
}

export function trustOf(battery: Battery): string {
  return battery.live?.estimator_trust ?? "none";
}

function isBroken(battery: Battery): boolean {
  return stateOf(battery) === "broken" || Boolean(battery.live?.estimator_error);
}

function isSilent(battery: Battery): boolean {
  return (ageOf(battery) ?? Infinity) > SILENT_S;
}

/** How soon a battery needs somebody; 0 is not at all. Silence is none of it: tests end. */
export function urgency(battery: Battery): number {
  const reasons = [
    battery.gravest === "info",
    trustOf(battery) === "suspect",
    battery.gravest === "warning",
    trustOf(battery) === "diverged",
    isBroken(battery),
    battery.gravest === "critical",
  ];
  return reasons.lastIndexOf(true) + 1;
}

/** The same as a level for a mark beside the name, which stays in sight on narrow screens. */
export function urgencyLevel(battery: Battery): "bad" | "warn" | "none" {
  const urgent = urgency(battery);
  return urgent >= 4 ? "bad" : urgent >= 2 ? "warn" : "none";
}

export interface Filter {
  key: string;
  title: string;
  /** How a count above 0 looks. */
  level: "bad" | "warn" | "none";
  passes: (battery: Battery) => boolean;
}

export const FILTERS: Filter[] = [
  { key: "all", title: "All", level: "none", passes: () => true },
  { key: "alerts", title: "Alerts", level: "bad", passes: (b) => b.alerts > 0 },
  { key: "broken", title: "Broken", level: "bad", passes: isBroken },
  { key: "suspect", title: "Not trusted", level: "warn", passes: (b) => trustOf(b) === "suspect" || trustOf(b) === "diverged" },
  { key: "silent", title: "Silent", level: "none", passes: isSilent },
  { key: "none", title: "No estimator", level: "none", passes: (b) => !b.isStored && stateOf(b) === "none" },
];
