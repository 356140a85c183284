// The hub's live socket: connects again by itself and tells how it stands.
import { checkSignedIn, openSocket } from "./api";

/** A battery as `/ws` tells it; fields that were not asked for are missing. */
export interface Live {
  timestamp: number;
  ws_timestamp?: number;
  epoch: number;
  seq: number;
  voltage: number | null;
  current: number | null;
  temperature: number | null;
  state_of_charge: number | null;
  state_of_charge__std: number | null;
  state_of_health: number | null;
  state_of_health__std: number | null;
  estimator_phase: string | null;
  estimator_error: string | null;
  estimator_trust: string | null;
  [column: string]: unknown;
}

export type LinkState = "connecting" | "live" | "away";

interface Listener {
  /** A battery's news; null where it is no more. */
  battery(name: string, live: Live | null): void;
  link(state: LinkState): void;
}

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;
/** Close code of a battery that has no row yet. */
const NO_SUCH_BATTERY = 4404;
/** Close code of a token that counts no more. */
const ENDED = 4401;

// Where the bus is away a socket stays open and says nothing: that is not live.
let busIsAway = false;
const onBus: (() => void)[] = [];

/** Takes in whether the bus is away, as the hub says. */
export function hearBus(isAway: boolean): void {
  if (busIsAway === isAway) return;
  busIsAway = isAway;
  for (const tell of onBus) tell();
}

/** Follows all batteries or one; the newest state comes again after each connection. */
export function follow(query: string, listener: Listener): void {
  let wait = FIRST_WAIT_MS;
  let state: LinkState = "connecting";
  const tell = () => listener.link(state === "live" && busIsAway ? "away" : state);
  const link = (now: LinkState) => {
    state = now;
    tell();
  };
  onBus.push(tell);
  const connect = () => {
    const socket = openSocket(`/ws${query}`);
    let opened = false;
    socket.addEventListener("open", () => {
      opened = true;
      wait = FIRST_WAIT_MS;
      link("live");
    });
    socket.addEventListener("message", (event) => {
      for (const [key, value] of Object.entries(JSON.parse(event.data as string))) {
        const name = /^battery:(.*):data$/.exec(key)?.[1];
        if (name !== undefined) take(name, value as Live | null);
      }
    });
    socket.addEventListener("close", (event) => {
      const isWaiting = event.code === NO_SUCH_BATTERY;
      link(isWaiting ? "connecting" : "away");
      if (!opened || event.code === ENDED) void checkSignedIn();
      setTimeout(connect, wait);
      wait = Math.min(wait * 2, isWaiting ? 2000 : LONGEST_WAIT_MS);
    });
  };
  const take = (name: string, live: Live | null) => {
    if (live?.ws_timestamp) hearClock(live.ws_timestamp);
    listener.battery(name, live);
  };
  link("connecting");
  connect();
}

// The server's clock, as its messages tell it: ages stay right where this machine's is wrong.
let ahead: number | null = null;

function hearClock(serverMs: number): void {
  const now = serverMs - Date.now();
  ahead = ahead === null ? now : Math.max(ahead, now);
}

/** The server's time in milliseconds since 1970. */
export function serverNow(): number {
  return Date.now() + (ahead ?? 0);
}
