// Chooses the page by its path; each comes with its own code.
import { h } from "./dom";
import { openPage } from "./shell";

async function open(): Promise<void> {
  const path = location.pathname;
  const battery = /^\/dashboard\/([^/]+)\/?$/.exec(path)?.[1];
  if (battery !== undefined) {
    const { openBattery } = await import("./battery/page");
    openBattery(decodeURIComponent(battery));
  } else if (path === "/") {
    const { openHome } = await import("./home/page");
    openHome();
  } else if (path === "/login") {
    const { openLogin } = await import("./login");
    openLogin();
  } else if (path === "/register") {
    const { openRegister } = await import("./register/page");
    openRegister();
  } else if (path === "/status") {
    const { openStatus } = await import("./status");
    openStatus();
  } else {
    const { main } = openPage("No such page");
    main.append(h("p", {}, "There is no such page. ", h("a", { href: "/" }, "All batteries")));
  }
}

void open();
