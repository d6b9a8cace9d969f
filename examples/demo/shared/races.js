// The buttons of the page of races that need a script. It shows them, so that a page without scripts has
// none that does nothing.
"use strict";

const REQUESTS = 20;
const WORKERS = 4;

const token = document.querySelector("[name=csrf_token]").value;
const sleep = (millis) => new Promise((done) => setTimeout(done, millis));

/** Sends a form. A redirect is an answer, which is not followed: the next page takes the messages. */
async function post(path, fields = {}) {
  const body = new URLSearchParams({ csrf_token: token, ...fields });
  const response = await fetch(path, { method: "POST", body, redirect: "manual" });
  if (!response.ok && response.type !== "opaqueredirect") {
    throw new Error(`${path}: status ${response.status}`);
  }
}

/** Returns what the server sees in this session. */
async function state() {
  const response = await fetch("/state");
  if (!response.ok) {
    throw new Error(`/state: status ${response.status}`);
  }
  return response.json();
}

/** Sends requests that each add an entry and count, as many at once as the browser does. */
async function together(say) {
  say(`Sending ${REQUESTS} requests …`);
  await post("/races/begin");
  const writes = Array.from({ length: REQUESTS }, (_, n) => post("/races/write", { n }));
  await Promise.all(writes);
  const { keys, count, inCookie } = await state();
  document.getElementById("keys").textContent = keys;
  document.getElementById("count").textContent = count;
  const result = `${keys} of ${REQUESTS} entries kept, and ${count} of ${REQUESTS} counted.`;
  if (!inCookie) {
    say(result);
  } else {
    say(`${result} The cookie holds the whole session, so the last response wins. Backends on the ` +
      "server lose none.");
  }
}

/** Logs out while a request is under way that writes to the session. */
async function logout(say) {
  const { user } = await state();
  const slow = post("/races/slow");
  say("The slow request is under way …");
  await sleep(1000);
  await post("/logout");
  say("You logged out. The slow request is still under way …");
  await slow;
  const after = await state();
  if (after.user === null && after.keys === 0) {
    say("The slow request ended after the log-out and restored nothing: you are logged out.");
  } else {
    say(`The slow request restored the session: the browser is logged in as ${after.user ?? user} again. ` +
      "Its cookie holds the whole session, which the server cannot end. Backends on the server can.");
  }
}

/** Switches the backend while requests are sent, and counts those that fail or are logged out. */
async function change(say) {
  const { user } = await state();
  let sent = 0;
  let failed = 0;
  let goOn = true;
  async function send() {
    while (goOn) {
      sent += 1;
      const now = await state().catch(() => ({}));
      failed += now.user === user ? 0 : 1;
      await sleep(20);
    }
  }
  const show = () => say(`${sent} requests sent, ${failed} failed.`);
  const shown = setInterval(show, 250);
  const workers = Array.from({ length: WORKERS }, send);
  await sleep(1000);
  await post("/races/switch");
  // The session moves when it is next written.
  await post("/races/write", { n: 0 });
  await sleep(1000);
  goOn = false;
  await Promise.all(workers);
  clearInterval(shown);
  const { backend } = await state();
  say(`${sent} requests sent, ${failed} failed. Sessions are now kept in ${backend}, and you are still ` +
    `logged in as ${user}.`);
}

for (const [name, run] of Object.entries({ together, logout, change })) {
  const button = document.getElementById(`run-${name}`);
  const output = document.getElementById(`${name}-result`);
  const say = (text) => {
    output.textContent = text;
  };
  button?.removeAttribute("hidden");
  button?.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await run(say);
    } catch (error) {
      say(`This could not be tried: ${error.message}`);
    }
    button.disabled = false;
  });
}
