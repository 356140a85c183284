// What there is to know of a battery in a few sentences: alerts first, then its health in words.
import { fill, h } from "../dom";
import type { Alert } from "../fleet";
import { duration, fixed, percent, rowsText, significant, spread } from "../format";
import { serverNow } from "../live";
import { badge, severityLevel } from "../shell";
import type { Health, Status } from "./estimator";

/** Beyond this double deviation a health says little. */
const VAGUE = 0.1;
/** Why an estimator is not believed, and what that may come from. */
const REASONS: Record<string, string> = {
  innovations_too_large: "the measured voltage is further from the predicted one than it expects, so a sensor or its model is off",
  innovations_too_small: "the measured voltage is closer to the predicted one than it expects, so it claims too much uncertainty",
  innovations_correlated: "its errors go on in one direction, so its model misses something that lasts",
  voltage_jump: "a voltage came that is far from what it expected",
  voltage_stuck: "the voltage stays the same while it should move, so look at its sensor",
  capacity_implausible: "the capacity that it found cannot be",
  resistance_implausible: "the resistance that it found cannot be",
  soc_implausible: "the state of charge that it found cannot be",
  steps_fail: "its numbers cease to be finite",
};

export class Verdict {
  readonly element = h("section", { class: "verdict", "aria-label": "In short", hidden: true });
  private readonly alerts = h("div", {});
  private readonly health = h("p", {});
  private said = "";

  constructor(private readonly battery: string) {
    fill(this.element, this.alerts, this.health);
  }

  /** Takes all alerts of the battery; those that last are told. */
  takeAlerts(alerts: Alert[]): void {
    const lines = alerts.filter((alert) => alert.is_active).map((alert) => {
      const level = severityLevel(alert.severity);
      const since = duration(serverNow() / 1000 - alert.raised / 1e6);
      return h("p", { class: `note ${level}` }, badge(alert.severity, level), " ", h("strong", {}, alert.rule), ` for ${since}. When it began: ${alert.detail}`);
    });
    fill(this.alerts, ...lines);
    this.show();
  }

  /** Takes the estimator that is looked at; null where there is none, undefined where nobody knows. */
  takeStatus(status: Status | null | undefined): void {
    const parts = status === undefined ? [] : status === null ? this.none() : sentences(status);
    const text = parts.map((part) => (typeof part === "string" ? part : (part.textContent ?? ""))).join("");
    if (text === this.said) return;
    this.said = text;
    fill(this.health, ...parts);
    this.show();
  }

  private show(): void {
    this.health.hidden = this.said === "";
    this.element.hidden = this.health.hidden && this.alerts.childElementCount === 0;
  }

  private none(): (string | Node)[] {
    const register = h("a", { href: `/register?battery=${encodeURIComponent(this.battery)}` }, "Register one");
    return ["No estimator follows this battery, so its charge and health are not known. ", register];
  }
}

function sentences(status: Status): (string | Node)[] {
  if (status.phase === "broken") {
    return [h("strong", { class: "bad" }, "The estimator is broken; what is shown is the last that it said. "), status.last_error?.trimEnd().split("\n").pop() ?? ""];
  }
  if (status.steps === 0) return unstarted(status);
  const trusted = trust(status);
  const behind = status.rows_behind > 0 ? ` It is ${rowsText(status.rows_behind)} behind.` : "";
  // What cannot be believed is not put into words.
  if (status.trust?.state === "diverged") return [...trusted, " So nothing is said of the battery's health.", behind];
  return [...health(status), ...trusted, behind];
}

function unstarted({ rows, skipped, last_error }: Status): (string | Node)[] {
  const why = last_error?.trimEnd().split("\n").pop() ?? Object.keys(skipped).join(", ").replaceAll("_", " ");
  if (!why) return ["The estimator waits for rows; charge and health are not known yet."];
  const none = h("strong", { class: "bad" }, `The estimator could use none of ${rowsText(rows)}`);
  return [none, `, so charge and health are not known: ${why}`];
}

function health(status: Status): (string | Node)[] {
  const { health } = status;
  if (!health) return [];
  const std = health.state_of_health_std;
  const share = h("strong", {}, `${percent(health.state_of_health)}${std === undefined ? "" : ` ± ${spread(std)}`} %`);
  const isGuess = health.nominal_capacity_from === "initial";
  const of = isGuess ? ` of the ${ampereHours(health)} that its estimator began with` : ` of its nominal ${ampereHours(health)}`;
  if (std !== undefined && 2 * std > VAGUE) return ["How healthy it is, is not known well yet: ", share, `${of}. It shows while charge moves. `];
  return ["It holds ", share, of, ...resistance(status), ". "];
}

function ampereHours(health: Health): string {
  return `${significant(health.nominal_capacity_ah, 3)} A h`;
}

/** The series resistance, where it is one number that is estimated. */
function resistance({ health, state_names, mean, covariance }: Status): string[] {
  const at = state_names.indexOf("r0.base_values");
  if (at < 0 || health?.resistance_growth === undefined) return [];
  const std = Math.sqrt(covariance[at]?.[at] ?? NaN);
  const first = fixed(health.resistance_growth, 2);
  return [`; its series resistance is ${significant(1000 * mean[at]!, 3)} ± ${significant(2000 * std, 2)} mΩ, ${first} times what its estimator began with`];
}

function trust({ trust }: Status): (string | Node)[] {
  if (!trust) return [];
  if (trust.state === "healthy") return ["The estimator can be believed: it predicts the voltage as well as it expects."];
  const why = trust.reason ? (REASONS[trust.reason] ?? trust.reason.replaceAll("_", " ")) : "it has not shown yet that it can be";
  const [word, level] = trust.state === "diverged" ? ["cannot be believed now", "bad"] : ["may be wrong now", "warn"];
  return [h("strong", { class: level }, `The estimator ${word}`), `: ${why}.`];
}
