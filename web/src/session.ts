// Who uses this browser: signing in, out, and what the head of each page tells of it.
import { Refusal, getJson, request } from "./api";
import { fill, h } from "./dom";

/** Who somebody is taken for. */
export interface Me {
  name: string;
  /** Whether anybody has to say who they are. */
  required: boolean;
}

export function whoAmI(): Promise<Me> {
  return getJson<Me>("/auth/me");
}

/** Has the service make a session of a token; the cookie is out of reach for scripts, ours too. */
export async function signIn(token: string): Promise<void> {
  if (!/^[\x21-\x7e]+$/.test(token)) throw new Refusal(400, "a token is one word, without blanks or accents");
  await request("/auth/session", { method: "POST", headers: { Authorization: `Bearer ${token}` } });
}

async function signOut(): Promise<void> {
  await request("/auth/session", { method: "DELETE" });
  location.assign("/login");
}

/** Shows who is signed in, with a button to sign out, where anybody has to. */
export async function showWho(place: HTMLElement): Promise<void> {
  try {
    const me = await whoAmI();
    if (!me.required) return;
    const button = h("button", { type: "button", onclick: () => void signOut() }, "Sign out");
    fill(place, h("span", { class: "soft who", title: "signed in" }, me.name), button);
  } catch {
    // 401 leads to the login; whoever is away is told of above the page.
  }
}
