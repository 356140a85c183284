// `/login`: a token becomes a session of this browser, which no script can read.
import { Refusal, explain } from "./api";
import { fill, h, setText } from "./dom";
import { signIn, whoAmI } from "./session";
import { openPage } from "./shell";

export function openLogin(): void {
  const { main } = openPage("Sign in");
  const said = h("p", { id: "said", class: "note", role: "status", hidden: true });
  const say = (text: string, level = "") => {
    said.className = `note ${level}`;
    said.hidden = false;
    setText(said, text);
  };
  const form = tokenForm(say);
  main.append(h("section", { class: "card login" }, h("h1", {}, "Sign in"), said, form, explanation()));
  form.querySelector("input")?.focus();
  void greet(said, say);
}

function tokenForm(say: (text: string, level: string) => void): HTMLFormElement {
  const token = h("input", {
    id: "token",
    type: "password",
    required: true,
    autocomplete: "current-password",
    spellcheck: "false",
    "aria-describedby": "said what",
  });
  const button = h("button", { type: "submit", class: "main" }, "Sign in");
  const send = async () => {
    button.disabled = true;
    try {
      await signIn(token.value.trim());
      location.assign(nextPage());
    } catch (error) {
      say(explain(error), "bad");
      token.setAttribute("aria-invalid", "true");
      token.select();
    } finally {
      button.disabled = false;
    }
  };
  const field = h("div", { class: "field" }, h("label", { for: "token" }, "Token"), token);
  const form = h("form", {}, field, h("div", { class: "bar" }, button));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void send();
  });
  return form;
}

function explanation(): HTMLElement {
  return h(
    "div",
    { id: "what" },
    h("p", {}, "A token is a word that says who you are and what you may do. An admin makes one for you, and sees it once:"),
    h("pre", { tabindex: "0" }, "rovicli token create your-name --grant reader --days 30"),
    h("p", {}, "The first admin's token is printed by ", h("code", {}, "rovicli up --auth"), ". Where an issuer of JWTs is set up, a JWT does as well."),
    h("p", { class: "soft" }, "This browser keeps it for 12 hours, or until it expires or is revoked."),
  );
}

/** Says why somebody was sent here, or that there is no need to be. */
async function greet(said: HTMLElement, say: (text: string, level: string) => void): Promise<void> {
  try {
    const me = await whoAmI();
    const text = me.required ? `You are signed in as ${me.name}.` : "Nobody has to sign in here.";
    say(text, "");
    fill(said, text, " ", h("a", { href: nextPage() }, "Go on"));
  } catch (error) {
    // Whoever has shown nothing yet needs no reproach.
    const isNew = error instanceof Refusal && error.status === 401 && error.field !== null;
    if (!isNew) say(explain(error), "warn");
  }
}

/** Where to go on: a page of our own, never another's. */
function nextPage(): string {
  const home = `${location.origin}/`;
  const wanted = new URLSearchParams(location.search).get("next") ?? home;
  if (!URL.canParse(wanted, home)) return home;
  const url = new URL(wanted, home);
  // The whole address: a path alone may begin with `//` and lead elsewhere.
  return url.origin === location.origin && url.pathname !== "/login" ? url.href : home;
}
