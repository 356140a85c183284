// The one place that talks to the hub: every request and every socket begins here.

/** What the service answered when it did not do what was asked. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly field: string | null = null,
  ) {
    super(message);
  }

  /** Whether a part of the service is away, so that asking again may help. */
  get isAway(): boolean {
    return this.status === 0 || this.status === 502 || this.status === 503 || this.status === 504;
  }
}

/**
 * Who is not known is asked to say who they are, and comes back here afterwards. A twin that has not
 * heard of a new token yet is no reason: so the hub is asked.
 */
async function askToSignIn(): Promise<void> {
  if (location.pathname === "/login") return;
  const me = await fetch("/auth/me").catch(() => null);
  const here = location.pathname + location.search;
  if (me?.status === 401) location.assign(`/login?next=${encodeURIComponent(here)}`);
}

/** Sends a request; what is not 2xx becomes a [`Refusal`]. */
export async function request(path: string, init: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...init });
  } catch (error) {
    if ((error as Error).name === "AbortError") throw error;
    throw new Refusal(0, "the Data Hub does not answer");
  }
  if (response.status === 401) void askToSignIn();
  if (!response.ok) throw await refusal(response.status, await response.text());
  return response;
}

export async function getJson<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await request(path, signal ? { signal } : {})).json() as Promise<T>;
}

const TWIN_MS = 8000;

/** Asks the twin; one that stands still counts as away, however long the hub waits for it. */
export function askTwin<T>(path: string): Promise<T> {
  return getJson<T>(path, AbortSignal.timeout(TWIN_MS));
}

/** Sends a body and tells how far it is on its way. */
export function sendWithProgress(
  method: string,
  path: string,
  body: XMLHttpRequestBodyInit,
  headers: Record<string, string>,
  progress: (sent: number, total: number) => void,
  answered: (text: string) => void = () => {},
): Promise<{ text: string; header: (name: string) => string | null }> {
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();
    sending.open(method, path);
    for (const [name, value] of Object.entries(headers)) sending.setRequestHeader(name, value);
    sending.upload.addEventListener("progress", (event) => progress(event.loaded, event.total));
    sending.addEventListener("progress", () => answered(sending.responseText));
    sending.addEventListener("error", () => reject(new Refusal(0, "the Data Hub does not answer")));
    sending.addEventListener("load", () => {
      if (sending.status === 401) void askToSignIn();
      if (sending.status >= 200 && sending.status < 300) {
        resolve({ text: sending.responseText, header: (name) => sending.getResponseHeader(name) });
      } else {
        reject(refusal(sending.status, sending.responseText));
      }
    });
    sending.send(body);
  });
}

/** Opens a socket of the hub. */
export function openSocket(path: string): WebSocket {
  return new WebSocket(location.origin.replace(/^http/, "ws") + path);
}

/** A socket cannot tell why it was refused; this asks whether it was for want of a login. */
export async function checkSignedIn(): Promise<void> {
  try {
    await request("/db/batteries?limit=1");
  } catch {
    // Whoever is away is told of elsewhere; 401 has led to the login.
  }
}

function refusal(status: number, text: string): Refusal {
  try {
    const problem = JSON.parse(text) as { detail?: string; field?: string };
    return new Refusal(status, problem.detail ?? text, problem.field ?? null);
  } catch {
    return new Refusal(status, text || `the service answered ${status}`);
  }
}

export function explain(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
