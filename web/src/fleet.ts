// What is known of all batteries: the hub's list joined with live news and alerts.
import { Refusal, askTwin, getJson } from "./api";
import { follow, serverNow } from "./live";
import { newestStored } from "./stored";
import type { Live, LinkState } from "./live";

export interface Battery {
  name: string;
  title: string | null;
  firstSeq: number;
  lastSeq: number;
  /** The newest values; of the live socket, or as the hub stored them. */
  live: Live | null;
  /** Whether they are the stored ones, because nothing is live. */
  isStored: boolean;
  /** What was live before the stored values took its place. */
  before: Live | null;
  /** When the stored ones were last asked for, by this page's clock. */
  askedAt: number;
  /** Alerts that last, the gravest severity among them, and a rule of that. */
  alerts: number;
  gravest: string | null;
  rule: string | null;
}

export interface Alert {
  rule: string;
  battery: string;
  severity: string;
  is_active: boolean;
  raised: number;
  cleared: number | null;
  detail: string;
}

interface Listed {
  name: string;
  title: string | null;
  first_seq: number;
  last_seq: number;
}

const FIELDS =
  "voltage,current,temperature,state_of_charge,state_of_charge__std,state_of_health," +
  "state_of_health__std,seq,epoch,estimator_phase,estimator_error,estimator_trust";
const LIST_AGAIN_MS = 30_000;
const ALERTS_AGAIN_MS = 5000;
const PAGE = 1000;
/** Batteries whose stored values are asked for at once, and how often each is. */
const ASKING = 4;
const STORED_AGAIN_MS = 10_000;

export class Fleet {
  readonly batteries = new Map<string, Battery>();
  /** Whether the hub's list came at least once. */
  isListed = false;
  /** Why it did not. */
  problem: string | null = null;
  link: LinkState = "connecting";
  /** Raised by every change. */
  version = 0;
  private asking = 0;
  private alerts: Alert[] = [];

  start(onLink: (state: LinkState) => void): void {
    void this.keepListing();
    void this.keepAskingAlerts();
    follow(`?fields=${FIELDS}`, {
      battery: (name, live) => this.take(name, live),
      link: (state) => {
        this.link = state;
        if (state === "live") this.liveAgain();
        this.version++;
        onLink(state);
      },
    });
  }

  private take(name: string, live: Live | null): void {
    this.version++;
    if (live === null) {
      this.batteries.delete(name);
      return;
    }
    const battery = this.battery(name);
    battery.live = live;
    battery.isStored = false;
    battery.lastSeq = Math.max(battery.lastSeq, live.seq ?? 0);
  }

  private battery(name: string): Battery {
    let battery = this.batteries.get(name);
    if (!battery) {
      battery = { name, title: null, firstSeq: 1, lastSeq: 0, live: null, isStored: false, before: null, askedAt: -Infinity, alerts: 0, gravest: null, rule: null };
      this.batteries.set(name, battery);
    }
    return battery;
  }

  /** Asks the hub for the newest stored values of batteries of which nothing is live; a few at a time. */
  askStored(batteries: Battery[]): void {
    if (this.link === "connecting") return;
    const now = performance.now();
    for (const battery of batteries) {
      if (this.asking >= ASKING) return;
      const isLive = battery.live !== null && !battery.isStored && this.link === "live";
      if (isLive || battery.lastSeq === 0 || now - battery.askedAt < STORED_AGAIN_MS) continue;
      battery.askedAt = now;
      this.asking++;
      void newestStored(battery.name)
        .then((stored) => this.takeStored(battery, stored))
        // Whoever is away is told of above the page.
        .catch(() => undefined)
        .finally(() => this.asking--);
    }
  }

  /** Shows again what was live before a pause; what came since is told anew. */
  private liveAgain(): void {
    for (const battery of this.batteries.values()) {
      if (!battery.isStored || battery.before === null) continue;
      battery.live = battery.before;
      battery.isStored = false;
    }
  }

  private takeStored(battery: Battery, stored: Live | null): void {
    const isOvertaken = this.link === "live" && battery.live !== null && !battery.isStored;
    if (stored === null || isOvertaken) return;
    if (!battery.isStored) battery.before = battery.live;
    battery.live = stored;
    battery.isStored = true;
    battery.lastSeq = Math.max(battery.lastSeq, stored.seq);
    this.version++;
  }

  private async keepListing(): Promise<void> {
    try {
      const seen = await this.list();
      for (const [name, battery] of this.batteries) {
        if (!seen.has(name) && (!battery.live || battery.isStored)) this.batteries.delete(name);
      }
      this.isListed = true;
      this.problem = null;
      this.spreadAlerts();
    } catch (error) {
      this.problem = error instanceof Refusal ? error.message : String(error);
    }
    this.version++;
    setTimeout(() => void this.keepListing(), this.problem ? 3000 : LIST_AGAIN_MS);
  }

  private async list(): Promise<Set<string>> {
    const seen = new Set<string>();
    let after: string | null = "";
    while (after !== null) {
      const path: string = `/db/batteries?limit=${PAGE}&after=${encodeURIComponent(after)}`;
      const answer: { batteries: Listed[]; next: string | null } = await getJson(path);
      for (const listed of answer.batteries) {
        const battery = this.battery(listed.name);
        battery.title = listed.title;
        battery.firstSeq = listed.first_seq;
        battery.lastSeq = Math.max(listed.last_seq, battery.live?.seq ?? 0);
        seen.add(listed.name);
      }
      this.version++;
      after = answer.next;
    }
    return seen;
  }

  private async keepAskingAlerts(): Promise<void> {
    try {
      this.alerts = await askTwin<Alert[]>("/online/alerts?active=true");
      this.spreadAlerts();
    } catch {
      // The head of the page says that the twin is away.
    }
    setTimeout(() => void this.keepAskingAlerts(), ALERTS_AGAIN_MS);
  }

  /** Tells each battery of its alerts; they may have come before the list. */
  private spreadAlerts(): void {
    for (const battery of this.batteries.values()) {
      battery.alerts = 0;
      battery.gravest = battery.rule = null;
    }
    for (const alert of this.alerts) {
      const battery = this.batteries.get(alert.battery);
      if (!battery) continue;
      battery.alerts++;
      if (!isGraver(alert.severity, battery.gravest)) continue;
      battery.gravest = alert.severity;
      battery.rule = alert.rule;
    }
    this.version++;
  }
}

const SEVERITIES = ["info", "warning", "critical"];

function isGraver(one: string, other: string | null): boolean {
  return other === null || SEVERITIES.indexOf(one) > SEVERITIES.indexOf(other);
}

export function rowsOf(battery: Battery): number {
  return Math.max(0, battery.lastSeq - battery.firstSeq + 1);
}

/** Seconds since the newest row; null before the first. */
export function ageOf(battery: Battery): number | null {
  return battery.live?.timestamp ? (serverNow() - battery.live.timestamp) / 1000 : null;
}
